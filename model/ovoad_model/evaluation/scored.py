"""Truth and scores of one video, frame by frame; knows no files.

Letters: L frames of a video, C labels, F the width of a feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ovoad_model.arrays import BoolArray, Float32Array
from ovoad_model.detector import Detector
from ovoad_model.vocabulary import Vocabulary

ScoreKind = Literal["probability", "similarity"]

BATCH = 256


@dataclass(frozen=True)
class Instance:
    """One action from its first frame to the frame before `end`; label is a column of targets."""

    label: int
    first: int
    end: int


@dataclass(frozen=True)
class Truth:
    """What happens in one video.

    timestamps_ms [L], strictly increasing; targets [L, C]; counted [L] is off where a frame is
    scored as part of the stream but left out of every metric (ambiguous frames).
    """

    video: str
    timestamps_ms: NDArray[np.int64]
    targets: BoolArray
    counted: BoolArray
    instances: tuple[Instance, ...]


@dataclass(frozen=True)
class ScoredVideo:
    """Truth with what one scorer said.

    ranked [L, C] is what average precision ranks: the probabilities or the raw similarities.
    probabilities [L, C] and background [L] share a softmax and sum to 1.
    """

    truth: Truth
    ranked: Float32Array
    probabilities: Float32Array
    background: Float32Array


def instances_of(targets: BoolArray) -> tuple[Instance, ...]:
    """Cut targets [L, C] into instances: the unbroken runs of each label, in time's order."""
    edges = np.diff(np.pad(targets.astype(np.int8), ((1, 1), (0, 0))), axis=0)
    found: list[Instance] = []
    for label in range(targets.shape[1]):
        starts = np.flatnonzero(edges[:, label] == 1)
        ends = np.flatnonzero(edges[:, label] == -1)
        found += [Instance(label, int(a), int(b)) for a, b in zip(starts, ends, strict=True)]
    return tuple(sorted(found, key=lambda instance: (instance.first, instance.label)))


def score_video(
    detector: Detector,
    words: Vocabulary,
    truth: Truth,
    features: Float32Array,
    *,
    kind: ScoreKind = "probability",
) -> ScoredVideo:
    """Stream features [L, F] through a window and score every frame, BATCH windows at a time.

    Each frame is pushed and viewed in turn, as the server does, so a score depends on frames up
    to its own alone; batching is over finished views and changes nothing.
    """
    window = detector.open_window()
    length, labels = truth.targets.shape
    ranked = np.empty((length, labels), np.float32)
    probabilities = ranked if kind == "probability" else np.empty_like(ranked)
    background = np.empty(length, np.float32)
    for start in range(0, length, BATCH):
        views = []
        for index in range(start, min(start + BATCH, length)):
            window.push(int(truth.timestamps_ms[index]), features[index])
            views.append(window.view())
        for index, scores in enumerate(detector.score(views, [words] * len(views)), start):
            probabilities[index] = scores.probabilities
            background[index] = scores.background
            if kind == "similarity":
                ranked[index] = scores.similarities
    return ScoredVideo(truth, ranked, probabilities, background)


def keep_labels(truth: Truth, kept: Sequence[int]) -> Truth:
    """Narrow the truth to some labels; frames of the others become frames without a label."""
    column = {label: new for new, label in enumerate(kept)}
    instances = tuple(
        Instance(column[instance.label], instance.first, instance.end)
        for instance in truth.instances
        if instance.label in column
    )
    targets = truth.targets[:, list(kept)]
    return Truth(truth.video, truth.timestamps_ms, targets, truth.counted, instances)
