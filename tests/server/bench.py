"""Parts of the engine's tests: an engine with its sessions, without a socket."""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ovoad_model.detector import Detector
from ovoad_server.engine.batches import BatchRecord
from ovoad_server.engine.engine import Engine
from ovoad_server.engine.events import EventRule
from ovoad_server.engine.interface import EncodedBatch, ScoreStep
from ovoad_server.engine.replies import Dropped, Failed, Reply, Scored
from ovoad_server.engine.session import Policy, Session, Words

from .harness import ColourEncoder, LocalWorker, occurs, picture, until


@dataclass
class Desk:
    """A session of an engine and the answers that it got."""

    engine: Engine
    session: Session
    replies: list[Reply]
    fails_to_reply: bool = False

    def submit(self, *seqs: int, colour: str = "red", image: bytes | None = None) -> None:
        for seq in seqs:
            self.engine.submit(self.session, seq, seq * 250, image or picture(colour))

    async def answers(self, count: int) -> list[Reply]:
        """Wait until this many answers have come; return all."""
        await until(lambda: len(self.replies) >= count)
        return self.replies

    def scored(self) -> list[Scored]:
        return [reply for reply in self.replies if isinstance(reply, Scored)]


class Bench:
    """An engine, the order of all its answers, and the sizes of its batches."""

    def __init__(
        self,
        detector: Detector,
        *,
        max_batch: int,
        lanes: int = 1,
        observe: Callable[[BatchRecord], None] | None = None,
    ) -> None:
        self.detector = detector
        self.records: list[BatchRecord] = []
        self.order: list[tuple[str, int | None]] = []
        observe = observe or self.records.append
        self.worker = LocalWorker(detector, lanes=lanes)
        self.engine = Engine(
            self.worker,
            open_window=detector.open_window,
            max_batch=max_batch,
            lanes=lanes,
            latency_budget_ms=1e9,
            observe=observe,
        )

    def open(
        self,
        name: str,
        *,
        policy: Policy = "lossless",
        scorer: str = "frame",
        max_fps: float = math.inf,
        labels: tuple[str, ...] = ("red", "blue"),
    ) -> Desk:
        replies: list[Reply] = []

        def note(reply: Reply) -> None:
            if desk.fails_to_reply:
                raise RuntimeError("this desk is closed")
            replies.append(reply)
            if isinstance(reply, Scored | Failed | Dropped):
                self.order.append((name, reply.seq))

        session = Session(
            name,
            policy=policy,
            window=self.engine.open_window(),
            words=Words(1, self.detector.vocabulary(labels, scorer=scorer)),
            rule=EventRule(0.5, 0.25, 60_000),
            max_inflight=8,
            max_fps=max_fps,
            reply=note,
        )
        self.engine.add(session)
        desk = Desk(self.engine, session, replies)
        return desk


class ScriptedWorker(LocalWorker):
    """Encodes a call only when its script says so: a future for each call, its result an error."""

    def __init__(self, detector: Detector, calls: int) -> None:
        super().__init__(detector, lanes=4)
        self.turns = [asyncio.get_running_loop().create_future() for _ in range(calls)]
        self.asked: list[int] = []

    async def encode(
        self, images: Sequence[bytes], steps: Sequence[ScoreStep | None] = ()
    ) -> EncodedBatch:
        call = len(self.asked)
        self.asked.append(len(images))
        error: Exception | None = await self.turns[call]
        if error is not None:
            raise error
        return await super().encode(images, steps)


async def hold(encoder: ColourEncoder, desk: Desk, seq: int) -> None:
    """Stop the worker inside a batch of one frame of this session."""
    encoder.entered.clear()
    encoder.hold.clear()
    desk.submit(seq)
    await occurs(encoder.entered)
