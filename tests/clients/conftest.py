"""A small server that speaks the wire contract on loopback, and small real videos."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import cv2
import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from ovoad_client.protocol import (
    DroppedCounts,
    Error,
    Event,
    FrameDropped,
    Limits,
    ModelInfo,
    Ping,
    Pong,
    Prediction,
    SessionClose,
    SessionClosed,
    SessionCreate,
    SessionCreated,
    SessionReset,
    SessionWasReset,
    Timing,
    VocabularyUpdate,
    VocabularyUpdated,
    WindowShape,
    WindowState,
    parse_client_message,
    unpack_frame,
)

LIMITS = Limits(
    max_frame_bytes=200_000,
    max_pixels=10_000_000,
    max_labels=1000,
    max_inflight=3,
    max_fps=60.0,
    idle_timeout_ms=60_000,
    max_session_ms=3_600_000,
)


def make_created(labels: list[str], **changes: object) -> SessionCreated:
    """Return a plausible session.created."""
    created = SessionCreated(
        session_id="s1",
        model=ModelInfo(encoder="fake", scorer="average", fingerprint="f00d"),
        labels=labels,
        vocabulary_version=1,
        policy="realtime",
        limits=LIMITS,
        window=WindowShape(fps=4.0, past=24, neighbours=8),
        resume_token="t",
        resumed=False,
    )
    return created.model_copy(update=changes)


def make_prediction(
    seq: int, timestamp_ms: int, probabilities: list[float], **changes: object
) -> Prediction:
    """Return a plausible prediction; background takes what the labels leave."""
    prediction = Prediction(
        seq=seq,
        timestamp_ms=timestamp_ms,
        vocabulary_version=1,
        probabilities=probabilities,
        background=1 - sum(probabilities),
        similarities=[0.1 for _ in probabilities],
        window=WindowState(frames=3, span_ms=500, gaps=1, warming_up=True),
        timing_ms=Timing(queue=0.1, decode=1.0, encode=9.0, score=0.1, total=10.2),
        backlog=0,
    )
    return prediction.model_copy(update=changes)


@dataclass
class FakeServer:
    """Answers every frame with a prediction, unless told otherwise by its fields."""

    url: str = ""
    api_key: str | None = None
    key_by_close_code: bool = False
    drop_every: int = 0  # every n-th frame is dropped busy
    fail_on: int | None = None  # seq answered with an error
    silent: bool = False  # frames get no answer
    break_after: int | None = None  # close with 1011 after so many frames
    end_after: int | None = None  # session.closed "idle" after so many frames
    refuse: Error | None = None  # instead of session.created
    first_text: str | None = None  # instead of session.created
    garbage_after: int | None = None
    refuse_updates: bool = False
    miscount: int = 0
    events: list[Event] = field(default_factory=list)  # sent after the first prediction
    warnings: list[str] = field(default_factory=list)
    creates: list[SessionCreate] = field(default_factory=list)
    frames: list[tuple[int, int, bytes]] = field(default_factory=list)
    subprotocols: list[str | None] = field(default_factory=list)
    extensions: list[str | None] = field(default_factory=list)
    sockets: list[ServerConnection] = field(default_factory=list)
    most_unanswered: int = 0
    hold: asyncio.Event = field(default_factory=asyncio.Event)  # cleared: answers wait

    def check_key(self, connection: ServerConnection, request: Request) -> Response | None:
        """Refuse the handshake with 401 where the key is wrong."""
        self.extensions.append(request.headers.get("Sec-WebSocket-Extensions"))
        if self.key_by_close_code or self.api_key is None or self._has_key(request):
            return None
        return connection.respond(HTTPStatus.UNAUTHORIZED, "no\n")

    def _has_key(self, request: Request) -> bool:
        return request.headers.get("Authorization") == f"Bearer {self.api_key}"

    async def handle(self, socket: ServerConnection) -> None:
        """Serve one connection."""
        assert socket.request is not None
        self.subprotocols.append(socket.subprotocol)
        self.sockets.append(socket)
        if self.key_by_close_code and not self._has_key(socket.request):
            await socket.close(4401, "not authorised")
            return
        try:
            await self._converse(socket)
        except* ConnectionClosed:
            pass

    async def _converse(self, socket: ServerConnection) -> None:
        create = parse_client_message(await socket.recv())
        assert isinstance(create, SessionCreate)
        self.creates.append(create)
        if self.refuse is not None:
            await socket.send(self.refuse.to_json())
            await socket.close(1008)
            return
        labels = create.vocabulary.labels
        created = make_created(labels, policy=create.policy, warnings=self.warnings)
        await socket.send(self.first_text or created.to_json())
        await _Session(self, socket, labels).run()


class _Session:
    def __init__(self, server: FakeServer, socket: ServerConnection, labels: list[str]) -> None:
        self.server = server
        self.socket = socket
        self.labels = labels
        self.version = 1
        self.counts = {"received": 0, "predicted": 0, "busy": 0, "errors": 0}
        self.waiting: asyncio.Queue[tuple[int, int] | str | None] = asyncio.Queue()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._answer_all())
            async for data in self.socket:
                if isinstance(data, bytes):
                    frame = unpack_frame(data)
                    self.server.frames.append((frame.seq, frame.timestamp_ms, frame.image))
                    self.counts["received"] += 1
                    self.waiting.put_nowait((frame.seq, frame.timestamp_ms))
                    most = max(self.server.most_unanswered, self.waiting.qsize())
                    self.server.most_unanswered = most
                elif await self._control(data):
                    break
            self.waiting.put_nowait(None)

    async def _control(self, text: str) -> bool:
        """Handle a control message; True where it ends the session."""
        match parse_client_message(text):
            case Ping():
                await self.socket.send(Pong().to_json())
            case SessionReset():
                await self.socket.send(SessionWasReset().to_json())
            case VocabularyUpdate(vocabulary=vocabulary):
                await self._update(vocabulary.labels)
            case SessionClose():
                self.waiting.put_nowait("closed by client")
                return True
        return False

    async def _update(self, labels: list[str]) -> None:
        if self.server.refuse_updates:
            text = "found 1001 labels, expected at most 1000"
            error = Error(code="bad_vocabulary", message=text, fatal=False, transient=False)
            await self.socket.send(error.to_json())
            return
        self.labels, self.version = labels, self.version + 1
        updated = VocabularyUpdated(
            vocabulary_version=self.version, labels=labels, from_seq=self.counts["received"]
        )
        await self.socket.send(updated.to_json())

    async def _answer_all(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while (item := await self.waiting.get()) is not None:
                if isinstance(item, str):
                    await self._close(item)
                    return
                await self.server.hold.wait()
                await self._answer(*item)

    async def _answer(self, seq: int, timestamp_ms: int) -> None:
        server, counts, socket = self.server, self.counts, self.socket
        if server.silent:
            return
        if server.break_after is not None and seq >= server.break_after:
            await socket.close(1011, "")
        elif server.garbage_after is not None and seq >= server.garbage_after:
            await socket.send(json.dumps({"type": "prediction", "surprise": 1}))
        elif server.end_after is not None and seq >= server.end_after:
            await self._close("idle")
        elif seq == server.fail_on:
            counts["errors"] += 1
            text = "found bytes that are no image, expected JPEG, PNG or WebP"
            error = Error(code="bad_image", message=text, fatal=False, transient=False, seq=seq)
            await socket.send(error.to_json())
        elif server.drop_every and seq % server.drop_every == server.drop_every - 1:
            counts["busy"] += 1
            dropped = FrameDropped(seq=seq, timestamp_ms=timestamp_ms, reason="busy")
            await socket.send(dropped.to_json())
        else:
            await self._predict(seq, timestamp_ms)

    async def _predict(self, seq: int, timestamp_ms: int) -> None:
        self.counts["predicted"] += 1
        share = [0.8 / len(self.labels) for _ in self.labels]
        prediction = make_prediction(seq, timestamp_ms, share, vocabulary_version=self.version)
        await self.socket.send(prediction.to_json())
        if self.counts["predicted"] == 1:
            for event in self.server.events:
                await self.socket.send(event.to_json())

    async def _close(self, reason: str) -> None:
        counts = self.counts
        closed = SessionClosed(
            reason=reason,
            received=counts["received"] + self.server.miscount,
            predicted=counts["predicted"],
            dropped=DroppedCounts(busy=counts["busy"]),
            errors=counts["errors"],
        )
        await self.socket.send(closed.to_json())
        await self.socket.close(1000)


@pytest.fixture
async def server() -> AsyncIterator[FakeServer]:
    """Return a running fake server; its fields may be changed before connecting."""
    fake = FakeServer()
    fake.hold.set()
    async with serve(
        fake.handle,
        "127.0.0.1",
        0,
        subprotocols=["ovoad.v1"],  # type: ignore[list-item]
        process_request=fake.check_key,
    ) as listener:
        port = next(iter(listener.sockets)).getsockname()[1]
        fake.url = f"ws://127.0.0.1:{port}/v1/stream"
        yield fake
        fake.hold.set()


MakeVideo = Callable[..., Path]


@pytest.fixture
def make_video(tmp_path: Path) -> MakeVideo:
    """Return a function that writes a real video whose brightness grows frame by frame."""

    def make(
        *,
        frames: int = 10,
        fps: float = 20.0,
        size: tuple[int, int] = (64, 48),
        name: str = "v.mp4",
    ) -> Path:
        path = tmp_path / name
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
        assert writer.isOpened()
        for index in range(frames):
            shade = 10 + 240 * index // max(1, frames)
            writer.write(np.full((size[1], size[0], 3), shade, np.uint8))
        writer.release()
        return path

    return make


@pytest.fixture
def created() -> SessionCreated:
    """Return a session.created with the labels waving and jumping."""
    return make_created(["waving", "jumping"])


@pytest.fixture
def predict() -> Callable[..., Prediction]:
    """Return a function that makes a prediction from seq, timestamp_ms and probabilities."""
    return make_prediction
