"""Percentiles and ratios of measured times. Knows no connection."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Percentiles:
    """Of a list of times in milliseconds; all NaN where the list was empty."""

    p50: float
    p95: float
    p99: float


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which `share` (0 to 1) of an ordered list lies, interpolated.

    NaN for an empty list.
    """
    if not ordered:
        return math.nan
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def percentiles(times_ms: Iterable[float]) -> Percentiles:
    """Return the three percentiles of unordered times."""
    ordered = sorted(times_ms)
    return Percentiles(
        percentile(ordered, 0.50), percentile(ordered, 0.95), percentile(ordered, 0.99)
    )


def efficiency(served_fps: float, bare_fps: Sequence[float]) -> float:
    """Return frames/s served over the mean of the bare rates measured around it."""
    mean = sum(bare_fps) / len(bare_fps) if bare_fps else 0.0
    return served_fps / mean if mean > 0 else math.nan


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Return the least-squares slope of y over x; NaN for fewer than two different x."""
    count = len(xs)
    if count < 2:
        return math.nan
    mean_x, mean_y = sum(xs) / count, sum(ys) / count
    spread = sum((x - mean_x) ** 2 for x in xs)
    if spread == 0:
        return math.nan
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread
