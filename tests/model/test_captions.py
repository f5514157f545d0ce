"""Timed captions: what is read, and how every bad line is named."""

import json
from pathlib import Path

import numpy as np
import pytest

from ovoad_model.training.captions import (
    Caption,
    CaptionError,
    LineProblem,
    check_against_features,
    read_captions,
    write_captions,
)
from ovoad_model.training.feature_store import FeatureStore

GOOD = {"video": "v", "start_ms": 0, "end_ms": 1000, "text": "a man runs"}


def write_lines(path: Path, *lines: object) -> Path:
    path.write_text("".join(f"{x if isinstance(x, str) else json.dumps(x)}\n" for x in lines))
    return path


def save(folder: Path, video: str, features: object) -> None:
    np.save(folder / f"{video}.npy", np.asarray(features))


def test_written_captions_are_read_back(tmp_path: Path) -> None:
    captions = [Caption("a", 0, 10, "läuft", line=1), Caption("b", 5, 2500, "a dog barks", line=2)]
    write_captions(tmp_path / "c.jsonl", captions)
    assert read_captions(tmp_path / "c.jsonl") == (captions, [])


def test_fractions_of_a_millisecond_widen_and_blank_lines_pass(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "c.jsonl", "", {**GOOD, "start_ms": 0.7, "end_ms": 0.9}, "  ")
    captions, problems = read_captions(path)
    assert captions == [Caption("v", 0, 1, "a man runs", line=2)]
    assert problems == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "found no JSON"),
        ("[1]", "found list, expected an object"),
        ({"video": "v", "start_ms": 0, "text": "x"}, "found no end_ms"),
        ({"video": "v"}, "found no start_ms and no end_ms and no text"),
        ({**GOOD, "start_ms": 9, "end_ms": 3}, "found start_ms 9 and end_ms 3, expected the end"),
        ({**GOOD, "end_ms": 0}, "expected the end after the start"),
        ({**GOOD, "start_ms": -1}, "found start_ms -1, expected 0 to 1000000000000"),
        ({**GOOD, "end_ms": float("nan")}, "found end_ms nan, expected 0 to 1000000000000"),
        (
            {**GOOD, "end_ms": 10**400},
            "found end_ms 1000000000000000000000000000000000000000, expected 0 to",
        ),
        ({**GOOD, "end_ms": "9"}, "found end_ms '9', expected a number"),
        ({**GOOD, "end_ms": None}, "found end_ms None, expected a number"),
        ({**GOOD, "end_ms": True}, "found end_ms True, expected a number"),
        ({**GOOD, "text": "  "}, "found text '  ', expected a sentence"),
        ({**GOOD, "text": 3}, "found text 3, expected a sentence"),
        ({**GOOD, "video": ""}, "found video '', expected a file name"),
        ({**GOOD, "video": "../v"}, "found video '../v', expected a file name"),
    ],
)
def test_a_bad_line_is_named_and_the_others_are_read(
    tmp_path: Path, line: object, reason: str
) -> None:
    path = write_lines(tmp_path / "c.jsonl", GOOD, line, GOOD)
    captions, (problem,) = read_captions(path)
    assert [caption.line for caption in captions] == [1, 3]
    assert str(problem).startswith(f"{path}:2: ")
    assert reason in problem.reason


def test_an_error_names_twenty_lines_and_keeps_all(tmp_path: Path) -> None:
    problems = [LineProblem(tmp_path / "c", line, "bad") for line in range(1, 24)]
    error = CaptionError(problems)
    assert len(error.problems) == 23
    assert str(error).count("bad") == 20
    assert str(error).endswith("… and 3 more")


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        (None, "found no such file"),
        (np.zeros((8, 5), np.float32), "found features 5 wide, expected 4"),
        (np.zeros(8, np.float32), "found shape (8,), expected [L, F]"),
        (np.zeros((0, 4), np.float32), "found shape (0, 4), expected [L, F]"),
        (np.zeros((8, 4), np.int64), "found no array of floats"),
        (np.where(np.arange(32).reshape(8, 4) == 21, np.nan, 0.0), "infinity in frame 5"),
        (np.where(np.arange(32).reshape(8, 4) == 3, np.inf, 0.0), "infinity in frame 0"),
    ],
)
def test_features_that_do_not_serve_are_named_with_the_line(
    tmp_path: Path, features: object, reason: str
) -> None:
    if features is not None:
        save(tmp_path, "v", features)
    captions = [Caption("v", 0, 1000, "a man runs", line=7)]
    good, (problem,) = check_against_features(
        Path("c.jsonl"), captions, FeatureStore(tmp_path, feature_width=4)
    )
    assert good == []
    assert str(problem).startswith(f"c.jsonl:7: {tmp_path / 'v.npy'}: ")
    assert reason in problem.reason


def test_a_file_that_is_no_array_is_named(tmp_path: Path) -> None:
    (tmp_path / "v.npy").write_bytes(b"no numpy")
    _, (problem,) = check_against_features(
        Path("c"), [Caption("v", 0, 9, "x")], FeatureStore(tmp_path, feature_width=4)
    )
    assert "found no .npy array" in problem.reason


def test_captions_outside_the_video_are_named(tmp_path: Path) -> None:
    save(tmp_path, "v", np.zeros((8, 4), np.float16))
    captions = [
        Caption("v", 0, 2000, "to the end", line=1),
        Caption("v", 500, 3000, "a second past it", line=2),
        Caption("v", 500, 3001, "further", line=3),
        Caption("v", 2000, 2500, "after it", line=4),
    ]
    good, problems = check_against_features(
        Path("c"), captions, FeatureStore(tmp_path, feature_width=4)
    )
    assert [caption.line for caption in good] == [1, 2]
    assert [problem.line for problem in problems] == [3, 4]
    assert problems[0].reason == "found 500 to 3001 ms, outside the video 'v' of 2000 ms"
