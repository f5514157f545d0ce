"""Pictures of an evaluation: what they show, without looking at pixels."""

from pathlib import Path

import numpy as np
import pytest

from ovoad_model.evaluation.judge import ScorerResult, judge
from ovoad_model.evaluation.plots import (
    SHOWN,
    draw_all,
    per_label_bars,
    precision_recall_curves,
    score_timeline,
)
from ovoad_model.evaluation.scored import ScoredVideo, Truth, instances_of
from ovoad_model.metrics import EvaluationError


def video(labels: int) -> ScoredVideo:
    """Draw a video in which every label but the last happens once."""
    generator = np.random.default_rng(0)
    targets = np.repeat(np.eye(labels, dtype=np.bool_), 4, axis=0)
    targets[:, -1] = False
    scores = (targets + generator.random(targets.shape)).astype(np.float32)
    probabilities = scores / (scores.sum(axis=1, keepdims=True) + 1)
    times = np.arange(len(targets), dtype=np.int64) * 250
    counted = np.ones(len(targets), np.bool_)
    truth = Truth("v", times, targets, counted, instances_of(targets))
    return ScoredVideo(truth, probabilities, probabilities, 1 - probabilities.sum(axis=1))


def judged(labels: int) -> tuple[list[str], ScorerResult, ScoredVideo]:
    names = [f"label {number}" for number in range(labels)]
    scored = video(labels)
    return names, judge("frame", names, [scored], calibrated=False), scored


def test_bars_show_the_labels_that_happen_and_their_mean() -> None:
    _, result, _ = judged(12)
    (axes,) = per_label_bars(result, calibrated=False).axes
    assert len(axes.patches) == 11
    widths = [bar.get_width() for bar in axes.patches]  # type: ignore[attr-defined]
    assert widths == sorted(widths)
    assert f"{result.mean_average_precision:.3f}" in axes.get_title()


def test_curves_name_as_many_labels_as_there_are_colours() -> None:
    names, result, scored = judged(12)
    (axes,) = precision_recall_curves(names, result, [scored]).axes
    assert len(axes.get_lines()) == 11
    legend = axes.get_legend()
    assert legend is not None
    assert len(legend.get_texts()) == SHOWN


def test_timeline_shows_other_labels_in_one_row() -> None:
    names, _, scored = judged(12)
    upper, lower = score_timeline(names, "frame", scored).axes
    assert len(upper.get_lines()) == SHOWN + 2  # background, the highest other label
    rows = [text.get_text() for text in lower.get_yticklabels()]
    assert len(rows) == SHOWN + 1
    assert rows[-1] == "other labels"


def test_timeline_of_few_labels_has_no_others() -> None:
    names, _, scored = judged(3)
    upper, lower = score_timeline(names, "frame", scored).axes
    assert len(upper.get_lines()) == 4
    assert [text.get_text() for text in lower.get_yticklabels()] == [names[0], names[1], names[2]]


def test_unknown_video_is_refused_by_name(tmp_path: Path) -> None:
    names, result, scored = judged(3)
    with pytest.raises(EvaluationError, match="found no video 'w' to draw, expected one of v"):
        draw_all(tmp_path, names, result, [scored], calibrated=False, timeline="w")
