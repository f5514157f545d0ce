"""An open session, over every connection that carries it. Knows no video and no terminal."""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NoReturn

from websockets.exceptions import ConnectionClosed

from ovoad_client.counts import Counts
from ovoad_client.errors import BrokenError, ClientError, FrameError, SilenceError
from ovoad_client.ledger import Again, Ledger, Reply, Request
from ovoad_client.link import Link, Target, open_link
from ovoad_client.notices import FramesLost, Reconnected, Reconnecting, StreamMessage
from ovoad_client.opening import build_vocabulary, contract_error
from ovoad_client.protocol import (
    CLOSE_RESTART,
    Error,
    ProtocolError,
    SessionClose,
    SessionClosed,
    SessionCreate,
    SessionCreated,
    SessionWasReset,
    VocabularyUpdated,
    parse_server_message,
)
from ovoad_client.reconnecting import Outage, Reconnect

MAX_UNREAD_MESSAGES: Final = 256
MAX_UNANSWERED_FRAMES: Final = 1024  # realtime; lossless keeps to the server's max_inflight
LATENCIES_KEPT: Final = 4096


class Stream:
    """An open session: send frames, iterate over the server's messages, change the words.

    Iterating yields every server message after the first session.created, session.closed being the
    last. At most 256 messages wait unread; then the connection is read no further.

    After a break the stream connects again by itself, and the iterator tells: Reconnecting for each
    attempt, then the new session.created and Reconnected. Frames that the server had not got are
    sent again (lossless) or named by FramesLost (realtime); no answer and no event is told twice.
    So each frame ends in exactly one of: prediction, frame.dropped, error, FramesLost. Requests
    that a break interrupts are repeated. A fresh session begins with the newest words that the
    server took. The session.closed of a server's restart is not told: the stream goes on.
    """

    def __init__(
        self, link: Link, target: Target, create: SessionCreate, reconnect: Reconnect | None
    ) -> None:
        self.latencies_ms: deque[float] = deque(maxlen=LATENCIES_KEPT)  # sending to prediction
        self.latency_ms: float | None = None  # of the message read last, if it is a prediction
        self.closed: SessionClosed | None = None
        self.ended = False
        self.failure_told = False  # somebody was told why the session failed
        self._target = target
        self._ledger = Ledger(create, link.created)
        self._link: Link | None = link  # None while there is no connection, or it is made ready
        self._link_since_s = time.monotonic()
        self._reconnect = reconnect
        self._outage = Outage(reconnect or Reconnect())
        self._last_timestamp_ms: int | None = None
        self._unread: deque[tuple[StreamMessage, float | None]] = deque()  # with latency
        self._changed = asyncio.Condition()
        self._closing = asyncio.Event()
        self._failure: ClientError | None = None

    @property
    def created(self) -> SessionCreated:
        """What the server granted, at the newest connection."""
        return self._ledger.created

    @property
    def counts(self) -> Counts:
        """Frames sent and what became of them."""
        return self._ledger.counts

    @property
    def unanswered(self) -> int:
        """Frames sent that have no answer yet."""
        return len(self._ledger.frames)

    @property
    def connected(self) -> bool:
        """Whether there is a connection now; without one, send() waits."""
        return self._link is not None

    # ---- frames and messages -----------------------------------------------------------------

    async def send(self, image: bytes, *, timestamp_ms: int) -> int:
        """Send one JPEG, PNG or WebP image and return its seq.

        timestamp_ms must be after the last frame's. Waits for a connection, and for room where the
        server has as many unanswered frames as it grants. Raises FrameError, SilenceError, or why
        the session ended.
        """
        self._check_frame(image, timestamp_ms)
        await self._wait(self._has_room_for_frame)
        self._check_frame(image, timestamp_ms)  # another sender may have been faster
        self._last_timestamp_ms = timestamp_ms
        seq, data = self._ledger.push_frame(image, timestamp_ms=timestamp_ms)
        await self._send(data)
        return seq

    async def wait_for_answers(self, *, below: int) -> None:
        """Wait until fewer than `below` frames are unanswered."""
        await self._wait(lambda: self.unanswered < below)

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> StreamMessage:
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
        await self._wait(lambda: self.connected)
        return await self._ask(self._ledger.push_update(vocabulary))

    async def reset(self) -> SessionWasReset:
        """Make the server forget all past frames."""
        await self._wait(lambda: self.connected)
        return await self._ask(self._ledger.push_reset())

    async def ping(self) -> float:
        """Return the round trip to the server and back in milliseconds."""
        await self._wait(lambda: self.connected)
        start = time.monotonic()
        await self._ask(self._ledger.push_ping())
        return (time.monotonic() - start) * 1000

    async def close(self) -> SessionClosed:
        """Have all frames answered, end the session, and return the server's own counts.

        Messages that came meanwhile can still be read afterwards. Without a connection it is tried
        at once, and given up after one attempt unless a lossless stream still waits for answers.
        """
        if not self.ended and not self._closing.is_set():
            self._closing.set()
            await self._notify()  # the bound on unread messages is lifted now
            if self._link is not None:
                with contextlib.suppress(ClientError):  # the reader knows better why it ended
                    await self._send(SessionClose().to_json())
        async with self._changed:
            await self._changed.wait_for(lambda: self.ended)
        self._raise_failure()
        assert self.closed is not None, "a session ends with session.closed or a failure"
        return self.closed

    # ---- carrying messages, connection after connection --------------------------------------

    async def carry_until_end(self, link: Link) -> None:
        """Receive until the session ends, reconnecting; `connect` runs this as its one task."""
        try:
            while (failure := await self._carry(link)) is not None:
                if self._has_worked(link, failure):
                    self._outage.end()
                link = await self._connect_again(failure)
        except ClientError as error:
            self._failure = error
        finally:
            left = self._failure or BrokenError("the session ended before the reply came")
            lost = self._ledger.give_up(left)
            if lost:
                self._unread.append((FramesLost(lost), None))
            if self.closed is not None:
                self._unread.append((self.closed, None))
            self.ended = True
            await self._notify()

    async def _carry(self, link: Link) -> ClientError | None:
        """Receive from one connection until it ends; returns why, None after an orderly end."""
        writing = None
        if link.created is not self.created:
            again = self._ledger.go_on(link.created)
            self._tell_reconnected(link.created, again)
            writing = asyncio.create_task(self._go_on(link, again), name="ovoad stream goes on")
        try:
            await self._read(link)
        except ConnectionClosed as error:
            return self._explain(link, error)
        except ProtocolError as error:
            return contract_error(error)
        except SilenceError as error:
            link.abort()
            return error
        finally:
            self._link = None
            if writing is not None:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)
            await link.socket.close()

    def _tell_reconnected(self, created: SessionCreated, again: Again) -> None:
        self._unread.append((created, None))
        self._unread.append((Reconnected(created.resumed, again.sent_again), None))
        if again.lost:
            self._unread.append((FramesLost(again.lost), None))

    async def _go_on(self, link: Link, again: Again) -> None:
        """Send again what the server has not got, then open the stream to its users."""
        with contextlib.suppress(ConnectionClosed):  # the reader sees the same end
            for message in again.messages:
                await link.socket.send(message)
            self._link, self._link_since_s = link, time.monotonic()
            await self._notify()
            if self._closing.is_set():
                await link.socket.send(SessionClose().to_json())

    async def _read(self, link: Link) -> NoReturn:
        """Take in messages until the connection ends; raises what ended it."""
        while True:
            text = await link.receive(self._target.timeout_s, self._what_is_due)
            self._accept(link, text)
            async with self._changed:
                self._changed.notify_all()
                await self._changed.wait_for(self._has_room)

    def _accept(self, link: Link, text: str) -> None:
        message = parse_server_message(text)
        latency_ms = self._ledger.waited_ms(message)
        owed = self._ledger.owed
        news = self._ledger.take(message)
        link.proved = link.proved or self._ledger.owed < owed
        if news and self._target.tap is not None:
            self._target.tap(text)
        if isinstance(message, Error) and message.fatal:
            link.fatal = message
        if isinstance(message, SessionClosed):
            link.closed = message  # told when it is known to be the last
        elif news:
            if latency_ms is not None:
                self.latencies_ms.append(latency_ms)
            self._unread.append((message, latency_ms))

    def _explain(self, link: Link, error: ConnectionClosed) -> ClientError | None:
        """Say why the connection ended; None after an orderly session."""
        restarts = error.rcvd is not None and error.rcvd.code == CLOSE_RESTART
        goes_on = restarts and self._reconnect is not None and self._is_wanted()
        if link.fatal is None and link.closed is not None and not goes_on:
            self.closed = link.closed
            return None
        return link.explain(error, detail=f"; frames with no answer: {self.unanswered}")

    async def _connect_again(self, failure: ClientError) -> Link:
        """Return a new connection; raises ClientError where there is none to be had."""
        while True:
            if self._reconnect is None:
                raise failure
            wait_s = self._outage.next_wait_s(failure)
            notice = Reconnecting(str(failure), self._outage.attempt, wait_s)
            self._unread.append((notice, None))
            await self._notify()
            await self._pause(wait_s)
            wanted = self._is_wanted()
            try:
                return await open_link(self._target, self._ledger.create_again())
            except ClientError as error:
                failure = error
            if not wanted:
                raise failure

    async def _pause(self, wait_s: float) -> None:
        """Wait; a call of close() ends the waiting."""
        if self._closing.is_set():
            await asyncio.sleep(wait_s)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._closing.wait()

    def _is_wanted(self) -> bool:
        """Tell whether a connection is worth more than one attempt: not only to close."""
        lossless = self.created.policy == "lossless"
        return not self._closing.is_set() or (lossless and self.unanswered > 0)

    def _has_worked(self, link: Link, failure: ClientError) -> bool:
        """Tell whether a connection was any good, so that its end begins a new outage."""
        if link.proved:
            return True
        lasted_s = time.monotonic() - link.opened_s
        return (
            self._reconnect is not None
            and not isinstance(failure, SilenceError)
            and (lasted_s > self._reconnect.longest_s)
        )

    def _what_is_due(self) -> str | None:
        """Name the answer that the server owes, for the error of one that stays silent."""
        if self.unanswered:
            return f"an answer to frame {min(self._ledger.frames)}"
        return "an answer to session.close" if self._closing.is_set() else None

    # ---- small helpers -----------------------------------------------------------------------

    def _has_room(self) -> bool:
        return self._closing.is_set() or len(self._unread) < MAX_UNREAD_MESSAGES

    def _has_room_for_frame(self) -> bool:
        lossless = self.created.policy == "lossless"
        most = self.created.limits.max_inflight if lossless else MAX_UNANSWERED_FRAMES
        return self.connected and self.unanswered < max(1, most)

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
        if self.ended or self._closing.is_set():
            reason = self.closed.reason if self.closed is not None else "closing"
            raise BrokenError(f"the session has ended ({reason}), expected an open one")

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _wait(self, done: Callable[[], bool]) -> None:
        """Wait until it is done. The server's silence is the reader's to notice, if it may read."""
        while not (self.ended or done()):
            try:
                async with asyncio.timeout(self._target.timeout_s), self._changed:
                    await self._changed.wait_for(lambda: self.ended or done())
            except TimeoutError:
                if not self._has_room():
                    raise self._silence(f"an answer to {self.unanswered} frames") from None
        self._raise_if_ended()

    async def _send(self, data: str | bytes) -> None:
        """Send; what a break swallows is in the ledger, to go out again or to be named lost."""
        link = self._link
        assert link is not None, "whoever sends has waited for a connection"
        try:
            async with asyncio.timeout(self._target.timeout_s):
                await link.socket.send(data)
        except TimeoutError:
            raise self._silence("room to send") from None
        except ConnectionClosed:
            await self._wait(lambda: self._link is not link)

    async def _ask(self, request: Request[Reply]) -> Reply:
        """Send a request and wait for its reply; time without a connection does not count."""
        timeout_s = self._target.timeout_s
        try:
            await self._send(request.message.to_json())
            while not request.reply.done():
                await asyncio.wait([request.reply], timeout=timeout_s)
                up_s = time.monotonic() - self._link_since_s
                if not request.reply.done() and self.connected and up_s >= timeout_s:
                    raise self._silence("a reply")
            self.failure_told |= self.ended and request.reply.exception() is self._failure
            return request.reply.result()
        finally:
            request.reply.cancel()

    def _silence(self, what: str) -> SilenceError:
        text = f"waited {self._target.timeout_s:g} s for {what}"
        if not self._has_room():
            text += (
                f"; {len(self._unread)} messages wait unread, "
                "expected them to be read with `async for message in stream`"
            )
        return SilenceError(text)
