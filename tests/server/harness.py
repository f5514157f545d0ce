"""Parts of the server's tests: a fake encoder, a real server on loopback, a client that checks.

Every wait is bounded by WAIT_S; nothing sleeps for a guessed time.
"""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import cv2
import numpy as np
import uvicorn
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from ovoad_client import protocol
from ovoad_model.arrays import Float32Array, Frame, unit
from ovoad_model.detector import Detector
from ovoad_server.app import create_app
from ovoad_server.engine.engine import Engine
from ovoad_server.engine.inference import Inference
from ovoad_server.engine.interface import (
    EncodedBatch,
    ScoredBatch,
    ScoreStep,
    Vocabulary,
    WindowView,
    WordsRequest,
)
from ovoad_server.health import Health
from ovoad_server.hub import Hub
from ovoad_server.listener import open_listener, uvicorn_config
from ovoad_server.metrics import Metrics
from ovoad_server.settings import Settings

WAIT_S = 10.0
EXPECTED_FIELDS = "expected only the fields of wire contract v1"
EXPECTED_TYPES = (
    "expected one of 'session.create', 'frame', 'vocabulary.update', 'session.reset', "
    "'session.close', 'ping'"
)
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}
NO_EVENTS = {"enter": 0.9999, "exit": 0.1, "min_duration_ms": 60_000}
M = TypeVar("M", bound=protocol.Message)
T = TypeVar("T")


class ColourEncoder:
    """Fake encoder: features are mean colours, sentences mean the colour that they name.

    A test clears `hold` to stop the worker inside a batch (`entered` tells that it is there) and
    `hold_text` to stop the embedding of words; `fail_on` makes one colour raise, `fail_on_text`
    one sentence; `constant` answers every frame alike.
    """

    name = "colours"
    fingerprint = "c0105"
    input_size = 8
    feature_width = 3
    embedding_width = 3
    temperature = 0.1
    languages = ("en",)
    templates = ("{}",)
    background = ("grey",)
    background_floor = float("-inf")
    lanes = 1

    def __init__(self) -> None:
        self.hold = threading.Event()
        self.hold.set()
        self.hold_text = threading.Event()
        self.hold_text.set()
        self.entered = threading.Event()
        self.entered_text = threading.Event()
        self.fail_on: str | None = None
        self.fail_on_text: str | None = None
        self.constant = False
        self.batches: list[list[str]] = []  # the colours of each batch

    def encode_frames(self, frames: Sequence[Frame]) -> Float32Array:
        self.entered.set()
        assert self.hold.wait(WAIT_S)
        means = np.stack([frame.reshape(-1, 3).mean(axis=0) for frame in frames])
        colours = [_nearest_colour(mean) for mean in means]
        self.batches.append(colours)
        if self.fail_on in colours:
            raise RuntimeError("this colour hurts")
        if self.constant:
            means = np.full_like(means, 100.0)
        return means.astype(np.float32)

    def project(self, features: Float32Array) -> Float32Array:
        return unit(features)

    def encode_text(self, texts: Sequence[str]) -> Float32Array:
        self.entered_text.set()
        assert self.hold_text.wait(WAIT_S)
        if self.fail_on_text in texts:
            raise RuntimeError("this word hurts")
        rows = [COLOURS.get(text.split()[-1], (100, 100, 100)) for text in texts]
        return unit(np.array(rows, np.float32))

    def warnings_for(self, text: str) -> str | None:
        return None if text.isascii() else f"label {text!r} is not English"


def _nearest_colour(mean: NDArray[np.float64]) -> str:
    return min(COLOURS, key=lambda name: float(np.abs(mean - COLOURS[name]).max()))


def picture(colour: str = "red", *, side: int = 16, suffix: str = ".png") -> bytes:
    """Return an image of one colour as file bytes."""
    pixels = np.full((side, side, 3), COLOURS[colour][::-1], np.uint8)
    encoded: NDArray[np.uint8] = cv2.imencode(suffix, pixels)[1]
    return encoded.tobytes()


def create(**fields: object) -> str:
    """Return a session.create as text, valid but for the fields given."""
    return json.dumps({"type": "session.create", "vocabulary": {"labels": ["red"]}, **fields})


def words(*labels: object, **fields: object) -> dict[str, object]:
    """Return a vocabulary as it goes over the wire, valid or not."""
    return {"labels": list(labels), **fields}


def error(code: str, message: str, *, fatal: bool = False, seq: int | None = None) -> Any:
    """Return the error that a client is expected to see."""
    return protocol.Error.model_validate(
        {"code": code, "message": message, "fatal": fatal, "transient": False, "seq": seq}
    )


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that no event tells of."""
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.002)


async def occurs(event: threading.Event) -> None:
    """Wait for an event of another thread, then clear it."""
    assert await asyncio.to_thread(event.wait, WAIT_S)
    event.clear()


class Client:
    """One WebSocket connection; every message from the server must parse."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def send(self, message: protocol.Message | Mapping[str, Any] | str | bytes) -> None:
        """Send a message as it is, a mapping as JSON."""
        if isinstance(message, protocol.Message):
            message = message.to_json()
        elif isinstance(message, Mapping):
            message = json.dumps(message)
        async with asyncio.timeout(WAIT_S):
            await self.socket.send(message)

    async def frame(
        self, seq: int, image: bytes | None = None, *, timestamp_ms: int | None = None
    ) -> None:
        """Send a binary frame, 250 ms after the one before unless told otherwise."""
        timestamp_ms = seq * 250 if timestamp_ms is None else timestamp_ms
        await self.send(protocol.pack_frame(seq, timestamp_ms, image or picture()))

    async def receive(self) -> protocol.ServerMessage:
        """Return the next message, parsed."""
        async with asyncio.timeout(WAIT_S):
            return protocol.parse_server_message(await self.socket.recv(decode=True))

    async def expect(self, kind: type[M]) -> M:
        """Return the next message, which is of this kind."""
        message = await self.receive()
        assert isinstance(message, kind), message
        return message

    async def create(
        self, labels: Sequence[str] = ("red", "blue"), **fields: object
    ) -> protocol.SessionCreated:
        """Open a session, lossless and without events unless told otherwise."""
        vocabulary = {"labels": list(labels)}
        fields = {"policy": "lossless", "vocabulary": vocabulary, "events": NO_EVENTS, **fields}
        await self.send({"type": "session.create", **fields})
        return await self.expect(protocol.SessionCreated)

    async def close(self) -> protocol.SessionClosed:
        """Close the session in order; nothing else is left to be read."""
        await self.send(protocol.SessionClose())
        closed = await self.expect(protocol.SessionClosed)
        assert await self.ended() == (protocol.CLOSE_NORMAL, "closed by client")
        return closed

    async def ended(self) -> tuple[int, str]:
        """Return code and reason of the server's close; nothing else is left to be read."""
        rest = await self.rest()
        assert rest == []
        close = self.socket.protocol.close_rcvd
        assert close is not None, "the connection broke without a close frame"
        return close.code, close.reason

    async def rest(self) -> list[protocol.ServerMessage]:
        """Return all messages up to the end of the connection."""
        messages = []
        try:
            while True:
                messages.append(await self.receive())
        except ConnectionClosed:
            return messages

    def break_off(self) -> None:
        """Cut the connection without a word."""
        self.socket.transport.abort()


async def is_still_served(client: Client, seq: int) -> None:
    """Send a good frame; it is predicted."""
    await client.frame(seq)
    assert (await client.expect(protocol.Prediction)).seq == seq


class PromptServer(uvicorn.Server):
    """Stops at once, where uvicorn looks ten times a second whether it should."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.stop = asyncio.Event()

    async def main_loop(self) -> None:
        await self.stop.wait()


@dataclass
class Server:
    """A real server on loopback."""

    address: str
    hub: Hub
    health: Health
    server: "PromptServer"

    @property
    def url(self) -> str:
        """Base of HTTP addresses."""
        return f"http://{self.address}"

    def metric(self, name: str, **labels: str) -> float:
        """Return a metric's value, 0 before its first use."""
        self.hub.metrics.refresh(self.hub.state())
        return self.hub.metrics.registry.get_sample_value(name, labels) or 0.0

    @contextlib.asynccontextmanager
    async def connect(self, **options: Any) -> AsyncIterator[Client]:
        """Open a connection without a session."""
        async with self.connect_as(self.address, **options) as client:
            yield client

    @contextlib.asynccontextmanager
    async def connect_as(self, name: str, **options: Any) -> AsyncIterator[Client]:
        """Open a connection to this server under another name, as a resolver may give it."""
        host, _, port = self.address.rpartition(":")
        address = f"ws://{name}/v1/stream"
        async with connect(
            address, host=host, port=int(port), max_size=None, max_queue=None, **options
        ) as socket:
            yield Client(socket)

    @contextlib.asynccontextmanager
    async def session(
        self, labels: Sequence[str] = ("red", "blue"), **fields: object
    ) -> AsyncIterator[Client]:
        """Open a session, lossless unless told otherwise."""
        async with self.connect() as client:
            await client.create(labels, **fields)
            yield client

    async def is_empty(self) -> None:
        """Wait until nothing of any session is left."""
        engine = self.hub.engine
        await until(lambda: self.hub.slots.used == 0 and not self.hub.sessions)
        await until(lambda: engine.sessions == 0 and engine.waiting == 0)
        await until(lambda: not self.server.server_state.connections)


class Serve(Protocol):
    """Start a server with these settings; yields it and stops it."""

    def __call__(self, **settings: object) -> "contextlib.AbstractAsyncContextManager[Server]": ...


class LocalWorker:
    """A worker without a process of its own, so that a test can hold and watch the model in it."""

    def __init__(self, detector: Detector, *, max_pixels: int = 16_777_216, lanes: int = 1) -> None:
        self.inference = Inference(detector, decode_threads=2, max_pixels=max_pixels)
        self.detector = detector
        self.heartbeat_age_s = 0.0
        self.ready = True
        self._inferring = ThreadPoolExecutor(lanes, "ovoad-infer")
        self._embedding = ThreadPoolExecutor(1, "ovoad-text")

    @property
    def text_counts(self) -> tuple[int, int]:
        return self.detector.text_counts

    async def encode(
        self, images: Sequence[bytes], steps: Sequence[ScoreStep | None] = ()
    ) -> EncodedBatch:
        return await self._in_turn(lambda: self.inference.encode(images, steps))

    async def score(
        self, views: Sequence[WindowView], vocabularies: Sequence[Vocabulary]
    ) -> ScoredBatch:
        return await self._in_turn(lambda: self.inference.score(views, vocabularies))

    async def embed(self, words: WordsRequest) -> Vocabulary:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._embedding, self.inference.embed, words)

    async def probe(self) -> Sequence[float]:
        try:
            return await self._in_turn(self.inference.probe)
        except Exception as error:
            raise RuntimeError(type(error).__name__) from error

    async def until_ready(self) -> None:
        return

    async def _in_turn(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._inferring, work)

    def close(self) -> None:
        self.inference.close()
        for pool in (self._inferring, self._embedding):
            pool.shutdown(wait=False, cancel_futures=True)


@contextlib.asynccontextmanager
async def serving(detector: Detector, **given: object) -> AsyncIterator[Server]:
    """Run a server on a free port of loopback, as __main__ does but for the worker's process.

    Sessions are not parked and nobody is refused by cost, unless a test asks for it.
    """
    settings = Settings(**{"port": 0, "resume_s": 0.0, "promised_fps": 0.0, **given})  # type: ignore[arg-type]
    hub = make_hub(detector, settings)
    assert isinstance(hub.engine.worker, LocalWorker)
    health = Health(hub.engine.worker.inference.probe())
    listener = open_listener(settings)
    server = PromptServer(uvicorn_config(create_app(hub, health), settings))
    running = asyncio.create_task(server.serve(sockets=[listener]))
    await until(lambda: server.started)
    try:
        yield Server(f"127.0.0.1:{listener.getsockname()[1]}", hub, health, server)
    finally:
        await hub.drain(serve_on_s=0.0, settle_s=WAIT_S)
        server.stop.set()
        await asyncio.wait_for(running, WAIT_S)
        hub.engine.worker.close()


def make_hub(detector: Detector, settings: Settings) -> Hub:
    """Join a detector and settings as __main__ does."""
    metrics = Metrics()
    facts = detector.facts
    engine = Engine(
        LocalWorker(detector, max_pixels=settings.max_pixels),
        open_window=detector.open_window,
        observe=metrics.observe_batch,
        max_batch=4,
        latency_budget_ms=1e9,
    )
    metrics.model.info({"encoder": facts.encoder, "fingerprint": facts.fingerprint})
    return Hub(settings, engine, facts, metrics)


@contextlib.asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[Engine]:
    """Let an engine score while the block runs."""
    task = asyncio.create_task(engine.run())
    try:
        yield engine
        assert not task.done(), f"the engine ended by itself: {task}"
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def now_s() -> float:
    """Return the clock that sessions go by."""
    return time.monotonic()
