"""Segments from a CSV: how they become truth, and which lines are refused."""

from pathlib import Path

import numpy as np
import pytest

from ovoad_model.evaluation.scored import Instance
from ovoad_model.evaluation.segments import read_segments, truth_of
from ovoad_model.metrics import EvaluationError

HEADER = "video,start_s,end_s,label\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "segments.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_become_segments_and_a_bare_video_is_all_background(tmp_path: Path) -> None:
    rows = 'a.mp4, 1.5, 3,"pouring tea"\n\nb.mp4,,,\na.mp4,0,1,drinking\n'
    path = written(tmp_path, "\ufeff" + HEADER + rows)
    found = read_segments(path)
    assert found.videos == ("a.mp4", "b.mp4")
    assert found.labels == ("drinking", "pouring tea")
    first = found.segments[0]
    assert (first.start_s, first.end_s, first.label, first.line) == (1.5, 3.0, "pouring tea", 2)


def test_a_frame_belongs_from_start_up_to_before_end(tmp_path: Path) -> None:
    found = read_segments(written(tmp_path, HEADER + "a,0.5,1,x\na,0.75,9,y\na,1.1,1.2,x\n"))
    timestamps_ms = np.arange(8) * 250
    truth = truth_of("a", found.segments, found.labels, timestamps_ms)
    assert truth.targets[:, 0].tolist() == [False, False, True, True] + [False] * 4
    assert truth.targets[:, 1].tolist() == [False] * 3 + [True] * 5
    # The third segment falls between two frames: it has none and is no instance.
    assert truth.instances == (Instance(0, 2, 4), Instance(1, 3, 8))
    assert not truth_of("b", found.segments, found.labels, timestamps_ms).targets.any()


def test_a_segment_after_the_video_is_refused_by_line(tmp_path: Path) -> None:
    found = read_segments(written(tmp_path, HEADER + "a,0,1,x\na,2,3,x\n"))
    with pytest.raises(EvaluationError) as caught:
        truth_of("a", found.segments, found.labels, np.arange(4) * 250)
    assert str(caught.value) == "line 3: found start_s 2, expected at most the 0.75 s of a"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,start,end,label\n", "line 1: found video,start,end,label, expected video,start_s,"),
        ("", "line 1: found nothing, expected video,start_s,end_s,label"),
        (HEADER, "found no segment, expected at least one"),
        (HEADER + "a,1,x\n", "line 2: found a,1,x, expected video,start_s,end_s,label"),
        (HEADER + "a,3,1,x\n", "line 2: found end_s 1, expected more than start_s 3"),
        (HEADER + "a,1,1,x\n", "line 2: found end_s 1, expected more than start_s 1"),
        (HEADER + "a,-1,1,x\n", "line 2: found start_s '-1', expected seconds, 0 or more"),
        (HEADER + "a,nan,1,x\n", "line 2: found start_s 'nan', expected seconds, 0 or more"),
        (HEADER + "a,0,,x\n", "line 2: found end_s '', expected seconds, 0 or more"),
        (HEADER + "a,0,1,\n", "line 2: found no label, expected some words"),
        (HEADER + ",0,1,x\n", "line 2: found ,0,1,x, expected video,start_s,end_s,label"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(EvaluationError) as caught:
        read_segments(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"none\.csv: found no readable CSV"):
        read_segments(tmp_path / "none.csv")
