"""Stream frames to a server and read its answers. Knows no video and no terminal."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Final, TypeVar

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from ovoad_client.connection import explain_close, open_connection
from ovoad_client.counts import Counts
from ovoad_client.errors import BrokenError, ClientError, FrameError, RefusedError, SilenceError
from ovoad_client.opening import Tap, build_session_create, build_vocabulary, open_session
from ovoad_client.protocol import (
    Error,
    EventSettings,
    FrameDropped,
    Ping,
    Policy,
    Pong,
    Prediction,
    ProtocolError,
    ScorerName,
    ServerMessage,
    SessionClose,
    SessionClosed,
    SessionCreated,
    SessionReset,
    SessionWasReset,
    VocabularyUpdate,
    VocabularyUpdated,
    pack_frame,
    parse_server_message,
)

MAX_UNREAD_MESSAGES: Final = 256
MAX_UNANSWERED_FRAMES: Final = 1024  # realtime; lossless keeps to the server's max_inflight
LATENCIES_KEPT: Final = 4096
_LAST_CLOSE_S: Final = 2.0

Reply = TypeVar("Reply", VocabularyUpdated, SessionWasReset, Pong)


@contextlib.asynccontextmanager
async def connect(
    url: str,
    labels: Sequence[str],
    *,
    templates: Sequence[str] | None = None,
    background: Sequence[str] | None = None,
    policy: Policy = "realtime",
    scorer: ScorerName | None = None,
    top_k: int | None = None,
    events: EventSettings | None = None,
    api_key: str | None = None,
    open_timeout_s: float = 10.0,
    timeout_s: float = 30.0,
    tap: Tap | None = None,
) -> AsyncIterator["Stream"]:
    """Open a session and yield its Stream; leaving the block closes the session.

    url: ws://host:port/v1/stream, http://host:port or host:port. timeout_s bounds every wait for
    an answer that is due. tap is called with each server message as it came, the first one being
    session.created.

    Raises UsageError, UnreachableError, UnauthorisedError, RefusedError, BrokenError, SilenceError;
    on leaving, the session's failure where nothing inside the block has met it.
    """
    vocabulary = build_vocabulary(labels, templates, background)
    create = build_session_create(vocabulary, policy, scorer, top_k, events)
    socket = await open_connection(url, api_key=api_key, timeout_s=open_timeout_s)
    try:
        created = await open_session(socket, create, timeout_s, tap, key_given=bool(api_key))
        stream = Stream(socket, created, timeout_s=timeout_s, tap=tap, key_given=bool(api_key))
        reader = asyncio.create_task(stream.read_until_end(), name="ovoad stream reader")
        try:
            yield stream
            if not stream.failure_told:
                await stream.close()
        finally:
            reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reader
    finally:
        await socket.close()


class Stream:
    """An open session: send frames, iterate over the server's messages, change the words.

    Iterating yields every server message after session.created, session.closed being the last.
    At most 256 messages wait unread; then the connection is read no further.
    """

    def __init__(
        self,
        socket: ClientConnection,
        created: SessionCreated,
        *,
        timeout_s: float,
        tap: Tap | None,
        key_given: bool,
    ) -> None:
        self.created = created
        self.counts = Counts()
        self.latencies_ms: deque[float] = deque(maxlen=LATENCIES_KEPT)  # sending to prediction
        self.latency_ms: float | None = None  # of the message read last, if it is a prediction
        self.closed: SessionClosed | None = None
        self._socket = socket
        self._timeout_s = timeout_s
        self._tap = tap
        self._key_given = key_given
        self._next_seq = created.next_seq or 0
        self._last_timestamp_ms: int | None = None
        self._unanswered: dict[int, float] = {}  # seq -> time.monotonic() at sending
        self._unread: deque[tuple[ServerMessage, float | None]] = deque()  # with latency
        self._changed = asyncio.Condition()
        self._updates: deque[asyncio.Future[VocabularyUpdated]] = deque()
        self._resets: deque[asyncio.Future[SessionWasReset]] = deque()
        self._pings: deque[asyncio.Future[Pong]] = deque()
        self._fatal: Error | None = None
        self._closing = False
        self._failure: ClientError | None = None
        self.ended = False
        self.failure_told = False  # somebody was told why the session failed

    # ---- frames and messages -----------------------------------------------------------------

    @property
    def unanswered(self) -> int:
        """Frames sent that have no answer yet."""
        return len(self._unanswered)

    async def send(self, image: bytes, *, timestamp_ms: int) -> int:
        """Send one JPEG, PNG or WebP image and return its seq.

        timestamp_ms must be after the last frame's. Waits for room where the server has as many
        unanswered frames as it grants. Raises FrameError, SilenceError, or why the session ended.
        """
        self._check_frame(image, timestamp_ms)
        lossless = self.created.policy == "lossless"
        most = self.created.limits.max_inflight if lossless else MAX_UNANSWERED_FRAMES
        await self.wait_for_answers(below=max(1, most))
        self._check_frame(image, timestamp_ms)  # another sender may have been faster
        seq = self._next_seq
        self._next_seq += 1
        self._last_timestamp_ms = timestamp_ms
        self._unanswered[seq] = time.monotonic()
        self.counts.sent += 1
        await self._send(pack_frame(seq, timestamp_ms, image))
        return seq

    async def wait_for_answers(self, *, below: int) -> None:
        """Wait until fewer than `below` frames are unanswered."""
        async with self._in_time(f"an answer to {len(self._unanswered)} frames"), self._changed:
            await self._changed.wait_for(lambda: self.ended or len(self._unanswered) < below)
        self._raise_if_ended()

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> ServerMessage:
        async with self._changed:
            await self._changed.wait_for(lambda: self.ended or bool(self._unread))
            if self._unread:
                message, self.latency_ms = self._unread.popleft()
                self._changed.notify_all()
                return message
        self._raise_failure()
        raise StopAsyncIteration

    # ---- control -----------------------------------------------------------------------------

    async def update_vocabulary(
        self,
        labels: Sequence[str],
        *,
        templates: Sequence[str] | None = None,
        background: Sequence[str] | None = None,
    ) -> VocabularyUpdated:
        """Replace the words for all frames sent after this; a refusal leaves the old ones."""
        vocabulary = build_vocabulary(labels, templates, background)
        return await self._ask(VocabularyUpdate(vocabulary=vocabulary).to_json(), self._updates)

    async def reset(self) -> SessionWasReset:
        """Make the server forget all past frames."""
        return await self._ask(SessionReset().to_json(), self._resets)

    async def ping(self) -> float:
        """Return the round trip to the server and back in milliseconds."""
        start = time.monotonic()
        await self._ask(Ping().to_json(), self._pings)
        return (time.monotonic() - start) * 1000

    async def close(self) -> SessionClosed:
        """Have all frames answered, end the session, and return the server's own counts.

        Messages that came meanwhile can still be read afterwards.
        """
        if not self.ended and not self._closing:
            self._closing = True
            async with self._changed:
                self._changed.notify_all()  # the bound on unread messages is lifted now
            with contextlib.suppress(ClientError):  # the reader knows better why it ended
                await self._send(SessionClose().to_json())
        async with self._changed:
            await self._changed.wait_for(lambda: self.ended)
        self._raise_failure()
        assert self.closed is not None, "a session ends with session.closed or a failure"
        return self.closed

    # ---- the reader --------------------------------------------------------------------------

    async def read_until_end(self) -> None:
        """Receive messages until the connection ends; `connect` runs this as the one reader."""
        try:
            while True:
                self._accept(await self._receive())
                async with self._changed:
                    self._changed.notify_all()
                    await self._changed.wait_for(self._has_room)
        except ConnectionClosed as error:
            self._failure = self._explain(error)
        except ProtocolError as error:
            self._failure = BrokenError(f"found a server message out of contract: {error}")
        except ClientError as error:
            self._failure = error
        finally:
            self.ended = True
            left = self._failure or BrokenError("the session ended before the reply came")
            _give_up(self._updates, left)
            _give_up(self._resets, left)
            _give_up(self._pings, left)
            async with self._changed:
                self._changed.notify_all()

    async def _receive(self) -> str:
        """Return the next text message; raises SilenceError where one is due and none comes."""
        while True:
            limit_s = _LAST_CLOSE_S if self.closed is not None else self._timeout_s
            try:
                async with asyncio.timeout(limit_s):
                    return await self._socket.recv(decode=True)
            except TimeoutError:
                if self.closed is not None:
                    await self._socket.close()
                elif self._unanswered or self._closing:
                    what = "session.closed" if self._closing else f"frame {min(self._unanswered)}"
                    raise self._silence(f"an answer to {what}") from None

    def _accept(self, text: str) -> None:
        if self._tap is not None:
            self._tap(text)
        message = parse_server_message(text)
        latency_ms: float | None = None
        match message:
            case Prediction():
                latency_ms = self._waited_ms(message.seq)
                if self._answered(message.seq):
                    self.counts.predicted += 1
            case FrameDropped():
                if self._answered(message.seq):
                    self.counts.dropped[message.reason] += 1
            case Error():
                self._accept_error(message)
            case VocabularyUpdated():
                _resolve(self._updates, message)
            case SessionWasReset():
                _resolve(self._resets, message)
            case Pong():
                _resolve(self._pings, message)
            case SessionClosed():
                self.closed = message
        if latency_ms is not None:
            self.latencies_ms.append(latency_ms)
        self._unread.append((message, latency_ms))

    def _waited_ms(self, seq: int) -> float | None:
        sent_s = self._unanswered.get(seq)
        return None if sent_s is None else (time.monotonic() - sent_s) * 1000

    def _accept_error(self, error: Error) -> None:
        if error.fatal:
            self._fatal = error
        if error.seq is not None:
            if self._answered(error.seq):
                self.counts.errors += 1
        elif self._updates and not error.fatal:
            waiting = self._updates.popleft()
            if not waiting.done():
                waiting.set_exception(RefusedError(error.code, error.message))

    def _answered(self, seq: int) -> bool:
        """Take a frame off the waiting list; False where it was not on it."""
        if self._unanswered.pop(seq, None) is None:
            self.counts.unexpected += 1
            return False
        return True

    def _explain(self, error: ConnectionClosed) -> ClientError | None:
        """Say why the connection ended; None after an orderly session."""
        if self._fatal is not None:
            return RefusedError(self._fatal.code, self._fatal.message)
        if self.closed is not None:
            return None
        return explain_close(
            error,
            self._socket,
            key_given=self._key_given,
            detail=f"; frames with no answer: {len(self._unanswered)}",
        )

    # ---- small helpers -----------------------------------------------------------------------

    def _has_room(self) -> bool:
        return self._closing or len(self._unread) < MAX_UNREAD_MESSAGES

    def _check_frame(self, image: bytes, timestamp_ms: int) -> None:
        self._raise_if_ended()
        most = self.created.limits.max_frame_bytes
        if len(image) > most:
            raise FrameError(f"frame has {len(image)} bytes, the server takes at most {most}")
        last = self._last_timestamp_ms
        if last is not None and timestamp_ms <= last:
            raise FrameError(f"frame has timestamp_ms {timestamp_ms}, expected more than {last}")

    def _raise_failure(self) -> None:
        if self._failure is not None:
            self.failure_told = True
            raise self._failure

    def _raise_if_ended(self) -> None:
        self._raise_failure()
        if self.ended or self._closing:
            reason = self.closed.reason if self.closed is not None else "closing"
            raise BrokenError(f"the session has ended ({reason}), expected an open one")

    async def _send(self, data: str | bytes) -> None:
        try:
            async with self._in_time("room to send"):
                await self._socket.send(data)
        except ConnectionClosed:
            async with self._changed:  # the reader sees the same end, and says why
                await self._changed.wait_for(lambda: self.ended)
            self._raise_if_ended()

    async def _ask(self, text: str, waiting: "deque[asyncio.Future[Reply]]") -> Reply:
        """Send a request and wait for its reply; requests of one kind are answered in turn."""
        self._raise_if_ended()
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        waiting.append(reply)
        await self._send(text)
        async with self._in_time("a reply"):
            return await reply

    @contextlib.asynccontextmanager
    async def _in_time(self, what: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except TimeoutError:
            raise self._silence(what) from None

    def _silence(self, what: str) -> SilenceError:
        text = f"waited {self._timeout_s:g} s for {what}"
        if not self._has_room():
            text += (
                f"; {len(self._unread)} messages wait unread, "
                "expected them to be read with `async for message in stream`"
            )
        return SilenceError(text)


def _resolve(waiting: "deque[asyncio.Future[Reply]]", message: Reply) -> None:
    if waiting:
        reply = waiting.popleft()
        if not reply.done():
            reply.set_result(message)


def _give_up(waiting: "deque[asyncio.Future[Reply]]", failure: ClientError) -> None:
    for reply in waiting:
        if not reply.done():
            reply.set_exception(failure)
