"""A server whose every connection is played by a function of the test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus

from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response

from ovoad_client.client import Stream
from ovoad_client.errors import ClientError
from ovoad_client.notices import FramesLost, StreamMessage
from ovoad_client.protocol import (
    DroppedCounts,
    Error,
    ErrorCode,
    FrameDropped,
    FrameMessage,
    Limits,
    Message,
    ModelInfo,
    Ping,
    Prediction,
    SessionClose,
    SessionClosed,
    SessionCreate,
    SessionCreated,
    SessionReset,
    Timing,
    VocabularyUpdate,
    WindowShape,
    WindowState,
    parse_client_message,
    unpack_frame,
)
from ovoad_client.reconnecting import Reconnect

AT_ONCE = Reconnect(first_s=0.0)
LABELS = ["waving", "jumping"]
ClientText = SessionCreate | FrameMessage | VocabularyUpdate | SessionReset | SessionClose | Ping

LIMITS = Limits(
    max_frame_bytes=1000,
    max_pixels=1000,
    max_labels=10,
    max_inflight=8,
    max_fps=60.0,
    idle_timeout_ms=60_000,
    max_session_ms=3_600_000,
)


def prediction(seq: int, *, version: int = 1) -> Prediction:
    """Return a plausible prediction of two labels; frame seq is at 10 x seq ms."""
    return Prediction(
        seq=seq,
        timestamp_ms=10 * seq,
        vocabulary_version=version,
        probabilities=[0.5, 0.25],
        background=0.25,
        similarities=[0.2, 0.1],
        window=WindowState(frames=3, span_ms=500, gaps=0, warming_up=False),
        timing_ms=Timing(queue=0.1, decode=1.0, encode=9.0, score=0.1, total=10.2),
        backlog=0,
    )


def session_closed(reason: str, *, received: int, predicted: int) -> SessionClosed:
    """Return a session.closed with no drops and no errors."""
    dropped = DroppedCounts()
    return SessionClosed(
        reason=reason, received=received, predicted=predicted, dropped=dropped, errors=0
    )


@dataclass
class Peer:
    """The server's end of one connection."""

    socket: ServerConnection
    create: SessionCreate

    async def open(
        self, *, next_seq: int | None = None, token: str = "token 1", version: int = 1
    ) -> None:
        """Answer session.created; with next_seq the session is resumed."""
        created = SessionCreated(
            session_id="s1",
            model=ModelInfo(encoder="fake", scorer="average", fingerprint="f00d"),
            labels=self.create.vocabulary.labels,
            vocabulary_version=version,
            policy=self.create.policy,
            limits=LIMITS,
            window=WindowShape(fps=4.0, past=24, neighbours=8),
            resume_token=token,
            resumed=next_seq is not None,
            next_seq=next_seq,
        )
        await self.say(created)

    async def say(self, *messages: Message) -> None:
        """Send messages."""
        for message in messages:
            await self.socket.send(message.to_json())

    async def hear(self) -> ClientText | int:
        """Return the next message, a binary frame as its seq."""
        data = await self.socket.recv()
        if isinstance(data, bytes):
            frame = unpack_frame(data)
            if frame.image.startswith(b"image"):  # made by `send` below
                expected = (10 * frame.seq, b"image %d" % frame.seq)
                assert (frame.timestamp_ms, frame.image) == expected
            return frame.seq
        message: ClientText = parse_client_message(data)
        return message

    async def expect_frames(self, *seqs: int) -> None:
        """Fail unless just these frames come next."""
        assert [await self.hear() for _ in seqs] == list(seqs)

    async def predict(self, *seqs: int) -> None:
        """Answer frames."""
        await self.say(*(prediction(seq) for seq in seqs))

    async def cut(self) -> None:
        """Break the connection without a word."""
        self.socket.transport.abort()
        await self.socket.wait_closed()

    async def refuse(
        self, code: ErrorCode, close_code: int, *, retry_after_ms: int | None = None
    ) -> None:
        """Send a fatal error and close."""
        text = f"the script says {code}"
        error = Error(
            code=code, message=text, fatal=True, transient=True, retry_after_ms=retry_after_ms
        )
        await self.say(error)
        await self.socket.close(close_code, code)

    async def end(self, *, received: int, predicted: int) -> None:
        """Wait for session.close and end the session in order."""
        assert isinstance(await self.hear(), SessionClose)
        await self.say(session_closed("closed by client", received=received, predicted=predicted))
        await self.socket.close(1000)


Script = Callable[[Peer], Awaitable[None]] | HTTPStatus  # a status: the handshake is refused


@dataclass
class ScriptedServer:
    """Plays one script a connection, in turn; keeps what each was asked for."""

    scripts: list[Script]
    url: str = ""
    creates: list[SessionCreate] = field(default_factory=list)
    played: int = 0
    problems: list[BaseException] = field(default_factory=list)

    async def handle(self, socket: ServerConnection) -> None:
        """Play the next script."""
        script = self.scripts[self.played]
        self.played += 1
        assert not isinstance(script, HTTPStatus)
        try:
            create = parse_client_message(await socket.recv())
            assert isinstance(create, SessionCreate)
            self.creates.append(create)
            await script(Peer(socket, create))
        except asyncio.CancelledError:
            raise
        except BaseException as problem:
            self.problems.append(problem)

    def look(self, socket: ServerConnection, request: Request) -> Response | None:
        """Refuse the handshake where the script says so, or has come to its end."""
        if self.played >= len(self.scripts):
            self.problems.append(AssertionError("found one more connection than was scripted"))
            return socket.respond(HTTPStatus.FORBIDDEN, "")
        script = self.scripts[self.played]
        if isinstance(script, HTTPStatus):
            self.played += 1
            return socket.respond(script, "")
        return None


@contextlib.asynccontextmanager
async def playing(*scripts: Script) -> AsyncIterator[ScriptedServer]:
    """Run a server; on leaving, fail unless every script was played to its end."""
    server = ScriptedServer(list(scripts))
    async with (
        asyncio.timeout(10),
        serve(server.handle, "127.0.0.1", 0, process_request=server.look) as listener,
    ):
        port = next(iter(listener.sockets)).getsockname()[1]
        server.url = f"ws://127.0.0.1:{port}/v1/stream"
        try:
            yield server
        finally:
            if server.problems:
                raise server.problems[0]
    assert server.played == len(scripts)


# ---- the client's end --------------------------------------------------------------------------


async def send(stream: Stream, *seqs: int) -> None:
    """Send the frames that Peer.hear expects."""
    for seq in seqs:
        assert await stream.send(b"image %d" % seq, timestamp_ms=10 * seq) == seq


async def read_all(stream: Stream) -> tuple[list[StreamMessage], ClientError | None]:
    """Return all messages and why the stream failed."""
    messages: list[StreamMessage] = []
    try:
        async for message in stream:
            messages.append(message)
    except ClientError as error:
        return messages, error
    return messages, None


def kinds(messages: list[StreamMessage]) -> list[str]:
    """Return the type of each message."""
    return [message.type for message in messages]


def ends(messages: list[StreamMessage]) -> list[int]:
    """Return the seqs of all frames that ended, in the order in which that was told."""
    seqs: list[int] = []
    for message in messages:
        if isinstance(message, Prediction | FrameDropped):
            seqs.append(message.seq)
        elif isinstance(message, FramesLost):
            seqs.extend(message.seqs)
    return seqs
