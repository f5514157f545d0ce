"""Keep what a person watches while a session runs: the newest numbers and a short past.

Knows no terminal and no connection; `table.py` and `lines.py` show it.
"""

import statistics
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from ovoad_client.counts import counted
from ovoad_client.notices import FramesLost, Reconnected, Reconnecting, StreamMessage
from ovoad_client.protocol import (
    DropReason,
    Error,
    Event,
    FrameDropped,
    Prediction,
    SessionCreated,
    VocabularyUpdated,
    WindowState,
)

HISTORY_CELLS: Final = 32
CELL_MS: Final = 250
RATE_S: Final = 2.0  # frames/s and latency are those of the last seconds
LEAST_RATE_S: Final = 0.2  # over less, a rate says nothing
EVENTS_KEPT: Final = 6
BLOCKS: Final = "▁▂▃▄▅▆▇█"


@dataclass
class History:
    """The newest probability of each quarter of a second; a quarter without one is empty."""

    cells: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=HISTORY_CELLS))

    def push(self, timestamp_ms: int, probability: float) -> None:
        """Add a value; a newer one of the same quarter replaces the older."""
        cell = timestamp_ms // CELL_MS
        if self.cells and self.cells[-1][0] == cell:
            self.cells.pop()
        self.cells.append((cell, probability))

    def sparkline(self, newest_ms: int, width: int = HISTORY_CELLS) -> str:
        """Return one character a quarter of a second up to newest_ms; a gap is a blank."""
        values = dict(self.cells)
        newest = newest_ms // CELL_MS
        return "".join(_block(values.get(newest - back)) for back in range(width - 1, -1, -1))


class Board:
    """State of a running session, updated by messages.

    `probabilities` holds the newest of each label; with top_k only the labels ranked.
    """

    def __init__(self, created: SessionCreated) -> None:
        self.created = created
        self.labels: list[str] = created.labels
        self.vocabulary_version = created.vocabulary_version
        self.probabilities: dict[str, float] = {}
        self.background = 0.0
        self.active: dict[str, int] = {}  # label -> start_ms of the event under way
        self.events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self.window: WindowState | None = None
        self.timestamp_ms = 0
        self.predicted = 0
        self.dropped: Counter[DropReason] = Counter()
        self.errors: deque[Error] = deque(maxlen=3)
        self.lost = 0
        self.reconnecting: Reconnecting | None = None  # while there is no connection
        self.backlog = 0
        self._histories: dict[str, History] = {}
        self._background_history = History()
        self._arrivals: deque[tuple[float, float]] = deque(maxlen=512)  # (s, latency ms)

    def update(self, message: StreamMessage, *, latency_ms: float | None = None) -> None:
        """Take in one message; latency_ms is that of the prediction in it."""
        match message:
            case Prediction():
                self._update_prediction(message, latency_ms)
            case FrameDropped():
                self.dropped[message.reason] += 1
            case Event():
                self._update_event(message)
            case VocabularyUpdated():
                self._take_words(message.labels, message.vocabulary_version)
            case SessionCreated():
                self._begin_again(message)
            case Reconnecting():
                self.reconnecting = message
            case Reconnected():
                self.reconnecting = None
            case FramesLost():
                self.lost += len(message.seqs)
            case Error():
                self.errors.append(message)
            case _:
                pass

    def frames_per_s(self) -> float | None:
        """Predictions per second over the last two seconds; None where there are too few."""
        recent = self._recent()
        span_s = recent[-1][0] - recent[0][0] if recent else 0.0
        return (len(recent) - 1) / span_s if span_s >= LEAST_RATE_S else None

    def latency_p50_ms(self) -> float | None:
        """Median time from sending a frame to its prediction over the last two seconds."""
        recent = self._recent()
        return statistics.median(latency for _, latency in recent) if recent else None

    def sparkline(self, label: str | None) -> str:
        """Return a label's recent past, or that of the background (None)."""
        history = self._background_history if label is None else self._histories.get(label)
        return (history or History()).sparkline(self.timestamp_ms)

    def ranked(self, most: int) -> list[str]:
        """Return all labels in their own order if they fit, else the likeliest `most`."""
        if len(self.labels) <= most:
            return self.labels
        key = self.probabilities
        return sorted(self.labels, key=lambda label: -key.get(label, -1.0))[:most]

    def _update_prediction(self, message: Prediction, latency_ms: float | None) -> None:
        if message.vocabulary_version == self.vocabulary_version:
            self.probabilities = label_probabilities(message, self.labels)
        for label, probability in self.probabilities.items():
            history = self._histories.setdefault(label, History())
            history.push(message.timestamp_ms, probability)
        self._background_history.push(message.timestamp_ms, message.background)
        self.background = message.background
        self.window = message.window
        self.timestamp_ms = message.timestamp_ms
        self.backlog = message.backlog
        self.predicted += 1
        if latency_ms is not None:
            self._arrivals.append((time.monotonic(), latency_ms))

    def _update_event(self, event: Event) -> None:
        self.events.append(event)
        if event.kind == "start":
            self.active[event.label] = event.timestamp_ms
        else:
            self.active.pop(event.label, None)

    def _begin_again(self, created: SessionCreated) -> None:
        """Take in the session of a new connection; a fresh one knows of no event under way."""
        self.created = created
        if not created.resumed:
            self.active.clear()
            self.window = None
            self._take_words(created.labels, created.vocabulary_version)

    def _take_words(self, labels: list[str], version: int) -> None:
        self.vocabulary_version = version
        self.probabilities.clear()
        if labels != self.labels:
            self.labels = labels
            self._histories.clear()

    def _recent(self) -> list[tuple[float, float]]:
        since = time.monotonic() - RATE_S
        return [arrival for arrival in self._arrivals if arrival[0] >= since]


def label_probabilities(message: Prediction, labels: Sequence[str]) -> dict[str, float]:
    """Return label -> probability, of all labels or of the ranked ones."""
    if message.probabilities is not None:
        return dict(zip(labels, message.probabilities, strict=False))
    return {ranked.label: ranked.probability for ranked in message.top or ()}


def describe_speed(board: Board) -> tuple[str, str]:
    """Return frames per second and latency as texts, e.g. ("25.0 frames/s", "12 ms")."""
    rate, latency_ms = board.frames_per_s(), board.latency_p50_ms()
    return (
        "– frames/s" if rate is None else f"{rate:.1f} frames/s",
        "– ms" if latency_ms is None else f"{latency_ms:.0f} ms",
    )


def describe_window(window: WindowState | None) -> str:
    """Return e.g. "12 frames over 3.0 s, 2 gaps, warming up"."""
    if window is None:
        return "no frame yet"
    text = f"{counted(window.frames, 'frame')} over {window.span_ms / 1000:.1f} s"
    if window.gaps:
        text += f", {counted(window.gaps, 'gap')}"
    return text + (", warming up" if window.warming_up else "")


def describe_event(event: Event) -> str:
    """Return e.g. "3.2 s  start  riding a bicycle (0.62)"."""
    text = f"{event.timestamp_ms / 1000:7.2f} s  {event.kind:<5}  {event.label}"
    if event.kind == "end" and event.start_ms is not None:
        return f"{text} (lasted {(event.timestamp_ms - event.start_ms) / 1000:.2f} s)"
    since = "" if event.start_ms is None else f", since {event.start_ms / 1000:.2f} s"
    return f"{text} ({event.probability:.2f}{since})"


def describe_notice(notice: Reconnecting | Reconnected | FramesLost) -> str:
    """Return e.g. "connection broke, reconnecting in 0.3 s (…)"."""
    match notice:
        case Reconnecting(attempt=1):
            return f"connection broke, reconnecting in {notice.wait_s:.1f} s ({notice.why})"
        case Reconnecting():
            wait = f"attempt {notice.attempt} in {notice.wait_s:.1f} s"
            return f"no connection yet, {wait} ({notice.why})"
        case Reconnected(resumed=True):
            return f"resumed, {counted(len(notice.sent_again), 'frame')} sent again"
        case Reconnected():
            again = f"; {counted(len(notice.sent_again), 'frame')} sent again"
            text = "fresh session, the window warms up again"
            return text + (again if notice.sent_again else "")
        case FramesLost():
            return f"{counted(len(notice.seqs), 'frame')} lost: {_ranges(notice.seqs)}"


def _ranges(seqs: Sequence[int]) -> str:
    """Return e.g. "3, 7-9"."""
    runs: list[tuple[int, int]] = []
    for seq in seqs:
        if runs and seq == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], seq)
        else:
            runs.append((seq, seq))
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _block(value: float | None) -> str:
    if value is None:
        return " "
    return BLOCKS[min(len(BLOCKS) - 1, max(0, int(value * len(BLOCKS))))]
