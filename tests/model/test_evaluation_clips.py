"""Clips stitched into streams: cut points, order, distractors, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from ovoad_model.evaluation.clips import (
    Clip,
    default_distractors,
    keep_apart,
    labels_of,
    read_clips,
    read_words,
    stitch,
    without_doubles,
)
from ovoad_model.evaluation.encoded import EncodedVideo
from ovoad_model.evaluation.scored import Instance
from ovoad_model.metrics import EvaluationError


def folder(tmp_path: Path, entries: object, *files: str) -> Path:
    (tmp_path / "labels.json").write_text(json.dumps(entries), encoding="utf-8")
    for file in files:
        (tmp_path / file).touch()
    return tmp_path


def encoded(*timestamps_ms: int) -> EncodedVideo:
    times = np.array(timestamps_ms, np.int64)
    return EncodedVideo(times, np.zeros((len(times), 4), np.float32))


def test_clips_come_in_the_order_of_file_names(tmp_path: Path) -> None:
    entries = {"b.mp4": {"label": None}, "a.mp4": {"label": " playing  drums ", "source": "x"}}
    clips = read_clips(folder(tmp_path, entries, "a.mp4", "b.mp4"))
    assert clips == (Clip(tmp_path / "a.mp4", "playing drums"), Clip(tmp_path / "b.mp4", None))
    assert labels_of(clips) == ("playing drums",)


def test_seventeen_distractors_ship_with_the_package() -> None:
    assert len(set(default_distractors())) == 17


def test_words_files_may_have_comments() -> None:
    assert read_words("# one a line\nknitting \n\n skiing") == ("knitting", "skiing")


def test_distractors_that_a_clip_shows_are_left_out() -> None:
    distractors = ["playing the piano", "Knitting", "skiing"]
    assert without_doubles(distractors, ["playing piano", "knitting"]) == ("skiing",)


CLIPS = (Clip(Path("a"), "x"), Clip(Path("b"), None), Clip(Path("c"), "y"))
VIDEOS = (encoded(0, 250, 500), encoded(0, 240, 510, 745), encoded(0))


def test_stitched_clips_begin_on_the_grid_and_keep_their_own_times() -> None:
    (stream,) = stitch(CLIPS, VIDEOS, ["x", "y"], seed=0, streams=1)
    order = [int(row) for row in stream.rows if row in (0, 3, 7)]
    assert len(stream.rows) == 8
    assert sorted(stream.rows.tolist()) == list(range(8))
    start_ms = 0
    times = stream.truth.timestamps_ms
    for row in order:
        length = {0: 3, 3: 4, 7: 1}[row]
        at = stream.rows.tolist().index(row)
        own = VIDEOS[{0: 0, 3: 1, 7: 2}[row]].timestamps_ms
        np.testing.assert_array_equal(times[at : at + length], own + start_ms)
        start_ms += {0: 750, 3: 1000, 7: 250}[row]
    assert np.all(np.diff(times) > 0)


def test_truth_knows_the_cut_points() -> None:
    (stream,) = stitch(CLIPS, VIDEOS, ["x", "distractor", "y"], seed=0, streams=1)
    at = {label: stream.rows.tolist().index(row) for label, row in ((0, 0), (2, 7))}
    expected = {Instance(0, at[0], at[0] + 3), Instance(2, at[2], at[2] + 1)}
    assert set(stream.truth.instances) == expected
    assert stream.truth.targets.sum(axis=0).tolist() == [3, 0, 1]
    assert stream.truth.counted.all()


def test_streams_differ_and_the_seed_repeats_them() -> None:
    clips = [Clip(Path(str(i)), "x") for i in range(8)]
    videos = [encoded(0, 250) for _ in clips]
    first = stitch(clips, videos, ["x"], seed=1, streams=3)
    again = stitch(clips, videos, ["x"], seed=1, streams=3)
    other = stitch(clips, videos, ["x"], seed=2, streams=3)
    orders = [tuple(stream.rows.tolist()) for stream in first]
    assert len(set(orders)) == 3
    assert orders == [tuple(stream.rows.tolist()) for stream in again]
    assert orders != [tuple(stream.rows.tolist()) for stream in other]


def test_clips_kept_apart_are_streams_of_their_own() -> None:
    streams = keep_apart(CLIPS, VIDEOS, ["x", "y"])
    assert [stream.truth.video for stream in streams] == ["a", "b", "c"]
    assert [stream.rows.tolist() for stream in streams] == [[0, 1, 2], [3, 4, 5, 6], [7]]
    assert streams[0].truth.instances == (Instance(0, 0, 3),)
    assert streams[1].truth.timestamps_ms.tolist() == [0, 240, 510, 745]


def test_two_clips_of_one_label_in_a_row_are_two_instances() -> None:
    clips = [Clip(Path("a"), "x"), Clip(Path("b"), "x")]
    (stream,) = stitch(clips, [encoded(0, 250), encoded(0)], ["x"], seed=0, streams=1)
    assert len(stream.truth.instances) == 2


def test_clips_whose_label_is_not_asked_for_become_background() -> None:
    (stream,) = stitch(CLIPS, VIDEOS, ["y"], seed=0, streams=1)
    assert stream.truth.targets.sum() == 1


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, 'labels.json: found no clips, expected {file: {"label": ..}}'),
        ([1], 'labels.json: found no clips, expected {file: {"label": ..}}'),
        ({"a.mp4": "x"}, "labels.json: a.mp4: found 'x', expected {\"label\": ..}"),
        ({"a.mp4": {}}, 'labels.json: a.mp4: found {}, expected {"label": ..}'),
        (
            {"a.mp4": {"label": " "}},
            "labels.json: a.mp4: found label ' ', expected words or null",
        ),
        ({"a.mp4": {"label": 3}}, "labels.json: a.mp4: found label 3, expected words or null"),
        ({"gone.mp4": {"label": "x"}}, "labels.json: found no gone.mp4 beside it"),
        (
            {"a.mp4": {"label": None}},
            "labels.json: found no clip with a label, expected at least one",
        ),
    ],
)
def test_bad_labels_are_named(tmp_path: Path, entries: object, message: str) -> None:
    with pytest.raises(EvaluationError) as caught:
        read_clips(folder(tmp_path, entries, "a.mp4"))
    assert str(caught.value) == f"{tmp_path}/{message}"


def test_missing_and_broken_labels_are_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"labels\.json, expected one that names the clips"):
        read_clips(tmp_path)
    (tmp_path / "labels.json").write_text("{")
    with pytest.raises(EvaluationError, match=r"labels\.json: found no readable JSON"):
        read_clips(tmp_path)
