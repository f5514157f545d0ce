"""Collect what the timeline picture shows, in bounded memory. Knows no drawing."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from ovoad_client.board import label_probabilities
from ovoad_client.notices import StreamMessage
from ovoad_client.protocol import (
    Event,
    Prediction,
    SessionCreated,
    VocabularyUpdated,
)

POINTS_KEPT: Final = 20_000
THUMBNAILS_KEPT: Final = 128
EVENTS_KEPT: Final = 10_000
_LEAST_GAP_MS: Final = 750  # three slots of the window's grid
_GAP_STEPS: Final = 4
Item = TypeVar("Item")


class Thinned(Generic[Item]):
    """A list that keeps every n-th item; n doubles whenever the list is full."""

    def __init__(self, most: int) -> None:
        self.items: list[Item] = []
        self._most = most
        self._every = 1
        self._seen = 0

    def push(self, item: Item) -> None:
        """Add an item, or pass over it."""
        if self._seen % self._every == 0:
            self.items.append(item)
        self._seen += 1
        if len(self.items) >= self._most:
            del self.items[1::2]
            self._every *= 2


@dataclass(frozen=True)
class Point:
    """The answer at one time."""

    timestamp_ms: int
    probabilities: dict[str, float]
    background: float


@dataclass(frozen=True)
class Span:
    """An action from start to end; `open` where no end event came."""

    label: str
    start_ms: int
    end_ms: int
    open: bool


class Timeline:
    """Probabilities, events and pictures over a session's time."""

    def __init__(self, created: SessionCreated, *, title: str) -> None:
        self.title = title
        self.model = f"{created.model.encoder}, scorer {created.model.scorer}"
        self.labels: list[str] = list(created.labels)
        self._version_labels = {created.vocabulary_version: created.labels}
        self._points: Thinned[Point] = Thinned(POINTS_KEPT)
        self._gaps: list[tuple[int, int]] = []
        self._steps: Thinned[int] = Thinned(512)
        self._thumbnails: Thinned[tuple[int, bytes]] = Thinned(THUMBNAILS_KEPT)
        self._spans: list[Span] = []
        self._open: dict[str, int] = {}
        self._last_ms: int | None = None

    def update(self, message: StreamMessage) -> None:
        """Take in one message."""
        match message:
            case Prediction():
                self._push_point(message)
            case Event():
                self._push_event(message)
            case VocabularyUpdated():
                self._take_words(message.labels, message.vocabulary_version)
            case SessionCreated(resumed=False):
                self._close_open_spans()
                self._take_words(message.labels, message.vocabulary_version)
            case _:
                pass

    def push_frame(self, timestamp_ms: int, jpeg: bytes) -> None:
        """Offer a sent frame as a thumbnail."""
        self._thumbnails.push((timestamp_ms, jpeg))

    @property
    def points(self) -> Sequence[Point]:
        """Answers in the order of time."""
        return self._points.items

    @property
    def spans(self) -> list[Span]:
        """Events as spans; those under way end at the last answer."""
        last_ms = self._last_ms or 0
        return self._spans + [
            Span(label, start_ms, max(last_ms, start_ms), True)
            for label, start_ms in self._open.items()
        ]

    def gaps(self) -> list[tuple[int, int]]:
        """Return (from_ms, to_ms) of each stretch of time with no answer.

        A gap is longer than three slots of the window's grid (750 ms) and four usual steps.
        """
        least = self.gap_threshold_ms()
        return [(start, end) for start, end in self._gaps if end - start > least]

    def gap_threshold_ms(self) -> float:
        """Return the time between two answers beyond which no line joins them."""
        usual = statistics.median(self._steps.items) if self._steps.items else 0
        return max(_LEAST_GAP_MS, _GAP_STEPS * usual)

    def likeliest(self, most: int) -> list[str]:
        """Return at most `most` labels, those with the highest peaks, in their own order."""
        peaks = dict.fromkeys(self.labels, -1.0)
        for point in self.points:
            for label, probability in point.probabilities.items():
                peaks[label] = max(peaks.get(label, -1.0), probability)
        kept = set(sorted(self.labels, key=lambda label: -peaks[label])[:most])
        return [label for label in self.labels if label in kept]

    def thumbnails(self, times_ms: Iterable[float]) -> list[bytes | None]:
        """Return the picture nearest to each time."""
        kept = self._thumbnails.items
        if not kept:
            return [None for _ in times_ms]
        return [min(kept, key=lambda item: abs(item[0] - wanted))[1] for wanted in times_ms]

    def _take_words(self, labels: list[str], version: int) -> None:
        self._version_labels = {version: labels}
        known = set(self.labels)
        self.labels += [label for label in labels if label not in known]

    def _close_open_spans(self) -> None:
        """End what was under way at the last answer: a fresh session knows nothing of it."""
        self._spans += [
            Span(span.label, span.start_ms, span.end_ms, False)
            for span in self.spans[len(self._spans) :]
        ]
        self._open.clear()

    def _push_point(self, message: Prediction) -> None:
        labels = self._version_labels.get(message.vocabulary_version, ())
        if self._last_ms is not None:
            step_ms = message.timestamp_ms - self._last_ms
            self._steps.push(step_ms)
            if step_ms > _LEAST_GAP_MS and len(self._gaps) < EVENTS_KEPT:
                self._gaps.append((self._last_ms, message.timestamp_ms))
        self._last_ms = message.timestamp_ms
        probabilities = label_probabilities(message, labels)
        self._points.push(Point(message.timestamp_ms, probabilities, message.background))

    def _push_event(self, event: Event) -> None:
        if event.kind == "start":
            # An event is told once it has lasted; its start is where the threshold was passed.
            started_ms = event.timestamp_ms if event.start_ms is None else event.start_ms
            self._open[event.label] = started_ms
            return
        start_ms = self._open.pop(event.label, event.timestamp_ms)
        if event.start_ms is not None:
            start_ms = event.start_ms
        if len(self._spans) < EVENTS_KEPT:
            self._spans.append(Span(event.label, start_ms, event.timestamp_ms, False))
