"""The client for programs without an event loop: the same streams, each call blocking.

A thread runs the asynchronous client; calls may come from several threads, e.g. one that sends and
one that reads.
"""

import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from typing import Final, cast

from ovoad_client.answering import TimedFrame
from ovoad_client.answering import answers as async_answers
from ovoad_client.background import BackgroundLoop
from ovoad_client.client import connect as async_connect
from ovoad_client.counts import Counts
from ovoad_client.notices import StreamMessage
from ovoad_client.opening import Tap
from ovoad_client.protocol import (
    EventSettings,
    Policy,
    ScorerName,
    SessionClosed,
    SessionCreated,
    SessionWasReset,
    VocabularyUpdated,
)
from ovoad_client.reconnecting import Reconnect
from ovoad_client.stream import Stream

__all__ = ["Reconnect", "SyncStream", "connect"]

_RECONNECT: Final = Reconnect()


class SyncStream:
    """An open session: send frames, iterate over the server's messages, change the words.

    Each method does what its namesake of `stream.Stream` does, raises the same errors, and returns
    when it is done. Breaks are mended meanwhile. At most 256 messages wait unread; then the
    connection is read no further, and send() ends with SilenceError rather than wait for ever.
    """

    def __init__(self, loop: BackgroundLoop, stream: Stream) -> None:
        self._loop = loop
        self._stream = stream

    @property
    def created(self) -> SessionCreated:
        """What the server granted, at the newest connection."""
        return self._stream.created

    @property
    def counts(self) -> Counts:
        """Frames sent and what became of them."""
        return self._stream.counts

    @property
    def unanswered(self) -> int:
        """Frames sent that have no answer yet."""
        return self._stream.unanswered

    @property
    def connected(self) -> bool:
        """Whether there is a connection now; without one, send() waits."""
        return self._stream.connected

    @property
    def ended(self) -> bool:
        """Whether the session has ended."""
        return self._stream.ended

    @property
    def closed(self) -> SessionClosed | None:
        """The server's last message, once it has come."""
        return self._stream.closed

    @property
    def latency_ms(self) -> float | None:
        """From sending to prediction, of the message read last; None where it is none."""
        return self._stream.latency_ms

    @property
    def latencies_ms(self) -> deque[float]:
        """The newest latencies, from sending to prediction."""
        return self._stream.latencies_ms

    def send(self, image: bytes, *, timestamp_ms: int) -> int:
        """Send one JPEG, PNG or WebP image and return its seq."""
        return self._loop.run(self._stream.send(image, timestamp_ms=timestamp_ms))

    def wait_for_answers(self, *, below: int) -> None:
        """Wait until fewer than `below` frames are unanswered."""
        self._loop.run(self._stream.wait_for_answers(below=below))

    def answers(self, frames: Iterable[TimedFrame]) -> Iterator[StreamMessage]:
        """Send each frame and yield every message until the last is answered; see answering.py."""
        messages = cast("AsyncGenerator[StreamMessage, None]", async_answers(self._stream, frames))
        try:
            while (message := self._loop.run(_next(messages))) is not None:
                yield message
        finally:
            self._loop.run(messages.aclose())

    def __iter__(self) -> "SyncStream":
        return self

    def __next__(self) -> StreamMessage:
        message = self._loop.run(_next(self._stream))
        if message is None:
            raise StopIteration
        return message

    def update_vocabulary(
        self,
        labels: Sequence[str],
        *,
        templates: Sequence[str] | None = None,
        background: Sequence[str] | None = None,
    ) -> VocabularyUpdated:
        """Replace the words for all frames sent after this; a refusal leaves the old ones."""
        return self._loop.run(
            self._stream.update_vocabulary(labels, templates=templates, background=background)
        )

    def reset(self) -> SessionWasReset:
        """Make the server forget all past frames."""
        return self._loop.run(self._stream.reset())

    def ping(self) -> float:
        """Return the round trip to the server and back in milliseconds."""
        return self._loop.run(self._stream.ping())

    def close(self) -> SessionClosed:
        """Have all frames answered, end the session, and return the server's own counts."""
        return self._loop.run(self._stream.close())


@contextlib.contextmanager
def connect(
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
    reconnect: Reconnect | None = _RECONNECT,
) -> Iterator[SyncStream]:
    """Open a session and yield its stream; leaving the block closes the session.

    Takes and raises what `client.connect` does. Leaving by an exception, Ctrl-C among them, does
    not wait for answers. tap is called in the background thread and must not call the stream.
    """
    opening = async_connect(
        url,
        labels,
        templates=templates,
        background=background,
        policy=policy,
        scorer=scorer,
        top_k=top_k,
        events=events,
        api_key=api_key,
        open_timeout_s=open_timeout_s,
        timeout_s=timeout_s,
        tap=tap,
        reconnect=reconnect,
    )
    with BackgroundLoop() as loop:
        stream = loop.run(_enter(opening))
        try:
            yield SyncStream(loop, stream)
        except BaseException:
            loop.run(_abandon(opening))
            raise
        loop.run(_leave(opening))


async def _enter(opening: contextlib.AbstractAsyncContextManager[Stream]) -> Stream:
    return await opening.__aenter__()


async def _leave(opening: contextlib.AbstractAsyncContextManager[Stream]) -> None:
    await opening.__aexit__(None, None, None)


async def _abandon(opening: contextlib.AbstractAsyncContextManager[Stream]) -> None:
    """Leave without waiting for answers; the caller's exception stays in the caller's thread."""
    left = _LeftError()
    with contextlib.suppress(_LeftError):
        await opening.__aexit__(_LeftError, left, None)


class _LeftError(Exception):
    """The block was left by an exception."""


async def _next(messages: "Stream | AsyncGenerator[StreamMessage, None]") -> StreamMessage | None:
    return await anext(messages, None)
