"""Tests of the timeline and of its picture."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ovoad_client.errors import MissingExtraError, UsageError
from ovoad_client.plot import PlotError, _curve, check_plotting, draw_timeline, plain_text
from ovoad_client.protocol import Event, Prediction, SessionCreated, VocabularyUpdated
from ovoad_client.timeline import Span, Thinned, Timeline

MakePrediction = Callable[..., Prediction]


@pytest.fixture
def timeline(created: SessionCreated, predict: MakePrediction) -> Timeline:
    """Two seconds, a gap of two seconds, and one more second, at 25 frames/s."""
    timeline = Timeline(created, title="v.mp4")
    times = [*range(0, 2000, 40), *range(4000, 5000, 40)]
    for seq, time_ms in enumerate(times):
        timeline.update(predict(seq, time_ms, [0.5 + 0.4 * math.sin(time_ms / 500), 0.05]))
        jpeg = cv2.imencode(".jpg", np.full((36, 64, 3), time_ms // 20, np.uint8))[1]
        timeline.push_frame(time_ms, jpeg.tobytes())
    return timeline


def test_a_gap_is_known_and_no_line_crosses_it(timeline: Timeline) -> None:
    assert timeline.gaps() == [(1960, 4000)]
    seconds, values = _curve(timeline, "waving")
    broken = [time_s for time_s, value in zip(seconds, values, strict=True) if math.isnan(value)]
    assert len(broken) == 1
    assert 1.96 < broken[0] < 4.0
    assert seconds == sorted(seconds)


def test_slow_sources_have_no_gaps_between_their_frames(
    created: SessionCreated, predict: MakePrediction
) -> None:
    timeline = Timeline(created, title="slow")
    for seq in range(10):
        timeline.update(predict(seq, seq * 1000, [0.5, 0.1]))
    assert timeline.gaps() == []


def test_events_become_spans(timeline: Timeline) -> None:
    timeline.update(Event(kind="start", label="waving", timestamp_ms=400, probability=0.7))
    timeline.update(
        Event(kind="end", label="waving", timestamp_ms=1600, probability=0.2, start_ms=400)
    )
    timeline.update(
        Event(kind="start", label="jumping", timestamp_ms=4600, probability=0.7, start_ms=4200)
    )
    assert timeline.spans == [
        Span("waving", 400, 1600, False),
        Span("jumping", 4200, 4960, True),
    ]


def test_changed_words_are_followed(timeline: Timeline, predict: MakePrediction) -> None:
    timeline.update(VocabularyUpdated(vocabulary_version=2, labels=["sitting"], from_seq=90))
    timeline.update(predict(90, 5000, [0.9], vocabulary_version=2))
    assert timeline.labels == ["waving", "jumping", "sitting"]
    assert timeline.points[-1].probabilities == {"sitting": 0.9}


def test_memory_is_bounded_and_the_whole_time_stays_covered() -> None:
    thinned: Thinned[int] = Thinned(16)
    for number in range(10_000):
        thinned.push(number)
        assert len(thinned.items) < 16
    assert thinned.items[0] == 0
    assert thinned.items[-1] > 8_000
    assert len(set(np.diff(thinned.items))) == 1


@pytest.mark.parametrize("name", ["out.png", "new/folder/out.svg"])
def test_picture_is_written(timeline: Timeline, tmp_path: Path, name: str) -> None:
    timeline.update(Event(kind="start", label="waving", timestamp_ms=400, probability=0.7))
    path = tmp_path / name
    draw_timeline(timeline, path)
    assert path.stat().st_size > 10_000
    if path.suffix == ".png":
        image = cv2.imread(str(path))
        assert image is not None
        assert image.shape[1] > 1000


def test_strange_labels_do_not_break_the_picture(
    created: SessionCreated, predict: MakePrediction, tmp_path: Path
) -> None:
    labels = ["costs $5 or $6", "骑自行车", "_hidden", *(f"action {n}" for n in range(20))]
    timeline = Timeline(created.model_copy(update={"labels": labels}), title="$a_b")
    for seq in range(5):
        timeline.update(predict(seq, seq * 40, [0.04] * len(labels)))
    draw_timeline(timeline, tmp_path / "out.png")
    assert (tmp_path / "out.png").exists()


def test_formula_signs_are_shown_as_they_are() -> None:
    assert plain_text("from $5 to $6") == r"from \$5 to \$6"
    assert plain_text("_hidden") == "\u200b_hidden"


def test_the_likeliest_labels_are_drawn_when_there_are_many(
    created: SessionCreated, predict: MakePrediction
) -> None:
    labels = [f"action {number}" for number in range(20)]
    timeline = Timeline(created.model_copy(update={"labels": labels}), title="many")
    timeline.update(predict(0, 0, [0.3 if number in (3, 17) else 0.01 for number in range(20)]))
    assert timeline.likeliest(2) == ["action 3", "action 17"]


def test_nothing_to_draw_is_told(created: SessionCreated, tmp_path: Path) -> None:
    timeline = Timeline(created, title="empty")
    with pytest.raises(PlotError, match="found no prediction, expected at least one"):
        draw_timeline(timeline, tmp_path / "out.png")


@pytest.mark.parametrize("name", ["out.xyz", "out"])
def test_an_unknown_picture_format_is_told_beforehand(name: str) -> None:
    with pytest.raises(UsageError, match=rf"found picture '{name}', expected a name ending in .*"):
        check_plotting(Path(name))


def test_a_place_that_cannot_be_written_is_told(timeline: Timeline, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PlotError, match=r"cannot write '.*out\.png'"):
        draw_timeline(timeline, tmp_path / "file" / "out.png")


def test_without_matplotlib_the_extra_is_named(
    timeline: Timeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.backends.backend_agg", None)
    with pytest.raises(MissingExtraError, match=r"drawing the timeline needs the watch extra"):
        draw_timeline(timeline, tmp_path / "out.png")
