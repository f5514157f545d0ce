"""The field's annotation files become timed captions."""

import json
import math
from pathlib import Path

import pytest

from ovoad_model.training.captions import Caption
from ovoad_model.training.converters import (
    AnnotationError,
    convert_activitynet,
    convert_activitynet_captions,
    convert_internvid,
)


def save(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def activitynet(path: Path, *annotations: object, subset: str = "training") -> Path:
    entry = {"subset": subset, "duration": 60.0, "annotations": list(annotations), "url": "…"}
    other = {"subset": "validation", "annotations": [{"segment": [0, 1], "label": "Surfing"}]}
    return save(path, {"database": {"abc": entry, "def": other}, "taxonomy": [], "version": "1.3"})


def test_class_tags_become_sentences(tmp_path: Path) -> None:
    path = activitynet(
        tmp_path / "a.json",
        {"segment": [1.5, 20.0625], "label": "Drinking coffee"},
        {"segment": [30, 40], "label": "Long jump"},
    )
    found = convert_activitynet(path)
    assert found.captions == [
        Caption("v_abc", 1500, 20062, "a video of a person drinking coffee"),
        Caption("v_abc", 30000, 40000, "a video of a person long jump"),
    ]
    assert found.problems == []


def test_subset_template_and_prefix_can_be_chosen(tmp_path: Path) -> None:
    path = activitynet(tmp_path / "a.json")
    found = convert_activitynet(path, subset="validation", template="{} now", video_prefix="")
    assert found.captions == [Caption("def", 0, 1000, "surfing now")]


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ({"segment": [5, 2], "label": "Surfing"}, "found segment [5, 2], expected the end after"),
        ({"segment": [5], "label": "Surfing"}, "found segment [5], expected [start, end]"),
        ({"label": "Surfing"}, "found segment None, expected [start, end]"),
        ({"segment": [0, math.inf], "label": "A"}, "found segment [0, inf], expected [start, end]"),
        ({"segment": [math.nan, 1], "label": "A"}, "found segment [nan, 1], expected [start, end]"),
        ({"segment": [1, 1e307], "label": "A"}, "found segment [1, 1e+307], expected [start, end]"),
        ({"segment": [1, 10**400], "label": "A"}, "expected [start, end] in seconds"),
        ({"segment": [1, 2]}, "found text None, expected a sentence"),
        ({"segment": [1, 2], "label": " "}, "found text ' ', expected a sentence"),
        ("Surfing", "found segment None"),
    ],
)
def test_an_annotation_that_is_none_is_named(
    tmp_path: Path, annotation: object, reason: str
) -> None:
    path = activitynet(tmp_path / "a.json", {"segment": [0, 1], "label": "A"}, annotation)
    found = convert_activitynet(path)
    assert len(found.captions) == 1
    assert found.problems[0].startswith(f"{path}: abc, annotation 1: ")
    assert reason in found.problems[0]


def test_dense_captions_keep_their_sentences(tmp_path: Path) -> None:
    path = save(
        tmp_path / "train.json",
        {
            "v_x": {
                "duration": 82.7,
                "timestamps": [[0.83, 19.86], [17.37, 60.81]],
                "sentences": ["A young woman is seen standing.", "  She  bends\ndown. "],
            },
            "v_y": {"timestamps": [[0, 1]], "sentences": []},
            "v_z": {},
        },
    )
    found = convert_activitynet_captions(path)
    assert found.captions == [
        Caption("v_x", 830, 19860, "A young woman is seen standing."),
        Caption("v_x", 17370, 60810, "She bends down."),
    ]
    assert found.problems == [
        f"{path}: v_y: found 1 timestamps for 0 sentences",
        f"{path}: v_z: found no lists of timestamps and sentences",
    ]


def test_internvid_lines_become_captions(tmp_path: Path) -> None:
    path = tmp_path / "internvid.jsonl"
    entry = {
        "YoutubeID": "cAqNVmJnyr0",
        "Start_timestamp": "00:05:15.640",
        "End_timestamp": "01:05:31.125",
        "Caption": "a person peels an apple",
        "UMT_Score": 0.4,
    }
    bad_time = {**entry, "Start_timestamp": "5 minutes"}
    lines = [json.dumps(entry), "", "{", "3", json.dumps(bad_time), json.dumps({"Caption": "x"})]
    path.write_text("\n".join(lines))
    found = convert_internvid(path)
    assert found.captions == [Caption("cAqNVmJnyr0", 315_640, 3_931_125, "a person peels an apple")]
    assert [problem.split(": ")[1] for problem in found.problems] == [
        "line 3",
        "line 4",
        "line 5",
        "line 6",
    ]


@pytest.mark.parametrize("end", ["Infinity", "NaN", "9" * 400, f'"{"9" * 5000}:00:01"'])
def test_internvid_times_that_are_none_are_named(tmp_path: Path, end: str) -> None:
    start = '{"YoutubeID": "x", "Caption": "a person waves", "Start_timestamp": 1, "End_timestamp":'
    path = tmp_path / "a.jsonl"
    path.write_text(f"{start} 2}}\n{start} {end}}}\n")
    found = convert_internvid(path)
    assert found.captions == [Caption("x", 1000, 2000, "a person waves")]
    (problem,) = found.problems
    assert "line 2: found segment [1, " in problem


def test_a_file_of_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="found no object 'database'"):
        convert_activitynet(save(tmp_path / "a.json", []))
    with pytest.raises(AnnotationError, match="found no object"):
        convert_activitynet_captions(save(tmp_path / "a.json", [1]))
    with pytest.raises(AnnotationError, match="found no caption"):
        convert_activitynet_captions(save(tmp_path / "a.json", {"v": {}}))
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(AnnotationError, match="found no JSON"):
        convert_activitynet(tmp_path / "a.json")
