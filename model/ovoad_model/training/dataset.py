"""Training batches: windows of features and the texts that belong to them, as numpy arrays.

Everything follows from (seed, epoch, row), so that a run can stop and go on anywhere, and several
processes can share a batch by rows. Knows no network and no torch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ovoad_model.arrays import BoolArray, Float32Array
from ovoad_model.training.windows import (
    BACKGROUND_TEXT,
    Draws,
    IntArray,
    Timeline,
    WindowSampler,
    WindowTexts,
    texts_of_window,
)
from ovoad_model.window import PAST, SLOTS

ReadRows = Callable[[str, int, int], Float32Array]
"""Reads the features [stop - start, F] of a video's frames start to stop - 1."""


@dataclass(frozen=True)
class Batch:
    """B windows and their texts; texts are row numbers of the data set's `texts`.

    past [B, 24, F], neighbours [B, 8, F] with masks (True = a frame is there); whole [B] (T_0),
    current [B], extra [B, M] with extra_mask [B, M]; inside [B, 8]: which neighbours lie in a
    caption (M_GT).
    """

    past: Float32Array
    past_mask: BoolArray
    neighbours: Float32Array
    neighbours_mask: BoolArray
    whole: IntArray
    current: IntArray
    extra: IntArray
    extra_mask: BoolArray
    inside: BoolArray

    def __len__(self) -> int:
        return len(self.whole)


class WindowDataset:
    """Cut training windows from timelines, an epoch at a time."""

    def __init__(
        self,
        timelines: Sequence[Timeline],
        read_rows: ReadRows,
        *,
        feature_width: int,
        background_share: float = 0.2,
        extra_count: int = 2,
        windows_per_epoch: int | None = None,
        phrases: dict[str, tuple[str, ...]] | None = None,
        seed: int = 0,
    ) -> None:
        self._timelines = tuple(timelines)
        self._read_rows = read_rows
        self._feature_width = feature_width
        self._sampler = WindowSampler(timelines, background_share)
        self._phrases = phrases or {}
        self._seed = seed
        self.background_share = self._sampler.background_share
        self.extra_count = extra_count
        self.windows_per_epoch = windows_per_epoch or self._sampler.default_count
        self.texts = self._all_texts()
        self._text_rows = {text: row for row, text in enumerate(self.texts)}

    def draw(self, epoch: int) -> Draws:
        """Draw an epoch's windows; the same ones each time."""
        random = np.random.default_rng([self._seed, epoch])
        return self._sampler.draw(self.windows_per_epoch, random)

    def batch(self, draws: Draws, epoch: int, rows: Sequence[int]) -> Batch:
        """Read the windows and texts of some rows of an epoch's draws."""
        count = len(rows)
        features = np.zeros((count, SLOTS, self._feature_width), np.float32)
        mask = np.zeros((count, SLOTS), np.bool_)
        texts = []
        for place, row in enumerate(rows):
            timeline = self._timelines[draws.videos[row]]
            end = int(draws.ends[row])
            start = max(0, end - SLOTS + 1)
            held = end + 1 - start
            features[place, SLOTS - held :] = self._read_rows(timeline.video, start, end + 1)
            mask[place, SLOTS - held :] = True
            texts.append(self._texts_of(timeline, end, epoch, row))
        return self._join(features, mask, texts)

    def _texts_of(self, timeline: Timeline, end: int, epoch: int, row: int) -> WindowTexts:
        return texts_of_window(
            timeline,
            end,
            extra_count=self.extra_count,
            phrases=self._phrases,
            random=np.random.default_rng([self._seed, epoch, row]),
        )

    def _join(self, features: Float32Array, mask: BoolArray, texts: list[WindowTexts]) -> Batch:
        extra = np.zeros((len(texts), self.extra_count), np.int64)
        extra_mask = np.zeros(extra.shape, np.bool_)
        for place, found in enumerate(texts):
            extra[place, : len(found.extra)] = [self._text_rows[text] for text in found.extra]
            extra_mask[place, : len(found.extra)] = True
        neighbours_mask = mask[:, PAST:]
        return Batch(
            past=features[:, :PAST],
            past_mask=mask[:, :PAST],
            neighbours=features[:, PAST:],
            neighbours_mask=neighbours_mask,
            whole=np.array([self._text_rows[found.whole] for found in texts], np.int64),
            current=np.array([self._text_rows[found.current] for found in texts], np.int64),
            extra=extra,
            extra_mask=extra_mask,
            inside=np.stack([found.inside for found in texts]) & neighbours_mask,
        )

    def _all_texts(self) -> tuple[str, ...]:
        """List every text that can come up, each once: background, captions, made sentences."""
        captions = [text for timeline in self._timelines for text in timeline.texts]
        made = [text for caption in captions for text in self._phrases.get(caption, ())]
        return tuple(dict.fromkeys([BACKGROUND_TEXT, *captions, *made]))
