"""Training windows: which 32 frames to cut from a video and which texts belong to them.

Knows no features and no network; texts are strings here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ovoad_model.arrays import BoolArray
from ovoad_model.errors import ModelError
from ovoad_model.training.captions import Caption
from ovoad_model.window import GRID_MS, NEIGHBOURS

BACKGROUND_TEXT: Final = "background"

IntArray = NDArray[np.int64]


class NoWindowsError(ModelError):
    """Captions from which no training window can be cut."""


@dataclass(frozen=True)
class Timeline:
    """One video's captions on the frame grid: caption i covers frames starts[i] to stops[i] - 1."""

    video: str
    length: int
    texts: tuple[str, ...]
    starts: IntArray
    stops: IntArray

    def cover(self, start: int, stop: int) -> BoolArray:
        """Tell which captions [C] cover which of frames start to stop - 1: [C, stop - start]."""
        frames = np.arange(start, stop)
        covered: BoolArray = (self.starts[:, None] <= frames) & (frames < self.stops[:, None])
        return covered


@dataclass(frozen=True)
class WindowTexts:
    """The texts of one window and which of its n neighbours lie inside a caption: inside [n]."""

    whole: str
    current: str
    extra: tuple[str, ...]
    inside: BoolArray


@dataclass(frozen=True)
class Draws:
    """N windows: the index of each one's video, and its last (current) frame."""

    videos: IntArray
    ends: IntArray

    def __len__(self) -> int:
        return len(self.videos)


def build_timeline(video: str, length: int, captions: Sequence[Caption]) -> Timeline:
    """Put captions on the grid of `length` frames: a frame at time t is inside [start, end).

    A caption so short that no frame's time falls inside it covers the frame just before it.
    """
    starts = np.array([-(-caption.start_ms // GRID_MS) for caption in captions], np.int64)
    stops = np.array([-(-caption.end_ms // GRID_MS) for caption in captions], np.int64)
    starts = np.minimum(starts, length - 1)
    starts = np.where(stops <= starts, np.maximum(stops - 1, 0), starts)
    stops = np.clip(stops, starts + 1, length)
    return Timeline(video, length, tuple(caption.text for caption in captions), starts, stops)


def build_timelines(captions: Sequence[Caption], lengths: dict[str, int]) -> list[Timeline]:
    """Group captions by video, in the order of the videos' names."""
    by_video: dict[str, list[Caption]] = {}
    for caption in captions:
        by_video.setdefault(caption.video, []).append(caption)
    return [build_timeline(video, lengths[video], by_video[video]) for video in sorted(by_video)]


class WindowSampler:
    """Draw windows so that `background_share` of them have no caption among their neighbours.

    The rest are drawn caption by caption, all alike: the current frame lies anywhere from the
    caption's first frame to half the neighbours after its last, so that windows also show how an
    action ends. (Free in the paper.)
    """

    def __init__(self, timelines: Sequence[Timeline], background_share: float) -> None:
        if not 0 <= background_share < 1:
            raise ValueError(f"found share {background_share}, expected 0 to below 1")
        self._owners = _concatenate([np.full(len(t.texts), i) for i, t in enumerate(timelines)])
        self._starts = _concatenate([t.starts for t in timelines])
        self._stops = _concatenate([t.stops for t in timelines])
        self._lengths = np.array([t.length for t in timelines], np.int64)
        if not len(self._owners):
            raise NoWindowsError("found no captions, expected at least one")
        empty = [_background_ends(timeline) for timeline in timelines]
        self._empty_ends = _concatenate(empty)
        self._empty_owners = _concatenate([np.full(len(e), i) for i, e in enumerate(empty)])
        self.background_share = background_share if len(self._empty_ends) else 0.0

    @property
    def default_count(self) -> int:
        """Windows in an epoch unless told otherwise: one for every n = 8 frames."""
        return max(1, int(self._lengths.sum()) // NEIGHBOURS)

    def draw(self, count: int, random: np.random.Generator) -> Draws:
        """Draw `count` windows in random order, exactly the background's share of them empty."""
        empty_count = round(count * self.background_share)
        chosen = random.integers(len(self._owners), size=count - empty_count)
        owners = self._owners[chosen]
        last = np.minimum(self._stops[chosen] + NEIGHBOURS // 2, self._lengths[owners])
        ends = random.integers(self._starts[chosen], last)
        if empty_count:
            picked = random.integers(len(self._empty_ends), size=empty_count)
            owners = np.concatenate([owners, self._empty_owners[picked]])
            ends = np.concatenate([ends, self._empty_ends[picked]])
        order = random.permutation(count)
        return Draws(owners[order], ends[order])


def texts_of_window(
    timeline: Timeline,
    end: int,
    *,
    extra_count: int,
    phrases: dict[str, tuple[str, ...]],
    random: np.random.Generator,
    background: str = BACKGROUND_TEXT,
) -> WindowTexts:
    """Choose the texts of the window whose current frame is `end` (paper.md, Training, Captions).

    whole (T_0): the caption with most of the n neighbours, of equal ones the earlier in the file.
    extra (T_1 …): other captions that overlap, by frames, then sentences made of T_0's
    verb–object phrases, in random order; as many as there are, at most `extra_count`.
    current: T_0 where it covers the current frame, else the longest that does, else background.
    """
    cover = timeline.cover(end - NEIGHBOURS + 1, end + 1)
    frames = cover.sum(axis=1)
    order = [int(i) for i in np.argsort(-frames, kind="stable") if frames[i]]
    if not order:
        return WindowTexts(background, background, (), np.zeros(NEIGHBOURS, np.bool_))
    whole = timeline.texts[order[0]]
    extra = list(dict.fromkeys(timeline.texts[i] for i in order))[1 : extra_count + 1]
    made = phrases.get(whole, ())
    missing = min(extra_count - len(extra), len(made))
    if missing > 0:
        extra += [made[i] for i in random.choice(len(made), size=missing, replace=False)]
    covering = [timeline.texts[i] for i in order if cover[i, -1]]
    current = covering[0] if covering else background
    return WindowTexts(whole, current, tuple(extra), np.logical_or.reduce(cover, axis=0))


def _background_ends(timeline: Timeline) -> IntArray:
    """List the current frames whose n neighbours all exist and lie in no caption."""
    covered = timeline.cover(0, timeline.length).any(axis=0)
    before = np.concatenate([[0], np.cumsum(covered)])
    stops = np.arange(NEIGHBOURS, timeline.length + 1)
    empty: IntArray = stops[before[stops] == before[stops - NEIGHBOURS]] - 1
    return empty


def _concatenate(parts: Sequence[IntArray]) -> IntArray:
    return np.concatenate([*parts, np.zeros(0, np.int64)]).astype(np.int64)
