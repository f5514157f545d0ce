"""The window of one session: a ring buffer of frame features on a 4 fps grid of timestamps.

Knows no encoder and no clock: time is what the frames' timestamps say.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ovoad_model.arrays import BoolArray, Float32Array

FPS = 4.0
GRID_MS = 250
PAST = 24
NEIGHBOURS = 8
SLOTS = PAST + NEIGHBOURS


@dataclass(frozen=True)
class WindowState:
    """What a window holds, for people: filled slots, time spanned, empty slots, still filling."""

    frames: int
    span_ms: int
    gaps: int
    warming_up: bool


@dataclass(frozen=True)
class WindowView:
    """A snapshot of one window: features [32, F] oldest to newest, zeros where mask [32] is off."""

    features: Float32Array
    mask: BoolArray
    state: WindowState


@dataclass(frozen=True)
class WindowBatch:
    """Views of B windows as scorers take them.

    past [B, 24, F] with past_mask [B, 24]; neighbours [B, 8, F] with neighbours_mask [B, 8].
    The last neighbour is the newest frame and always there; masked slots are zeros.
    """

    past: Float32Array
    past_mask: BoolArray
    neighbours: Float32Array
    neighbours_mask: BoolArray


class Window:
    """24 past and 8 neighbouring features (paper.md, Letters: p = 24, n = 8), one per 250 ms.

    The grid starts at the first frame's timestamp; a frame belongs to the cell whose grid time is
    nearest. The newest frame is always the last neighbour; once a later cell begins, a cell keeps
    the frame nearest to its grid time (the earlier of two equally near). So what a view shows
    depends only on frames up to the newest, memory is constant, and a source of any rate fills the
    same slots. A cell without a frame stays empty: gaps are masked and counted, never closed up.
    """

    def __init__(self, feature_width: int) -> None:
        self._features = np.zeros((SLOTS, feature_width), np.float32)  # by cell modulo SLOTS
        self._cells = np.full(SLOTS, -1, np.int64)  # which cell each row holds; -1 for none
        self._times_ms = np.zeros(SLOTS, np.int64)
        self._newest = np.zeros(feature_width, np.float32)
        self._first_ms: int | None = None
        self._newest_ms = 0

    def clear(self) -> None:
        """Forget all frames; the next one starts a new grid."""
        self._cells.fill(-1)
        self._first_ms = None

    def push(self, timestamp_ms: int, feature: Float32Array) -> None:
        """Take the feature [F] of a frame later than all before it."""
        if self._first_ms is None:
            self._first_ms = timestamp_ms
        elif timestamp_ms <= self._newest_ms:
            raise ValueError(
                f"found timestamp {timestamp_ms} ms, expected more than {self._newest_ms} ms"
            )
        cell = self._cell_of(timestamp_ms)
        row = cell % SLOTS
        grid_ms = self._first_ms + cell * GRID_MS
        kept_ms = int(self._times_ms[row])
        if self._cells[row] != cell or abs(timestamp_ms - grid_ms) < abs(kept_ms - grid_ms):
            self._features[row] = feature
            self._cells[row] = cell
            self._times_ms[row] = timestamp_ms
        self._newest[:] = feature
        self._newest_ms = timestamp_ms

    def view(self) -> WindowView:
        """Return a snapshot that ends with the newest frame; needs at least one frame."""
        assert self._first_ms is not None, "a window without frames has no view"
        current = self._cell_of(self._newest_ms)
        cells = np.arange(current - SLOTS + 1, current + 1)
        rows = cells % SLOTS
        mask = (self._cells[rows] == cells) & (cells >= 0)
        features = np.where(mask[:, None], self._features[rows], np.float32(0.0))
        features[-1] = self._newest
        oldest = int(np.argmax(mask))
        oldest_ms = self._newest_ms if oldest == SLOTS - 1 else int(self._times_ms[rows[oldest]])
        frames = int(mask.sum())
        state = WindowState(
            frames=frames,
            span_ms=self._newest_ms - oldest_ms,
            gaps=min(current + 1, SLOTS) - frames,
            warming_up=current + 1 < SLOTS,
        )
        return WindowView(features, mask, state)

    def view_after(self, timestamp_ms: int, feature: Float32Array) -> WindowView:
        """Return the view that this window would have after a push; the window stays as it is."""
        later = copy.deepcopy(self)
        later.push(timestamp_ms, feature)
        return later.view()

    def _cell_of(self, timestamp_ms: int) -> int:
        assert self._first_ms is not None
        return (2 * (timestamp_ms - self._first_ms) + GRID_MS - 1) // (2 * GRID_MS)


def stack_views(views: Sequence[WindowView]) -> WindowBatch:
    """Stack B views into the arrays that scorers take."""
    features = np.stack([view.features for view in views])
    mask = np.stack([view.mask for view in views])
    return WindowBatch(
        past=features[:, :PAST],
        past_mask=mask[:, :PAST],
        neighbours=features[:, PAST:],
        neighbours_mask=mask[:, PAST:],
    )
