"""Real clients of every kind, so that every series of the server moves. Knows no Prometheus."""

import asyncio
import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from ovoad_client.bench.answers import Tally
from ovoad_client.bench.samples import Recorder
from ovoad_client.bench.session import LoadSession, SessionPlan
from ovoad_client.clip_sending import score_clip
from ovoad_client.connection import open_connection
from ovoad_client.demo import LABELS
from ovoad_client.errors import BrokenError, ClientError, RefusedError, UnauthorisedError
from ovoad_client.opening import build_session_create, build_vocabulary, open_session
from ovoad_client.protocol import (
    CLOSE_CAPACITY,
    EventSettings,
    Policy,
    Resume,
    SessionCreate,
    SessionCreated,
    pack_frame,
)

CAMERA_FPS: Final = 4.0
HASTY_FPS: Final = 60.0  # of a realtime session: two of them want more than two cores can score
EVERY_BAD: Final = 10  # of a damaged camera one picture in so many is none
TIMEOUT_S: Final = 60.0
EVENTFUL: Final = EventSettings(enter=1e-6, exit=1e-6, min_duration_ms=0)
FRAMES_BEFORE_BREAK: Final = 4


@dataclass
class Clients:
    """What all clients of a run share, and what became of them."""

    url: str
    key: str
    jpegs: Sequence[bytes]
    video: str
    tally: Tally = field(default_factory=Tally)
    refused: Counter[str] = field(default_factory=Counter)
    clips: Counter[str] = field(default_factory=Counter)
    resumed: int = 0

    async def keep_camera(
        self,
        stop: asyncio.Event,
        *,
        policy: Policy = "realtime",
        fps: float = CAMERA_FPS,
        jpegs: Sequence[bytes] | None = None,
    ) -> None:
        """Hold a session until `stop`; where it is refused, come again a second later."""
        plan = SessionPlan(self.url, LABELS, policy, fps, None, api_key=self.key)
        while not stop.is_set():
            try:
                session = await LoadSession.open(plan, Recorder())
            except (RefusedError, BrokenError) as refusal:
                self.refused[_code(refusal)] += 1
                await rest(1.0, stop)
                continue
            await session.run(jpegs or self.jpegs, stop)
            session.add_to(self.tally)

    async def keep_damaged_camera(self, stop: asyncio.Event) -> None:
        """Hold a session that sends a picture that is none now and then."""
        jpegs = [
            b"no picture at all" if number % EVERY_BAD == 0 else jpeg
            for number, jpeg in enumerate(self.jpegs, 1)
        ]
        await self.keep_camera(stop, jpegs=jpegs)

    async def send_clips(self, stop: asyncio.Event, *, every_s: float) -> None:
        """Send a clip, and the next one some time after its answer."""
        while not stop.is_set():
            try:
                kinds = await asyncio.to_thread(self._send_clip)
                self.clips["answered" if kinds[-1] == "clip.closed" else "cut short"] += 1
            except ClientError as error:
                self.clips[getattr(error, "code", type(error).__name__)] += 1
            await rest(every_s, stop)

    def _send_clip(self) -> list[str]:
        answer = score_clip(self.video, LABELS, url=self.url, api_key=self.key)
        return [message["type"] for message in answer]

    async def lose_connections(self, stop: asyncio.Event, *, every_s: float) -> None:
        """Break a connection without a word, come back to its session, and break it for good."""
        words = build_vocabulary(LABELS, None, None)
        while not stop.is_set():
            create = build_session_create(words, "lossless", None, None, EVENTFUL)
            try:
                created = await self._break_off(create)
                await rest(2.0, stop)
                resume = Resume(token=created.resume_token, last_seq=None)
                created = await self._break_off(create.model_copy(update={"resume": resume}))
                self.resumed += created.resumed
            except (RefusedError, BrokenError) as refusal:
                self.refused[_code(refusal)] += 1
            await rest(every_s, stop)

    async def _break_off(self, create: SessionCreate) -> SessionCreated:
        socket = await open_connection(self.url, api_key=self.key, timeout_s=TIMEOUT_S)
        try:
            created = await open_session(socket, create, TIMEOUT_S, None, key_given=True)
            first = created.next_seq or 0
            for seq in range(first, first + FRAMES_BEFORE_BREAK):
                await socket.send(pack_frame(seq, seq * 250, self.jpegs[seq % len(self.jpegs)]))
            await asyncio.sleep(1.0)  # time for their answers, and for the events they bring
        finally:
            socket.transport.abort()
        return created

    async def try_wrong_keys(self, stop: asyncio.Event, *, every_s: float) -> None:
        """Knock with a key that is none."""
        plan = SessionPlan(self.url, LABELS, "realtime", CAMERA_FPS, None, api_key="not-the-key")
        while not stop.is_set():
            try:
                await LoadSession.open(plan, Recorder())
            except (RefusedError, UnauthorisedError, BrokenError):
                self.refused["unauthorised"] += 1
            await rest(every_s, stop)


def _code(refusal: RefusedError | BrokenError) -> str:
    """Return why there is no session: a connection that is closed at once has a code alone."""
    if isinstance(refusal, RefusedError):
        return refusal.code
    if refusal.close_code == CLOSE_CAPACITY:
        return "capacity"
    raise refusal


async def rest(seconds: float, stop: asyncio.Event) -> None:
    """Wait, or less where `stop` comes first."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()


@contextlib.contextmanager
def webhook_receiver(*, away_s: float) -> Iterator[str]:
    """Listen for events on loopback; for the first seconds answer that there is no room."""
    start_s = time.monotonic()

    class Handler(BaseHTTPRequestHandler):
        timeout = TIMEOUT_S

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(503 if time.monotonic() - start_s < away_s else 204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.1,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/events"
        finally:
            server.shutdown()
            thread.join()
