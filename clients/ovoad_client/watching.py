"""Stream one source through one session, keeping board, recording and timeline.

Knows no command line; what is shown goes to a view.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol

from ovoad_client.board import Board
from ovoad_client.client import connect
from ovoad_client.counts import describe_drops
from ovoad_client.errors import BrokenError, ClientError
from ovoad_client.interrupts import Interrupts
from ovoad_client.notices import StreamMessage
from ovoad_client.outputs import Outputs
from ovoad_client.plot import PlotError, draw_timeline
from ovoad_client.protocol import (
    DropReason,
    EventSettings,
    Policy,
    ScorerName,
    SessionClosed,
    VocabularyUpdated,
)
from ovoad_client.reading import Keep, Pace, SourceReader
from ovoad_client.reconnecting import Reconnect
from ovoad_client.sources import DEFAULT_MAX_SIDE, JPEG_QUALITY, VideoSource, sent_size
from ovoad_client.stream import Stream
from ovoad_client.timeline import Timeline

REFRESH_S: Final = 0.125
_RECONNECT: Final = Reconnect()


class View(Protocol):
    """What shows a session: a live table, or lines."""

    def __enter__(self) -> object: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...
    def refresh(self, board: Board) -> None: ...
    def tell(self, message: StreamMessage) -> None: ...
    def say(self, text: str) -> None: ...


@dataclass(frozen=True)
class WatchOptions:
    """What to ask of the server and what to keep; see `ovoad watch --help`."""

    url: str
    labels: Sequence[str]
    templates: Sequence[str] | None = None
    background: Sequence[str] | None = None
    policy: Policy = "realtime"
    scorer: ScorerName | None = None
    top_k: int | None = None
    events: EventSettings | None = None
    api_key: str | None = None
    pace: Pace = "source"
    max_side: int = DEFAULT_MAX_SIDE
    duration_s: float | None = None
    save: Sequence[Path] = ()  # files, each in the format that its name's ending says
    plot: Path | None = None
    reconnect: Reconnect | None = _RECONNECT  # after a break; None: never


@dataclass(frozen=True)
class WatchSummary:
    """A finished session in numbers; `first_prediction_s` is on the clock time.monotonic()."""

    sent: int
    skipped: int
    predicted: int
    dropped: Counter[DropReason]
    errors: int
    latencies_ms: Sequence[float]
    wall_s: float
    first_prediction_s: float | None
    failure: ClientError | None  # why it did not end well
    lost: int = 0  # frames that a break swallowed
    sent_again: int = 0
    reconnects: int = 0


@dataclass(frozen=True)
class _Kept:
    """What keeps a session beyond its end."""

    outputs: Outputs
    timeline: Timeline

    def push_frame(self, timestamp_ms: int, jpeg: bytes) -> None:
        """Take the frame that is sent next."""
        self.outputs.push_frame(timestamp_ms, jpeg)
        self.timeline.push_frame(timestamp_ms, jpeg)

    def take(self, message: StreamMessage) -> None:
        """Take a message that the stream told."""
        self.outputs.take(message)
        self.timeline.update(message)


@dataclass
class _Progress:
    """What sender and receiver tell each other."""

    closing: bool = False
    first_prediction_s: float | None = None
    failures: list[ClientError] = field(default_factory=list)


async def watch(
    source: VideoSource, options: WatchOptions, view: View, interrupts: Interrupts
) -> WatchSummary:
    """Stream the source until it ends or is stopped.

    Raises ClientError where no session opens; what ends an open one early is in the summary.
    """
    start_s = time.monotonic()
    progress = _Progress()
    async with _connect(options) as stream:
        keep: Keep = "newest" if options.policy == "realtime" else "all"
        reader = SourceReader(
            source, pace=options.pace, keep=keep, max_side=options.max_side, say=view.say
        )
        interrupts.stop = reader.stop
        board = Board(stream.created)
        kept = _Kept(
            Outputs(options.save, stream.created), Timeline(stream.created, title=source.name)
        )
        with view:
            for line in headlines(source, options, stream):
                view.say(line)
            try:
                await _exchange(stream, reader, options, board, kept, view, progress)
            finally:
                await kept.outputs.close()
            view.refresh(board)
        wall_s = time.monotonic() - start_s
        interrupts.stop = _let_finish
        for note in [*_closing_notes(stream, reader), *kept.outputs.notes]:
            view.say(note)
    progress.failures += kept.outputs.failures
    timeline = kept.timeline
    if options.plot is not None and timeline.points:
        try:
            await asyncio.to_thread(draw_timeline, timeline, options.plot)
        except PlotError as error:
            progress.failures.append(error)
    return _summary(stream, reader, progress, wall_s)


def _let_finish() -> None:
    """Let what is at its end draw its timeline; there is nothing left to be stopped."""


def _summary(
    stream: Stream, reader: SourceReader, progress: "_Progress", wall_s: float
) -> WatchSummary:
    return WatchSummary(
        sent=stream.counts.sent,
        skipped=reader.skipped,
        predicted=stream.counts.predicted,
        dropped=stream.counts.dropped,
        errors=stream.counts.errors,
        latencies_ms=list(stream.latencies_ms),
        wall_s=wall_s,
        first_prediction_s=progress.first_prediction_s,
        failure=progress.failures[0] if progress.failures else None,
        lost=stream.counts.lost,
        sent_again=stream.counts.sent_again,
        reconnects=stream.counts.reconnects,
    )


def headlines(source: VideoSource, options: WatchOptions, stream: Stream) -> list[str]:
    """Return what is streamed and to whom, and the server's warnings."""
    created = stream.created
    width, height = sent_size(source.width, source.height, options.max_side)
    size = f"{source.width}x{source.height}"
    if (width, height) != (source.width, source.height):
        size += f" sent as {width}x{height}"
    length = "live" if source.duration_ms is None else f"{source.duration_ms / 1000:.1f} s"
    rate = "" if source.fps is None else f", {source.fps:g} frames/s"
    return [
        f"{source.name}: {size}, JPEG quality {JPEG_QUALITY}{rate}, {length}",
        f"session {created.session_id} with {created.model.encoder}, scorer "
        f"{created.model.scorer}, policy {created.policy}",
        *(f"warning: {warning}" for warning in created.warnings),
    ]


def summary_lines(summary: WatchSummary) -> list[str]:
    """Return a finished session as lines for a person."""
    text = (
        f"{summary.sent} frames sent in {summary.wall_s:.1f} s: {summary.predicted} predictions, "
        f"dropped: {describe_drops(summary.dropped)}, errors: {summary.errors}"
    )
    if summary.lost:
        text += f", lost: {summary.lost}"
    if summary.skipped:
        text += f"; {summary.skipped} more skipped before sending, to keep up with the source"
    lines = [text]
    if summary.reconnects:
        times = "once" if summary.reconnects == 1 else f"{summary.reconnects} times"
        lines.append(
            f"reconnected {times}; frames sent again: {summary.sent_again}, lost: {summary.lost}"
        )
    if summary.latencies_ms:
        median, p99 = percentile(summary.latencies_ms, 50), percentile(summary.latencies_ms, 99)
        lines.append(
            f"latency from sending to prediction: median {median:.1f} ms, p99 {p99:.1f} ms"
        )
    return lines


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the least value that at least `percent` of the values do not exceed."""
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


# ---- the parts of a session --------------------------------------------------------------------


def _connect(options: WatchOptions) -> contextlib.AbstractAsyncContextManager[Stream]:
    return connect(
        options.url,
        options.labels,
        templates=options.templates,
        background=options.background,
        policy=options.policy,
        scorer=options.scorer,
        top_k=options.top_k,
        events=options.events,
        api_key=options.api_key,
        reconnect=options.reconnect,
    )


async def _exchange(
    stream: Stream,
    reader: SourceReader,
    options: WatchOptions,
    board: Board,
    kept: _Kept,
    view: View,
    progress: _Progress,
) -> None:
    """Send and receive at the same time until the session has ended."""
    left: list[BrokenPipeError] = []
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_send_frames(stream, reader, options, kept, progress))
            ticking = tasks.create_task(_tick(view, board))
            await _receive(stream, board, kept, view, progress)
            reader.stop()
            ticking.cancel()
    except* BrokenPipeError:
        left.append(BrokenPipeError())
    if left:
        raise left[0]  # whoever read what the view prints has gone


async def _send_frames(
    stream: Stream,
    reader: SourceReader,
    options: WatchOptions,
    kept: _Kept,
    progress: _Progress,
) -> None:
    """Send the source's frames, then close the session, whatever ended them."""
    one_at_a_time = options.pace == "fast" and options.policy == "realtime"
    may_wait = options.pace == "fast" or options.policy == "lossless"
    end_ms = None if options.duration_s is None else options.duration_s * 1000
    try:
        async with reader:
            async for frame in reader:
                if end_ms is not None and frame.timestamp_ms >= end_ms:
                    break
                if may_wait:
                    await kept.outputs.wait_for_room()
                if one_at_a_time:
                    await stream.wait_for_answers(below=1)
                kept.push_frame(frame.timestamp_ms, frame.jpeg)
                await stream.send(frame.jpeg, timestamp_ms=frame.timestamp_ms)
    except ClientError as error:
        progress.failures.append(error)
    if not stream.ended:
        progress.closing = True
        with contextlib.suppress(ClientError):  # the receiver meets the same one
            await stream.close()


async def _receive(
    stream: Stream, board: Board, kept: _Kept, view: View, progress: _Progress
) -> None:
    """Take in every message until the session ends."""
    try:
        async for message in stream:
            board.update(message, latency_ms=stream.latency_ms)
            kept.take(message)
            view.tell(message)
            if isinstance(message, VocabularyUpdated):
                for warning in message.warnings:
                    view.say(f"warning: {warning}")
            if progress.first_prediction_s is None and board.predicted:
                progress.first_prediction_s = time.monotonic()
            if isinstance(message, SessionClosed) and not progress.closing:
                text = f"the server ended the session: {message.reason}"
                progress.failures.insert(0, BrokenError(text))
    except ClientError as error:
        progress.failures.insert(0, error)


async def _tick(view: View, board: Board) -> None:
    while True:
        view.refresh(board)
        await asyncio.sleep(REFRESH_S)


def _closing_notes(stream: Stream, reader: SourceReader) -> list[str]:
    notes = [] if reader.note is None else [f"warning: {reader.note}"]
    if stream.closed is not None:
        notes += [f"warning: {text}" for text in stream.counts.differences(stream.closed)]
    return notes
