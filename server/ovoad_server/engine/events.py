"""Start and end of actions: hysteresis over the stream of probabilities. Knows no clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

LONGEST_GAP_MS: Final = 2000  # the neighbours' span: past it nothing says the action went on
_NONE: Final = np.iinfo(np.int64).min


@dataclass(frozen=True)
class EventRule:
    """Enter at or above `enter`, leave below `exit`; report what lasts `min_duration_ms`."""

    enter: float
    exit: float
    min_duration_ms: int


@dataclass(frozen=True)
class ActionEvent:
    """An action began (since start_ms) or ended, with the probability at timestamp_ms."""

    kind: Literal["start", "end"]
    label: str
    timestamp_ms: int
    probability: float
    start_ms: int


class EventDetector:
    """Follow each label of a vocabulary through time.

    An action is a candidate from the frame that reaches `enter` until one falls below `exit`; once
    it has lasted `min_duration_ms` its start is reported, back-dated in start_ms, and then its end.
    A gap of more than 2 s ends whatever was going on at the last frame before the gap.
    """

    def __init__(self, rule: EventRule, labels: Sequence[str]) -> None:
        self._rule = rule
        self._labels = tuple(labels)
        self._since_ms = np.full(len(labels), _NONE, np.int64)
        self._started = np.zeros(len(labels), np.bool_)
        self._probabilities = np.zeros(len(labels), np.float32)
        self._last_ms: int | None = None

    def update(self, timestamp_ms: int, probabilities: NDArray[np.float32]) -> list[ActionEvent]:
        """Take the probabilities [C] of a later frame; return what began or ended with it."""
        events: list[ActionEvent] = []
        if self._last_ms is not None and timestamp_ms - self._last_ms > LONGEST_GAP_MS:
            events += self.finish()
        self._last_ms = timestamp_ms
        self._probabilities = probabilities
        left = (self._since_ms != _NONE) & (probabilities < self._rule.exit)
        events += self._events("end", left & self._started)
        self._since_ms[left] = _NONE
        self._started[left] = False
        entered = (self._since_ms == _NONE) & (probabilities >= self._rule.enter)
        self._since_ms[entered] = timestamp_ms
        waiting = (self._since_ms != _NONE) & ~self._started
        lasting = waiting & (self._since_ms <= timestamp_ms - self._rule.min_duration_ms)
        self._started[lasting] = True
        return events + self._events("start", lasting)

    def finish(self) -> list[ActionEvent]:
        """End what is going on at the last frame seen, and forget all candidates."""
        events = self._events("end", self._started)
        self._since_ms.fill(_NONE)
        self._started.fill(False)
        self._last_ms = None
        return events

    def change_labels(self, labels: Sequence[str]) -> list[ActionEvent]:
        """Take new words: labels that stay go on, those that leave end."""
        if tuple(labels) == self._labels:
            return []
        kept = {label: row for row, label in enumerate(self._labels)}
        leaving = np.array([label not in set(labels) for label in self._labels])
        events = self._events("end", self._started & leaving)
        rows = [kept.get(label, -1) for label in labels]
        known = np.array([row >= 0 for row in rows])
        self._since_ms = np.where(known, self._since_ms[rows], _NONE)
        self._started = np.where(known, self._started[rows], False)
        self._probabilities = np.where(known, self._probabilities[rows], np.float32(0))
        self._labels = tuple(labels)
        return events

    def _events(self, kind: Literal["start", "end"], where: NDArray[np.bool_]) -> list[ActionEvent]:
        if self._last_ms is None:
            return []
        return [
            ActionEvent(
                kind,
                self._labels[row],
                self._last_ms,
                float(self._probabilities[row]),
                int(self._since_ms[row]),
            )
            for row in np.flatnonzero(where)
        ]
