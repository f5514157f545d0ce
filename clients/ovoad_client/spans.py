"""Join start and end events into spans of time. Knows no file."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ovoad_client.board import label_probabilities
from ovoad_client.notices import StreamMessage
from ovoad_client.protocol import Event, Prediction, SessionCreated

RECENT_KEPT: Final = 64


@dataclass
class EventSpan:
    """An action from start to end, on the source's clock; probability is the highest seen."""

    label: str
    start_ms: int
    end_ms: int
    probability: float


class SpanKeeper:
    """Follows a session's events; gives each span once, in the order of their starts.

    A span that is over waits while an older one is still under way, 64 spans at most. Those that a
    fresh session or the end of the stream leaves open end at the last prediction.
    """

    def __init__(self, created: SessionCreated) -> None:
        self._labels = created.labels
        self._open: dict[str, EventSpan] = {}
        self._over: list[EventSpan] = []
        self._last_ms = 0
        # An event is told once it has lasted; its peak may be before that.
        self._recent: deque[Prediction] = deque(maxlen=RECENT_KEPT)

    @property
    def under_way(self) -> Iterable[EventSpan]:
        """Spans with no end yet."""
        return self._open.values()

    def take(self, message: StreamMessage) -> list[EventSpan]:
        """Take in one message; returns the spans that it makes ready to be told."""
        match message:
            case Prediction():
                self._last_ms = message.timestamp_ms
                self._recent.append(message)
                if self._open:
                    self._raise_peaks(label_probabilities(message, self._labels))
            case Event(kind="start"):
                start_ms = message.timestamp_ms if message.start_ms is None else message.start_ms
                peak = self._peak_since(start_ms, message)
                self._open[message.label] = EventSpan(
                    message.label, start_ms, message.timestamp_ms, peak
                )
            case Event(kind="end"):
                self._end(message)
            case SessionCreated(resumed=False):
                return self.finish()
            case _:
                pass
        return self._ready()

    def finish(self) -> list[EventSpan]:
        """End what is under way; returns the spans not told yet."""
        for span in self._open.values():
            span.end_ms = max(self._last_ms, span.end_ms)
            self._over.append(span)
        self._open.clear()
        return self._ready()

    def _peak_since(self, start_ms: int, event: Event) -> float:
        peak = event.probability
        for message in self._recent:
            if message.timestamp_ms >= start_ms:
                known = label_probabilities(message, self._labels)
                peak = max(peak, known.get(event.label, 0.0))
        return peak

    def _raise_peaks(self, probabilities: dict[str, float]) -> None:
        for label, span in self._open.items():
            span.end_ms = max(self._last_ms, span.start_ms)
            span.probability = max(span.probability, probabilities.get(label, 0.0))

    def _end(self, event: Event) -> None:
        start_ms = event.timestamp_ms if event.start_ms is None else event.start_ms
        span = self._open.pop(event.label, None)
        if span is None:
            span = EventSpan(event.label, start_ms, event.timestamp_ms, event.probability)
        span.start_ms, span.end_ms = start_ms, max(event.timestamp_ms, start_ms)
        self._over.append(span)

    def _ready(self) -> list[EventSpan]:
        self._over.sort(key=lambda span: span.start_ms)
        oldest_ms = min((span.start_ms for span in self._open.values()), default=None)
        count = sum(oldest_ms is None or span.start_ms <= oldest_ms for span in self._over)
        count = max(count, len(self._over) - 64)
        ready, self._over = self._over[:count], self._over[count:]
        return ready
