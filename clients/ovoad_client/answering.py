"""Send the frames of a source and yield the server's messages. Knows no connection."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Protocol

from ovoad_client.errors import ClientError
from ovoad_client.notices import FramesLost, StreamMessage
from ovoad_client.protocol import Error, FrameDropped, Prediction
from ovoad_client.stream import Stream


class TimedFrame(Protocol):
    """A JPEG, PNG or WebP picture and its own time; `sources.SourceFrame` is one."""

    @property
    def timestamp_ms(self) -> int: ...
    @property
    def jpeg(self) -> bytes: ...


async def answers(stream: Stream, frames: Iterable[TimedFrame]) -> AsyncIterator[StreamMessage]:
    """Send each frame and yield every message until the last frame is answered.

    A realtime stream has one frame under way at a time, so that none is dropped for a newer one; a
    lossless stream as many as the server grants. `frames` is read in a thread. The session stays
    open; an event that follows the last answer is told by whoever reads on. Raises what sending
    and reading raise, and what `frames` raises.
    """
    sent: set[int] = set()
    answered: set[int] = set()
    sending = asyncio.create_task(_send(stream, frames, sent), name="ovoad sends frames")
    reading: asyncio.Task[StreamMessage | None] | None = None
    try:
        while not (sending.done() and sending.result() is None and sent <= answered):
            reading = reading or asyncio.create_task(_next(stream), name="ovoad reads answers")
            waiting = {reading} if sending.done() else {reading, sending}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                message, reading = reading.result(), None
                if message is None:  # the session has ended; sending tells why, if it has not done
                    await sending
                    return
                answered.update(answered_seqs(message))
                yield message
    finally:
        for task in (sending, reading):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, ClientError):
                    await task


def answered_seqs(message: StreamMessage) -> tuple[int, ...]:
    """Return the frames that a message settles: one answer each, or several that are lost."""
    match message:
        case Prediction() | FrameDropped() | Error(seq=int()):
            assert message.seq is not None
            return (message.seq,)
        case FramesLost():
            return message.seqs
        case _:
            return ()


async def _send(stream: Stream, frames: Iterable[TimedFrame], sent: set[int]) -> None:
    iterator: Iterator[TimedFrame] = iter(frames)
    one_at_a_time = stream.created.policy == "realtime"
    while (frame := await asyncio.to_thread(next, iterator, None)) is not None:
        if one_at_a_time:
            await stream.wait_for_answers(below=1)
        sent.add(await stream.send(frame.jpeg, timestamp_ms=frame.timestamp_ms))


async def _next(stream: Stream) -> StreamMessage | None:
    return await anext(stream, None)
