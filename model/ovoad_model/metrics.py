"""Per-frame metrics of online action detection, in numpy alone; knows no files, no models.

Letters: N frames, C classes, P positive frames, M negative frames. Every metric is a function of
the *set* of (score, truth) pairs: equal scores share one threshold and the order of the frames
never matters. A score that is NaN or infinite is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovoad_model.arrays import BoolArray
from ovoad_model.errors import ModelError

Float64Array = NDArray[np.float64]
FloatArray = NDArray[np.floating[Any]]

STAGES = 10


class EvaluationError(ModelError):
    """Say what an evaluation found and what it expected."""


@dataclass(frozen=True)
class RankedCounts:
    """Count, for each positive, what scores at least as high as it does.

    Both averages below are means over the positives of a precision at each one's own threshold;
    that is scikit-learn's sum of (recall step x precision), because a threshold shared by k equal
    positives makes a recall step of k/P.
    """

    true_positives: Float64Array  # [P], positives at or above the positive's score
    false_positives: Float64Array  # [P], negatives at or above it
    negatives: int


def ranked_counts(positive_scores: FloatArray, negative_scores: FloatArray) -> RankedCounts:
    """Count true and false positives at each positive's threshold.

    positive_scores [P], negative_scores [M], in any order. O((P + M) log M).
    """
    positives = np.sort(positive_scores)
    negatives = np.sort(negative_scores)
    return RankedCounts(
        true_positives=(len(positives) - np.searchsorted(positives, positives, "left")).astype(
            np.float64
        ),
        false_positives=(len(negatives) - np.searchsorted(negatives, positives, "left")).astype(
            np.float64
        ),
        negatives=len(negatives),
    )


def average_precision(scores: FloatArray, truth: BoolArray) -> float:
    """Give the area under the precision-recall steps, as scikit-learn defines it.

    scores [N], truth [N]. 0 where no frame is positive, as scikit-learn has it; a mean over
    classes leaves such a class out (`mean_of`).
    """
    scores, truth = checked(scores, truth)
    return precision_of(ranked_counts(scores[truth], scores[~truth]), calibrated=False)


def calibrated_average_precision(scores: FloatArray, truth: BoolArray) -> float:
    """Give average precision as if positives and negatives were equally many.

    cPrec = w TP / (w TP + FP) with w = negatives / positives; cAP is its mean over the positives
    (De Geest et al. 2016; paper.md, "Calibrated AP"). Constant scores give 0.5; 0 where no frame
    is positive, 1 where no frame is negative.
    """
    scores, truth = checked(scores, truth)
    return precision_of(ranked_counts(scores[truth], scores[~truth]), calibrated=True)


def precision_of(counts: RankedCounts, *, calibrated: bool) -> float:
    """Average the precision (or the calibrated one) over the positives; 0 without positives."""
    positives = len(counts.true_positives)
    if positives == 0:
        return 0.0
    weight = counts.negatives / positives if calibrated and counts.negatives else 1.0
    weighted = weight * counts.true_positives
    return float(np.mean(weighted / (weighted + counts.false_positives)))


def checked(scores: FloatArray, truth: BoolArray) -> tuple[Float64Array, BoolArray]:
    """Refuse scores that have no order and truths that do not match them."""
    numbers: Float64Array = np.asarray(scores, dtype=np.float64)
    if numbers.ndim != 1 or numbers.shape != truth.shape:
        raise EvaluationError(
            f"found scores of shape {numbers.shape} and truth of shape {truth.shape}, "
            "expected one score and one truth per frame"
        )
    if truth.dtype != np.bool_:
        raise EvaluationError(f"found truth of type {truth.dtype}, expected bool")
    if len(numbers) == 0:
        raise EvaluationError("found no frames, expected at least one")
    bad = ~np.isfinite(numbers)
    if bad.any():
        first = int(np.argmax(bad))
        raise EvaluationError(
            f"found {int(bad.sum())} scores that are NaN or infinite (the first at frame {first}), "
            "expected finite numbers"
        )
    return numbers, truth


@dataclass(frozen=True)
class PrecisionRecall:
    """Hold one class's curve, one point per distinct score, from the highest score down."""

    precision: Float64Array  # [T]
    recall: Float64Array  # [T]
    thresholds: Float64Array  # [T]


def precision_recall(scores: FloatArray, truth: BoolArray) -> PrecisionRecall:
    """Give precision and recall at every distinct score; scores [N], truth [N]."""
    scores, truth = checked(scores, truth)
    thresholds = np.unique(scores)[::-1]
    positives, negatives = np.sort(scores[truth]), np.sort(scores[~truth])
    hits = len(positives) - np.searchsorted(positives, thresholds, "left")
    misses = len(negatives) - np.searchsorted(negatives, thresholds, "left")
    recall = hits / len(positives) if len(positives) else np.ones(len(thresholds))
    return PrecisionRecall(hits / (hits + misses), recall, thresholds)


def stage_of_frames(length: int) -> NDArray[np.int64]:
    """Say in which tenth of an instance each of its frames lies: [length], values 0 to 9.

    A frame belongs to the tenth that holds its middle, so short instances fill stages evenly
    (one of 5 frames: stages 1, 3, 5, 7, 9).
    """
    return ((2 * np.arange(length, dtype=np.int64) + 1) * STAGES) // (2 * length)


def per_stage_precision(
    scores: FloatArray, truth: BoolArray, stages: NDArray[np.int64], *, calibrated: bool
) -> list[float | None]:
    """Give average precision for each tenth of the action: its positives against all negatives.

    scores [N], truth [N], stages [N] (0 to 9 where truth holds, ignored elsewhere). None for a
    stage without a positive frame.
    """
    scores, truth = checked(scores, truth)
    negatives = np.sort(scores[~truth])
    values: list[float | None] = []
    for stage in range(STAGES):
        positives = scores[truth & (stages == stage)]
        counts = ranked_counts(positives, negatives)
        values.append(precision_of(counts, calibrated=calibrated) if len(positives) else None)
    return values


def mean_of(values: Sequence[float | None]) -> float | None:
    """Average the values that are there; None where none is."""
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None


def top1(scores: FloatArray, truth: BoolArray) -> float | None:
    """Give the share of frames with a label whose highest-scored label is one of theirs.

    scores [N, C], truth [N, C]. A tie at the top counts by the share of the tied labels that are
    right, so the order of the labels never matters. None where no frame has a label.
    """
    labelled = truth.any(axis=1)
    if not labelled.any():
        return None
    scores, truth = scores[labelled], truth[labelled]
    top = scores == scores.max(axis=1, keepdims=True)
    return float(np.mean((top & truth).sum(axis=1) / top.sum(axis=1)))


def background_rejection(
    scores: FloatArray, background: FloatArray, truth: BoolArray
) -> float | None:
    """Give the share of frames without a label in which background beats every label.

    scores [N, C], background [N], truth [N, C]. None where every frame has a label.
    """
    unlabelled = ~truth.any(axis=1)
    if not unlabelled.any():
        return None
    beaten = background[unlabelled] > scores[unlabelled].max(axis=1)
    return float(np.mean(beaten))


@dataclass(frozen=True)
class Latency:
    """Say how soon instances were first recognised."""

    instances: int
    recognised: int
    median_ms: float | None  # over the recognised instances
    mean_ms: float | None


def latency_to_first_correct(delays_ms: Sequence[float | None]) -> Latency:
    """Summarise delays from an instance's start to its first correct frame; None = never."""
    present = [delay for delay in delays_ms if delay is not None]
    return Latency(
        instances=len(delays_ms),
        recognised=len(present),
        median_ms=float(np.median(present)) if present else None,
        mean_ms=float(np.mean(present)) if present else None,
    )


def first_correct(
    scores: FloatArray, background: FloatArray, label: int, timestamps_ms: NDArray[np.int64]
) -> float | None:
    """Give the milliseconds until `label` first beats every other label and background.

    scores [L, C], background [L], timestamps_ms [L] of one instance's frames, in time's order;
    counted from the first of them. None where it never does.
    """
    own = scores[:, label]
    others = np.delete(scores, label, axis=1)
    rival = np.maximum(background, others.max(axis=1)) if others.shape[1] else background
    correct = own > rival
    if not correct.any():
        return None
    return float(timestamps_ms[int(np.argmax(correct))] - timestamps_ms[0])
