"""Start and end of actions in a whole video: hysteresis over its probabilities. Knows no clock.

The same actions as the server reports live, frame by frame, in its events.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from ovoad_model.arrays import BoolArray, Float32Array

LONGEST_GAP_MS: Final = 2000  # the neighbours' span: past it nothing says the action went on


@dataclass(frozen=True)
class EventRule:
    """Enter at or above `enter`, leave below `exit`; report what lasts `min_duration_ms`."""

    enter: float = 0.5
    exit: float = 0.3
    min_duration_ms: int = 500


@dataclass(frozen=True)
class Action:
    """An action from the frame that reached `enter` to the one that fell below `exit`."""

    label: str
    start_ms: int
    end_ms: int
    peak_probability: float


def find_actions(
    timestamps_ms: Sequence[int],
    probabilities: Float32Array,
    labels: Sequence[str],
    rule: EventRule,
) -> list[Action]:
    """Find the actions in probabilities [T, C] of T frames, by start.

    An action that goes on ends at the last frame before a gap of more than 2 s, or at the last.
    """
    entering, leaving = probabilities >= rule.enter, probabilities < rule.exit  # in float32
    actions = []
    for column in map(int, np.flatnonzero(entering.any(axis=0))):
        for first, last, end in _spans(timestamps_ms, entering[:, column], leaving[:, column]):
            if timestamps_ms[last] - timestamps_ms[first] >= rule.min_duration_ms:
                peak = float(probabilities[first : last + 1, column].max())
                start_ms, end_ms = timestamps_ms[first], timestamps_ms[end]
                actions.append(Action(labels[column], start_ms, end_ms, peak))
    return sorted(actions, key=lambda action: (action.start_ms, action.end_ms))


def _spans(
    timestamps_ms: Sequence[int], entering: BoolArray, leaving: BoolArray
) -> Iterator[tuple[int, int, int]]:
    """Yield (first frame inside, last frame inside, frame of the end) of each candidate."""
    first: int | None = None
    for row, time_ms in enumerate(timestamps_ms):
        if first is not None and time_ms - timestamps_ms[row - 1] > LONGEST_GAP_MS:
            yield first, row - 1, row - 1
            first = None
        if first is not None and leaving[row]:
            yield first, row - 1, row
            first = None
        elif first is None and entering[row]:
            first = row
    if first is not None:
        last = len(timestamps_ms) - 1
        yield first, last, last
