"""The field's file layout: what is read, what is refused and in which words."""

import json
from pathlib import Path

import numpy as np
import pytest

from ovoad_model.evaluation.field import (
    DATASETS,
    FieldData,
    load_features,
    load_truth,
    open_field,
    readable,
)
from ovoad_model.evaluation.scored import Instance
from ovoad_model.metrics import EvaluationError

THUMOS = DATASETS["thumos14"]
NAMES = ["Background", *(f"ActionNumber{chr(65 + i)}" for i in range(20)), "Ambiguous"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write a THUMOS'14 of two test videos, one with an ambiguous stretch."""
    info = {
        "class_names": NAMES,
        "ignore_index": 21,
        "train_session_set": ["learn"],
        "test_session_set": ["one", "two"],
    }
    (tmp_path / "data_info.json").write_text(json.dumps(info))
    for folder in ("rgb", "target_perframe"):
        (tmp_path / folder).mkdir()
    for name, length in (("one", 12), ("two", 5)):
        targets = np.zeros((length, 22), np.float32)
        targets[:, 0] = 1
        np.save(tmp_path / "rgb" / f"{name}.npy", np.ones((length, 6), np.float32))
        np.save(tmp_path / "target_perframe" / f"{name}.npy", targets)
    targets = np.zeros((12, 22), np.float32)
    targets[2:5, 1] = targets[8:12, 1] = targets[4:6, 20] = targets[10, 21] = 1
    np.save(tmp_path / "target_perframe" / "one.npy", targets)
    return tmp_path


def opened(root: Path) -> FieldData:
    return open_field(THUMOS, root, "rgb", feature_width=6)


def test_actions_leave_out_background_and_ambiguous(root: Path) -> None:
    data = opened(root)
    assert data.videos == ("one", "two")
    assert len(data.class_names) == 20
    assert data.labels[0] == "action number a"
    assert data.columns == tuple(range(1, 21))


def test_truth_has_instances_and_does_not_count_ambiguous_frames(root: Path) -> None:
    truth = load_truth(opened(root), "one")
    assert truth.targets.shape == (12, 20)
    assert truth.instances == (Instance(0, 2, 5), Instance(19, 4, 6), Instance(0, 8, 12))
    assert np.flatnonzero(~truth.counted).tolist() == [10]
    assert truth.timestamps_ms[:3].tolist() == [0, 250, 500]


@pytest.mark.parametrize(
    ("name", "columns", "ambiguous", "calibrated"),
    [
        ("thumos14", 22, 21, False),
        ("tvseries", 31, None, True),
        ("fineaction", 107, None, False),
        ("ek100", 98, None, True),
    ],
)
def test_datasets_are_as_the_field_has_them(
    name: str, columns: int, ambiguous: int | None, calibrated: bool
) -> None:
    dataset = DATASETS[name]
    assert (dataset.columns, dataset.ambiguous) == (columns, ambiguous)
    assert dataset.calibrated == calibrated


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("BaseballPitch", "baseball pitch"),
        ("CleanAndJerk", "clean and jerk"),
        ("turn-on", "turn on"),
        ("Pick something up", "pick something up"),
        ("body_movements", "body movements"),
    ],
)
def test_class_names_become_words(name: str, words: str) -> None:
    assert readable(name) == words


def test_description_may_hold_several_datasets(root: Path) -> None:
    path = root / "data_info.json"
    info = json.loads(path.read_text())
    path.write_text(json.dumps({"THUMOS": info, "TVSeries": {}}))
    assert opened(root).videos == ("one", "two")
    path.write_text(json.dumps({"HDD": info}))
    assert refused(root) == (
        f"{path}: found the keys HDD, expected class_names or one of THUMOS, THUMOS14"
    )


@pytest.mark.parametrize("index", [0, -1])
def test_ignoring_background_or_nothing_counts_every_frame(root: Path, index: int) -> None:
    edit(root, ignore_index=index)
    data = opened(root)
    assert len(data.class_names) == 21
    assert load_truth(data, "one").counted.all()


def edit(root: Path, **changes: object) -> None:
    path = root / "data_info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(root: Path, feature: str = "rgb") -> str:
    with pytest.raises(EvaluationError) as caught:
        open_field(THUMOS, root, feature, feature_width=6)
    return str(caught.value)


def test_missing_description(tmp_path: Path) -> None:
    expected = f"found no {tmp_path / 'data_info.json'}, expected the dataset's description"
    assert refused(tmp_path) == expected


def test_description_that_is_not_json(root: Path) -> None:
    (root / "data_info.json").write_text("{")
    assert "data_info.json: found no readable JSON" in refused(root)


def test_wrong_number_of_classes(root: Path) -> None:
    edit(root, class_names=NAMES[:-1])
    assert refused(root) == (
        f"{root / 'data_info.json'}: found 21 class_names, expected the 22 of THUMOS'14, "
        "background first"
    )


def test_videos_that_are_no_list(root: Path) -> None:
    edit(root, test_session_set="one")
    assert refused(root).endswith("found test_session_set 'one', expected a list of strings")


def test_ignored_column_that_is_not_there(root: Path) -> None:
    edit(root, ignore_index=22)
    assert refused(root).endswith(
        "found ignore_index 22, expected a column from 0 to 21, -1 or null"
    )


def test_missing_files_are_named_together(root: Path) -> None:
    edit(root, test_session_set=["one", *(f"gone{i}" for i in range(4))])
    message = refused(root)
    assert str(root / "rgb" / "gone0.npy") in message
    assert message.endswith("and 3 more, expected one .npy file per video")


def test_missing_feature_folder(root: Path) -> None:
    assert str(root / "flow" / "one.npy") in refused(root, "flow")


def test_features_of_another_width(root: Path) -> None:
    path = root / "rgb" / "two.npy"
    np.save(path, np.ones((5, 7), np.float32))
    assert refused(root) == f"{path}: found features of width 7, expected the encoder's 6"


def test_targets_of_another_dataset(root: Path) -> None:
    path = root / "target_perframe" / "one.npy"
    np.save(path, np.zeros((12, 31), np.float32))
    assert refused(root) == f"{path}: found 31 columns, expected the 22 of THUMOS'14"


def test_features_and_targets_of_other_lengths(root: Path) -> None:
    path = root / "rgb" / "one.npy"
    np.save(path, np.ones((11, 6), np.float32))
    assert refused(root) == (
        f"{path}: found 11 frames, expected the 12 of {root / 'target_perframe' / 'one.npy'}"
    )


def test_damaged_and_unfitting_arrays(root: Path) -> None:
    path = root / "rgb" / "one.npy"
    path.write_bytes(b"\x93NUMPY\x01")
    assert f"{path}: found no readable .npy file" in refused(root)
    np.save(path, np.ones((12,), np.float32))
    assert refused(root) == (
        f"{path}: found shape (12,) of float32, expected a matrix of numbers [frames, ..]"
    )
    np.save(path, np.ones((0, 6), np.float32))
    assert refused(root) == f"{path}: found no frames, expected at least one"


def test_pickled_objects_are_never_loaded(root: Path) -> None:
    path = root / "rgb" / "one.npy"
    np.save(path, np.array([["x"]], dtype=object), allow_pickle=True)
    assert f"{path}: found no readable .npy file" in refused(root)


def test_nan_in_features_is_refused_with_its_frame(root: Path) -> None:
    features = np.ones((12, 6), np.float32)
    features[7, 3] = np.nan
    np.save(root / "rgb" / "one.npy", features)
    with pytest.raises(EvaluationError) as caught:
        load_features(opened(root), "one")
    assert str(caught.value) == (
        f"{root / 'rgb' / 'one.npy'}: found NaN or infinity in 1 of 12 frames "
        "(the first is frame 7), expected finite features"
    )


def test_nan_in_targets_is_refused(root: Path) -> None:
    targets = np.full((12, 22), np.nan, np.float32)
    np.save(root / "target_perframe" / "one.npy", targets)
    with pytest.raises(EvaluationError, match="found NaN or infinite targets, expected 0 or 1"):
        load_truth(opened(root), "one")
