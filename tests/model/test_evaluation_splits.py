"""Base-to-novel splits: seeded, disjoint, and honest about videos that show both."""

import json
from pathlib import Path

import numpy as np
import pytest

from ovoad_model.evaluation.field import DATASETS, FieldData, open_field
from ovoad_model.evaluation.splits import (
    Split,
    base_captions,
    columns_of,
    split_classes,
    write_captions,
    write_split,
)
from ovoad_model.metrics import EvaluationError

NAMES = tuple(f"Class{chr(65 + i)}" for i in range(20))


@pytest.mark.parametrize(("share", "base"), [("75/25", 15), ("50/50", 10)])
def test_split_holds_out_its_share(share: str, base: int) -> None:
    split = split_classes(NAMES, share, seed=3)
    assert len(split.base) == base
    assert set(split.base) | set(split.novel) == set(NAMES)
    assert not set(split.base) & set(split.novel)


def test_split_depends_on_the_seed_and_not_on_the_order_of_names() -> None:
    split = split_classes(NAMES, "75/25", seed=3)
    assert split == split_classes(NAMES[::-1], "75/25", seed=3)
    assert len({split_classes(NAMES, "75/25", seed=seed).novel for seed in range(10)}) == 10


def test_split_of_seed_0_stays_as_it_is() -> None:
    """Published numbers name a seed: what it means must never change."""
    split = split_classes(NAMES, "75/25", seed=0)
    assert split.novel == ("ClassA", "ClassK", "ClassQ", "ClassR", "ClassT")


def test_both_sides_have_a_class() -> None:
    split = split_classes(["a", "b"], "75/25", seed=0)
    assert (len(split.base), len(split.novel)) == (1, 1)


def test_unknown_share_too_few_classes_and_unknown_class() -> None:
    with pytest.raises(EvaluationError, match="found split '80/20', expected one of 75/25, 50/50"):
        split_classes(NAMES, "80/20", seed=0)
    with pytest.raises(EvaluationError, match="found 1 classes, expected at least two to split"):
        split_classes(["a", "a"], "50/50", seed=0)
    with pytest.raises(EvaluationError, match="found the unknown class 'z', expected one of a, b"):
        columns_of(["a", "b"], ["a", "z"])
    assert columns_of(["a", "b", "c"], ["c", "a"]) == (0, 2)


@pytest.fixture
def data(tmp_path: Path) -> FieldData:
    """Write three training videos: base classes alone, base and novel, nothing."""
    info = {"class_names": ["Background", *NAMES, "Ambiguous"], "train_session_set": list("bmn")}
    (tmp_path / "data_info.json").write_text(json.dumps(info))
    for folder in ("rgb", "target_perframe"):
        (tmp_path / folder).mkdir()
    for video, columns in (("b", [1]), ("m", [1, 2]), ("n", [])):
        targets = np.zeros((10, 22), np.float32)
        for column in columns:
            targets[column : column + 3, column] = 1
        np.save(tmp_path / "rgb" / f"{video}.npy", np.ones((10, 4), np.float32))
        np.save(tmp_path / "target_perframe" / f"{video}.npy", targets)
    return open_field(DATASETS["thumos14"], tmp_path, "rgb", session="train")


def test_captions_leave_out_videos_that_show_a_novel_class(data: FieldData) -> None:
    split = Split("50/50", 0, base=("ClassA",), novel=("ClassB",))
    captions, left_out = base_captions(data, split)
    assert left_out == 1
    assert [vars(caption) for caption in captions] == [
        {"video": "b", "start_ms": 250, "end_ms": 1000, "text": "class a"}
    ]


def test_no_video_left_is_an_error(data: FieldData) -> None:
    split = Split("50/50", 0, base=("ClassC",), novel=("ClassA",))
    with pytest.raises(EvaluationError, match="found a novel class in 2 of 3 training videos"):
        base_captions(data, split)


def test_split_and_captions_are_written_as_training_reads_them(
    data: FieldData, tmp_path: Path
) -> None:
    split = Split("50/50", 0, base=("ClassA", "ClassD"), novel=("ClassB",))
    base, novel = write_split(split, tmp_path / "out")
    assert base.read_text() == "ClassA\nClassD\n"
    assert novel.read_text() == "ClassB\n"
    path = tmp_path / "out" / "captions.jsonl"
    write_captions(base_captions(data, split)[0], path)
    (line,) = path.read_text().splitlines()
    assert json.loads(line) == {"video": "b", "start_ms": 250, "end_ms": 1000, "text": "class a"}
