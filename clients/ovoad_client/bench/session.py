"""One session of the load: sends JPEGs, checks and times the answers.

Lean, as it shares the machine with the server: answers are read by `json.loads`, unchecked but for
what is counted.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from ovoad_client.bench.answers import AnswerBook, Tally
from ovoad_client.bench.samples import SERVER_STAGES, Recorder
from ovoad_client.connection import open_connection
from ovoad_client.opening import build_session_create, build_vocabulary, open_session
from ovoad_client.protocol import MAX_SEQ, Policy, ScorerName, pack_frame

VIDEO_FRAME_MS: Final = 40  # distance of the timestamps where frames go out without a pace
FRAMES_IN_FLIGHT: Final = 64  # over all sessions, without a pace: enough for the largest batches
OPEN_TIMEOUT_S: Final = 120.0
CLOSE_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True)
class SessionPlan:
    """How a session behaves: fps 0 sends as fast as answers come.

    inflight bounds a lossless session's unanswered frames (None: as the server does, never above).
    """

    url: str
    labels: Sequence[str]
    policy: Policy
    fps: float
    inflight: int | None
    api_key: str | None = None
    scorer: ScorerName | None = None
    top_k: int | None = None
    open_timeout_s: float = OPEN_TIMEOUT_S


class LoadSession:
    """An open session. `run` sends and receives until told to stop, then closes in order."""

    def __init__(
        self, socket: ClientConnection, plan: SessionPlan, *, inflight: int, recorder: Recorder
    ) -> None:
        self.book = AnswerBook()
        self.broken: str | None = None  # why it ended without session.closed
        self.miscounted = False
        self.lost = 0  # lossless frames that got no prediction
        self._socket = socket
        self._plan = plan
        self._inflight = inflight
        self._recorder = recorder
        self._room = asyncio.Event()  # an answer came, or there is nothing more to send
        self._ended = asyncio.Event()
        self._step_ms = round(1000 / plan.fps) if plan.fps > 0 else VIDEO_FRAME_MS

    @classmethod
    async def open(cls, plan: SessionPlan, recorder: Recorder) -> "LoadSession":
        """Connect and create the session; raises RefusedError where there is no room."""
        words = build_vocabulary(plan.labels, None, None)
        create = build_session_create(words, plan.policy, plan.scorer, plan.top_k, None)
        socket = await open_connection(
            plan.url, api_key=plan.api_key, timeout_s=plan.open_timeout_s
        )
        try:
            created = await open_session(
                socket, create, plan.open_timeout_s, None, key_given=bool(plan.api_key)
            )
        except BaseException:
            await socket.close()
            raise
        inflight = min(plan.inflight or MAX_SEQ, created.limits.max_inflight)
        return cls(socket, plan, inflight=inflight, recorder=recorder)

    async def run(
        self, frames: Sequence[bytes], stop: asyncio.Event, *, phase: float = 0.0
    ) -> None:
        """Send until `stop`, receive until the server closed; phase (0 to 1) shifts the start."""
        stopping = asyncio.create_task(self._wake_on(stop))
        receiving = asyncio.create_task(self._receive())
        try:
            try:
                await self._send_all(frames, stop, phase)
                await self._socket.send('{"type":"session.close"}')
            except ConnectionClosed:
                pass  # told by the receiver
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._ended.wait()
                    await receiving
            if not self._ended.is_set():
                self.broken = f"found no session.closed within {CLOSE_TIMEOUT_S:g} s"
        finally:
            stopping.cancel()
            receiving.cancel()
            await self._socket.close()

    def add_to(self, tally: Tally) -> None:
        """Count this session's frames and how it ended."""
        tally.add(self.book)
        tally.lost += self.lost
        tally.miscounted += self.miscounted
        if self.broken is not None:
            tally.broken[self.broken] += 1

    async def exchange(self, jpeg: bytes) -> None:
        """Send one frame and wait for its answer; for use without `run`, beside `listening`."""
        await self._send(jpeg, time.perf_counter())
        while self.book.unanswered and not self._ended.is_set():
            self._room.clear()
            await self._room.wait()

    @contextlib.asynccontextmanager
    async def listening(self) -> Any:
        """Receive answers inside the block, close in order after it."""
        receiving = asyncio.create_task(self._receive())
        try:
            yield self
            await self._socket.send('{"type":"session.close"}')
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._ended.wait()
        finally:
            receiving.cancel()
            await self._socket.close()

    # ---- sending --------------------------------------------------------------------------------

    async def _send_all(self, frames: Sequence[bytes], stop: asyncio.Event, phase: float) -> None:
        interval_s = 1 / self._plan.fps if self._plan.fps > 0 else 0.0
        due_s = time.perf_counter() + phase * interval_s
        count = len(frames)
        offset = round(phase * count)  # sessions show different parts of the video
        while not stop.is_set() and not self._ended.is_set():
            if interval_s:
                await self._wait_until(due_s, stop)
            await self._wait_for_room(stop)
            if stop.is_set() or self._ended.is_set():
                return
            if not interval_s:
                due_s = time.perf_counter()
            await self._send(frames[(offset + self.book.sent) % count], due_s)
            due_s += interval_s

    async def _send(self, jpeg: bytes, due_s: float) -> None:
        self._recorder.samples.late_ms.append((time.perf_counter() - due_s) * 1000)
        seq = self.book.send(due_s)
        await self._socket.send(pack_frame(seq, seq * self._step_ms, jpeg))

    async def _wait_until(self, due_s: float, stop: asyncio.Event) -> None:
        wait_s = due_s - time.perf_counter()
        if wait_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await stop.wait()

    async def _wait_for_room(self, stop: asyncio.Event) -> None:
        if self._plan.policy == "realtime":
            return  # the server drops what it cannot take
        while self.book.unanswered >= self._inflight:
            if stop.is_set() or self._ended.is_set():
                return
            self._room.clear()
            await self._room.wait()

    async def _wake_on(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._room.set()

    # ---- receiving ------------------------------------------------------------------------------

    async def _receive(self) -> None:
        try:
            while True:
                text = await self._socket.recv(decode=False)
                self._take(json.loads(text), time.perf_counter())
        except ConnectionClosed as error:
            if not self._ended.is_set():
                why = error.rcvd.reason if error.rcvd is not None else ""
                self.broken = why or "connection broken"
        finally:
            self._ended.set()
            self._room.set()

    def _take(self, message: dict[str, Any], now_s: float) -> None:
        kind = message["type"]
        samples = self._recorder.samples
        if kind == "prediction":
            due_s = self._answered(message["seq"])
            if due_s is None:
                return
            times = samples.times_ms
            timing = message["timing_ms"]
            for stage in SERVER_STAGES:
                times[stage].append(timing[stage])
            times["end to end"].append((now_s - due_s) * 1000)
        elif kind == "frame.dropped":
            self._answered(message["seq"])
            samples.dropped[message["reason"]] += 1
            self.lost += self._plan.policy == "lossless"
        elif kind == "error":
            samples.errors[message["code"]] += 1
            if message.get("seq") is not None:
                self._answered(message["seq"])
                self.lost += self._plan.policy == "lossless"
            elif message["fatal"]:
                self.broken = f"{message['code']}: {message['message']}"
        elif kind == "session.closed":
            self._close(message)

    def _answered(self, seq: int) -> float | None:
        due_s = self.book.answer(seq)
        self._room.set()
        return due_s

    def _close(self, closed: dict[str, Any]) -> None:
        answers = closed["predicted"] + sum(closed["dropped"].values()) + closed["errors"]
        self.miscounted = not closed["received"] == answers == self.book.sent
        if closed["reason"] != "closed by client" and self.book.unanswered:
            self.broken = f"the server closed the session: {closed['reason']}"
        self._ended.set()
        self._room.set()
