"""Send the frames of a source and yield the server's messages. Knows no connection."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from ovoad_client.frame_reading import ThreadedIterator
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
    under_way = _UnderWay()
    sending = asyncio.create_task(_send(stream, frames, under_way), name="ovoad sends frames")
    reading: asyncio.Task[StreamMessage | None] | None = None
    try:
        while not (sending.done() and sending.result() is None and not under_way.seqs):
            reading = reading or asyncio.create_task(_next(stream), name="ovoad reads answers")
            waiting = {reading} if sending.done() else {reading, sending}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                message, reading = reading.result(), None
                if message is None:  # the session has ended; sending tells why, if it has not done
                    await sending
                    return
                under_way.settle(answered_seqs(message))
                yield message
    finally:
        tasks = [sending] if reading is None else [sending, reading]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # what sending raised is raised above


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


@dataclass
class _UnderWay:
    """The frames sent that have no answer yet; as few as are under way, however long it goes."""

    seqs: set[int] = field(default_factory=set)
    _early: set[int] = field(default_factory=set)  # answered before send() returned

    def add(self, seq: int) -> None:
        """Take note of a frame that has been sent."""
        if seq not in self._early:
            self.seqs.add(seq)
        self._early.clear()  # what else is in it was sent by others

    def settle(self, seqs: tuple[int, ...]) -> None:
        """Take note of frames that have an answer, or never will."""
        self._early.update(set(seqs) - self.seqs)
        self.seqs.difference_update(seqs)


async def _send(stream: Stream, frames: Iterable[TimedFrame], under_way: _UnderWay) -> None:
    iterator = ThreadedIterator(frames)
    one_at_a_time = stream.created.policy == "realtime"
    try:
        while (frame := await iterator.next()) is not None:
            if one_at_a_time:
                await stream.wait_for_answers(below=1)
            under_way.add(await stream.send(frame.jpeg, timestamp_ms=frame.timestamp_ms))
    finally:
        iterator.stop()


async def _next(stream: Stream) -> StreamMessage | None:
    return await anext(stream, None)
