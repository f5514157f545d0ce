"""A whole video's scores: frames in, every sampled frame's probabilities out. Knows no file.

The numbers are those that the same frames get live, one after the other.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np

from ovoad_model.arrays import Float32Array, Frame
from ovoad_model.detector import Detector, Scores
from ovoad_model.vocabulary import Vocabulary

FRAMES_AT_ONCE: Final = 16


@dataclass(frozen=True)
class VideoScores:
    """T frames' times and scores: probabilities [T, C], background [T], similarities [T, C]."""

    timestamps_ms: tuple[int, ...]
    probabilities: Float32Array
    background: Float32Array
    similarities: Float32Array


def score_frames(
    detector: Detector, vocabulary: Vocabulary, frames: Iterable[tuple[int, Frame]]
) -> VideoScores:
    """Score a video's frames (timestamp_ms, RGB [H, W, 3]), some at a time."""
    times: list[int] = []
    scores: list[Scores] = []
    window = detector.open_window()
    for part in _parts(frames):
        views = []
        features = detector.encode([frame for _, frame in part])
        for (timestamp_ms, _), feature in zip(part, features, strict=True):
            window.push(timestamp_ms, feature)
            views.append(window.view())
        scores += detector.score(views, [vocabulary] * len(views))
        times += [timestamp_ms for timestamp_ms, _ in part]
    empty = np.empty((0, len(vocabulary.labels)), np.float32)
    return VideoScores(
        timestamps_ms=tuple(times),
        probabilities=np.stack([each.probabilities for each in scores]) if scores else empty,
        background=np.array([each.background for each in scores], np.float32),
        similarities=np.stack([each.similarities for each in scores]) if scores else empty,
    )


def _parts(frames: Iterable[tuple[int, Frame]]) -> Iterator[list[tuple[int, Frame]]]:
    """Cut frames into lists of some."""
    rest = iter(frames)
    while part := list(islice(rest, FRAMES_AT_ONCE)):
        yield part
