"""From scored videos to one scorer's results: pool the frames, apply the metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ovoad_model.arrays import BoolArray, Float32Array
from ovoad_model.evaluation.scored import ScoredVideo, Truth
from ovoad_model.metrics import (
    EvaluationError,
    Latency,
    average_precision,
    background_rejection,
    calibrated_average_precision,
    first_correct,
    latency_to_first_correct,
    mean_of,
    per_stage_precision,
    stage_of_frames,
    top1,
)


@dataclass(frozen=True)
class LabelResult:
    """One label's numbers; None where no frame shows it (a distractor, an absent class)."""

    label: str
    frames: int
    average_precision: float | None
    calibrated_average_precision: float | None
    stages: tuple[float | None, ...]  # ten tenths of the action, in the headline metric


@dataclass(frozen=True)
class ScorerResult:
    """One scorer's numbers; shares are 0 to 1, times milliseconds."""

    scorer: str
    mean_average_precision: float | None
    mean_calibrated_average_precision: float | None
    stages: tuple[float | None, ...]
    top1: float | None
    background_rejection: float | None
    latency: Latency
    frames: int
    background_frames: int
    labels: tuple[LabelResult, ...]


@dataclass(frozen=True)
class Pool:
    """All counted frames of all videos, N of them."""

    ranked: Float32Array  # [N, C]
    probabilities: Float32Array  # [N, C]
    background: Float32Array  # [N]
    targets: BoolArray  # [N, C]
    stages: NDArray[np.int8]  # [N, C], the tenth of the label's instance that a frame lies in


def pool_frames(videos: Sequence[ScoredVideo]) -> Pool:
    """Join the counted frames of all videos."""
    if not videos:
        raise EvaluationError("found no videos, expected at least one")
    counted = [video.truth.counted for video in videos]
    pairs = list(zip(videos, counted, strict=True))
    ranked = np.concatenate([video.ranked[keep] for video, keep in pairs])
    if len(ranked) == 0:
        raise EvaluationError("found no frame that counts, expected at least one")
    shared = all(video.probabilities is video.ranked for video in videos)
    return Pool(
        ranked=ranked,
        probabilities=ranked
        if shared
        else np.concatenate([video.probabilities[keep] for video, keep in pairs]),
        background=np.concatenate([video.background[keep] for video, keep in pairs]),
        targets=np.concatenate([video.truth.targets[keep] for video, keep in pairs]),
        stages=np.concatenate([_stages(video.truth)[keep] for video, keep in pairs]),
    )


def judge(
    scorer: str, labels: Sequence[str], videos: Sequence[ScoredVideo], *, calibrated: bool
) -> ScorerResult:
    """Give all numbers of one scorer; `calibrated` chooses the metric of the stages."""
    pool = pool_frames(videos)
    per_label = tuple(
        _label_result(label, column, pool, calibrated=calibrated)
        for column, label in enumerate(labels)
    )
    stages = zip(*(result.stages for result in per_label), strict=True)
    return ScorerResult(
        scorer=scorer,
        mean_average_precision=mean_of([r.average_precision for r in per_label]),
        mean_calibrated_average_precision=mean_of(
            [r.calibrated_average_precision for r in per_label]
        ),
        stages=tuple(mean_of(values) for values in stages),
        top1=top1(pool.probabilities, pool.targets),
        background_rejection=background_rejection(
            pool.probabilities, pool.background, pool.targets
        ),
        latency=latency_to_first_correct(
            [delay for video in videos for delay in _delays_ms(video)]
        ),
        frames=len(pool.ranked),
        background_frames=int((~pool.targets.any(axis=1)).sum()),
        labels=per_label,
    )


def _label_result(label: str, column: int, pool: Pool, *, calibrated: bool) -> LabelResult:
    scores, truth = pool.ranked[:, column], pool.targets[:, column]
    frames = int(truth.sum())
    if frames == 0:
        return LabelResult(label, 0, None, None, (None,) * 10)
    stages = per_stage_precision(
        scores, truth, pool.stages[:, column].astype(np.int64), calibrated=calibrated
    )
    return LabelResult(
        label=label,
        frames=frames,
        average_precision=average_precision(scores, truth),
        calibrated_average_precision=calibrated_average_precision(scores, truth),
        stages=tuple(stages),
    )


def _stages(truth: Truth) -> NDArray[np.int8]:
    """Say in which tenth of its instance each frame lies: [L, C]; 0 outside instances."""
    stages = np.zeros(truth.targets.shape, np.int8)
    for instance in truth.instances:
        rows = slice(instance.first, instance.end)
        stages[rows, instance.label] = stage_of_frames(instance.end - instance.first)
    return stages


def _delays_ms(video: ScoredVideo) -> list[float | None]:
    """Give each instance's delay to its first correct frame; None where it has none."""
    truth = video.truth
    return [
        first_correct(
            video.probabilities[instance.first : instance.end],
            video.background[instance.first : instance.end],
            instance.label,
            truth.timestamps_ms[instance.first : instance.end],
        )
        for instance in truth.instances
        if instance.end > instance.first
    ]
