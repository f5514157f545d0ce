"""Metrics against scikit-learn and against the formulas written as slow loops."""

import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve

from ovoad_model.metrics import (
    STAGES,
    EvaluationError,
    average_precision,
    background_rejection,
    calibrated_average_precision,
    first_correct,
    latency_to_first_correct,
    mean_of,
    per_stage_precision,
    precision_recall,
    stage_of_frames,
    top1,
)

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def cases() -> list[Any]:
    generator = np.random.default_rng(0)
    found = []
    for number in range(20):
        length = int(generator.integers(1, 200))
        truth = generator.random(length) < generator.random()
        found.append(pytest.param(generator.normal(size=length), truth, id=f"random {number}"))
        tied = np.round(generator.random(length) * 4) / 4
        found.append(pytest.param(tied, truth, id=f"tied {number}"))
        found.append(pytest.param(np.full(length, 0.3), truth, id=f"constant {number}"))
    scores = generator.random(50)
    found.append(pytest.param(scores, np.zeros(50, np.bool_), id="absent"))
    found.append(pytest.param(scores, np.ones(50, np.bool_), id="single class"))
    found.append(pytest.param(scores, np.arange(50) == 7, id="one positive"))
    found.append(pytest.param(np.array([0.1]), np.array([True]), id="one frame"))
    tiny = scores.astype(np.float32) * np.float32(1e-30)
    found.append(pytest.param(tiny, scores > 0.8, id="tiny float32"))
    return found


@pytest.mark.parametrize(("scores", "truth"), cases())
def test_average_precision_agrees_with_scikit_learn(scores: Floats, truth: Bools) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns where no frame is positive
        expected = average_precision_score(truth, scores)
    assert average_precision(scores, truth) == pytest.approx(expected, abs=1e-12)


def slow_calibrated(scores: Floats, truth: Bools) -> float:
    """Write cAP as the formula stands: per positive, count by going through all frames."""
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if positives == 0:
        return 0.0
    if negatives == 0:
        return 1.0
    w = negatives / positives
    total = 0.0
    for threshold in scores[truth]:
        tp = sum(1 for s, t in zip(scores, truth, strict=True) if t and s >= threshold)
        fp = sum(1 for s, t in zip(scores, truth, strict=True) if not t and s >= threshold)
        total += w * tp / (w * tp + fp)
    return total / positives


@pytest.mark.parametrize(("scores", "truth"), cases())
def test_calibrated_average_precision_agrees_with_the_formula(scores: Floats, truth: Bools) -> None:
    expected = slow_calibrated(scores, truth)
    assert calibrated_average_precision(scores, truth) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("positives", [1, 5, 50, 99])
def test_constant_scores_give_a_calibrated_half(positives: int) -> None:
    truth = np.arange(100) < positives
    assert calibrated_average_precision(np.zeros(100), truth) == pytest.approx(0.5)


def test_calibration_takes_the_share_of_positives_out() -> None:
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    truth = np.array([True, False, True, False])
    rare = calibrated_average_precision(
        np.concatenate([scores, np.repeat(scores[~truth], 9)]),
        np.concatenate([truth, np.zeros(18, np.bool_)]),
    )
    assert rare == pytest.approx(calibrated_average_precision(scores, truth))


@pytest.mark.parametrize(("scores", "truth"), cases())
def test_order_of_frames_never_matters(scores: Floats, truth: Bools) -> None:
    order = np.random.default_rng(1).permutation(len(scores))
    stages = np.arange(len(scores)) % STAGES
    for metric in (average_precision, calibrated_average_precision):
        assert metric(scores, truth) == metric(scores[order], truth[order])
    assert per_stage_precision(scores, truth, stages, calibrated=True) == per_stage_precision(
        scores[order], truth[order], stages[order], calibrated=True
    )


def test_precision_recall_agrees_with_scikit_learn() -> None:
    generator = np.random.default_rng(2)
    scores, truth = np.round(generator.random(300), 2), generator.random(300) < 0.2
    curve = precision_recall(scores, truth)
    precision, recall, thresholds = precision_recall_curve(truth, scores)
    np.testing.assert_allclose(curve.thresholds, thresholds[::-1])
    np.testing.assert_allclose(curve.precision, precision[:-1][::-1])
    np.testing.assert_allclose(curve.recall, recall[:-1][::-1])


def test_stages_cut_an_instance_into_tenths() -> None:
    assert stage_of_frames(10).tolist() == list(range(10))
    assert stage_of_frames(30).tolist() == [i // 3 for i in range(30)]
    assert stage_of_frames(5).tolist() == [1, 3, 5, 7, 9]
    assert stage_of_frames(1).tolist() == [5]
    assert stage_of_frames(0).tolist() == []


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_stage_is_its_positives_against_all_negatives(calibrated: bool) -> None:
    generator = np.random.default_rng(3)
    scores, truth = generator.random(200), generator.random(200) < 0.3
    stages = np.where(truth, np.arange(200) % 9, 0)  # the last tenth stays empty
    found = per_stage_precision(scores, truth, stages, calibrated=calibrated)
    metric = calibrated_average_precision if calibrated else average_precision
    for stage in range(9):
        keep = ~truth | (stages == stage)
        assert found[stage] == pytest.approx(metric(scores[keep], truth[keep]))
    assert found[9] is None


def test_top1_counts_labelled_frames_alone_and_shares_ties() -> None:
    truth = np.array([[True, False], [False, True], [False, False], [True, True]])
    scores = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.5, 0.5]])
    assert top1(scores, truth) == pytest.approx(2 / 3)
    assert top1(np.zeros((4, 2)), truth) == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert top1(scores[2:3], truth[2:3]) is None


def test_background_rejection_asks_that_background_beat_every_label() -> None:
    truth = np.array([[True, False], [False, False], [False, False], [False, False]])
    scores = np.array([[0.1, 0.1], [0.2, 0.3], [0.4, 0.1], [0.3, 0.3]])
    background = np.array([0.9, 0.5, 0.4, 0.31])
    assert background_rejection(scores, background, truth) == pytest.approx(2 / 3)
    assert background_rejection(scores[:1], background[:1], truth[:1]) is None


def test_latency_counts_from_the_first_frame_to_the_first_clear_win() -> None:
    scores = np.array([[0.2, 0.5], [0.4, 0.4], [0.5, 0.3], [0.1, 0.0]])
    background = np.array([0.3, 0.2, 0.4, 0.0])
    timestamps_ms = np.array([1000, 1250, 1500, 1750])
    assert first_correct(scores, background, 0, timestamps_ms) == 500.0
    assert first_correct(scores, background, 1, timestamps_ms) == 0.0
    assert first_correct(scores, np.ones(4), 1, timestamps_ms) is None
    assert first_correct(scores[:, :1], np.full(4, 0.3), 0, timestamps_ms) == 250.0


def test_latency_summary_keeps_the_missed_instances_apart() -> None:
    latency = latency_to_first_correct([0.0, None, 500.0, 1000.0])
    assert (latency.instances, latency.recognised) == (4, 3)
    assert (latency.median_ms, latency.mean_ms) == (500.0, 500.0)
    assert latency_to_first_correct([None]).median_ms is None


def test_mean_leaves_absent_classes_out() -> None:
    assert mean_of([0.5, None, 1.0]) == 0.75
    assert mean_of([None]) is None


def refused(scores: Any, truth: Any) -> str:
    for metric in (average_precision, calibrated_average_precision, precision_recall):
        with pytest.raises(EvaluationError) as caught:
            metric(scores, truth)
    return str(caught.value)


def test_nan_is_refused_with_its_place() -> None:
    assert refused(np.array([0.1, np.nan, np.inf]), np.array([True, False, False])) == (
        "found 2 scores that are NaN or infinite (the first at frame 1), expected finite numbers"
    )


def test_scores_and_truth_of_other_shapes_are_refused() -> None:
    assert refused(np.zeros(3), np.zeros(2, np.bool_)) == (
        "found scores of shape (3,) and truth of shape (2,), "
        "expected one score and one truth per frame"
    )


def test_no_frames_are_refused() -> None:
    assert refused(np.zeros(0), np.zeros(0, np.bool_)) == "found no frames, expected at least one"


def test_truth_in_numbers_is_refused() -> None:
    assert refused(np.zeros(2), np.array([0, 2])) == "found truth of type int64, expected bool"
