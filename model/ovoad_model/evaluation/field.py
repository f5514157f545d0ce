"""The field's file layout (LSTR, TeSTra, MiniROAD, MAT): features and targets per video.

    ROOT/data_info.json                 class_names, ignore_index, test_session_set, ...
    ROOT/<feature>/VIDEO.npy            [L, F] at 4 fps
    ROOT/target_perframe/VIDEO.npy      [L, columns], column 0 is background

Knows no detector. Everything is checked before anything is scored: a run of hours does not end
at a missing file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ovoad_model.arrays import BoolArray, Float32Array
from ovoad_model.evaluation.scored import Truth, instances_of
from ovoad_model.metrics import EvaluationError
from ovoad_model.window import GRID_MS

Session = Literal["train", "test"]

SHOWN = 5  # how many of many missing files an error names


@dataclass(frozen=True)
class Dataset:
    """One dataset's conventions (paper.md, Evaluation protocols)."""

    name: str
    title: str
    columns: int  # of target_perframe, background included
    ambiguous: int | None  # the column whose frames are left out of every metric
    calibrated: bool  # usual metric: calibrated average precision, else average precision
    keys: tuple[str, ...]  # under which a data_info.json of many datasets may hold this one


DATASETS: Final = {
    dataset.name: dataset
    for dataset in (
        Dataset("thumos14", "THUMOS'14", 22, 21, False, ("THUMOS", "THUMOS14")),
        Dataset("tvseries", "TVSeries", 31, None, True, ("TVSeries", "TVSERIES")),
        Dataset("fineaction", "FineAction", 107, None, False, ("FineAction", "FINEACTION")),
        Dataset("ek100", "EPIC-KITCHENS-100 verbs", 98, None, True, ("EK100", "EK100_verb")),
    )
}


@dataclass(frozen=True)
class FieldData:
    """A dataset found on disk: which columns are actions, in which files the videos are."""

    dataset: Dataset
    root: Path
    feature: str
    targets: str
    class_names: tuple[str, ...]  # of the action columns
    columns: tuple[int, ...]  # the action columns
    ambiguous: int | None
    videos: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names as words: "BaseballPitch" becomes "baseball pitch"."""
        return tuple(readable(name) for name in self.class_names)

    def feature_path(self, video: str) -> Path:
        """Where a video's features lie."""
        return self.root / self.feature / f"{video}.npy"

    def target_path(self, video: str) -> Path:
        """Where a video's targets lie."""
        return self.root / self.targets / f"{video}.npy"


def readable(name: str) -> str:
    """Write a class name as words: camel case, dashes and underscores come apart."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[-_\s]+", " ", name)
    return " ".join(spaced.split()).lower()


def open_field(
    dataset: Dataset,
    root: Path,
    feature: str,
    *,
    session: Session = "test",
    targets: str = "target_perframe",
    feature_width: int | None = None,
) -> FieldData:
    """Find a dataset's files and check every one of them (header only, nothing is loaded).

    `feature_width` is the encoder's. Raises EvaluationError with what was found and expected.
    """
    info = _read_info(dataset, root)
    names = _strings(info, "class_names", root)
    if len(names) != dataset.columns:
        raise EvaluationError(
            f"{root / 'data_info.json'}: found {len(names)} class_names, expected the "
            f"{dataset.columns} of {dataset.title}, background first"
        )
    ambiguous = _ambiguous_column(info.get("ignore_index", dataset.ambiguous), dataset, root)
    columns = tuple(column for column in range(1, dataset.columns) if column != ambiguous)
    videos = _strings(info, f"{session}_session_set", root)
    data = FieldData(
        dataset=dataset,
        root=root,
        feature=feature,
        targets=targets,
        class_names=tuple(names[column] for column in columns),
        columns=columns,
        ambiguous=ambiguous,
        videos=videos,
    )
    _check_files(data, feature_width)
    return data


def load_truth(data: FieldData, video: str) -> Truth:
    """Load a video's targets: action columns as labels, ambiguous frames not counted."""
    path = data.target_path(video)
    targets = _load(path)
    if not np.isfinite(targets).all():
        raise EvaluationError(f"{path}: found NaN or infinite targets, expected 0 or 1")
    present: BoolArray = np.asarray(targets > 0)
    counted = np.ones(len(targets), np.bool_)
    if data.ambiguous is not None:
        counted = np.logical_not(present[:, data.ambiguous])
    actions = present[:, list(data.columns)]
    timestamps_ms = np.arange(len(present), dtype=np.int64) * GRID_MS
    return Truth(video, timestamps_ms, actions, counted, instances_of(actions))


def load_features(data: FieldData, video: str) -> Float32Array:
    """Load a video's features [L, F]; refuse NaN and infinity."""
    path = data.feature_path(video)
    features = _load(path).astype(np.float32)
    bad: BoolArray = np.asarray(~np.isfinite(features).all(axis=1))
    if bad.any():
        raise EvaluationError(
            f"{path}: found NaN or infinity in {int(bad.sum())} of {len(bad)} frames "
            f"(the first is frame {int(np.argmax(bad))}), expected finite features"
        )
    return features


def _read_info(dataset: Dataset, root: Path) -> dict[str, Any]:
    """Read data_info.json, of this dataset alone or of several keyed by name."""
    path = root / "data_info.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EvaluationError(f"found no {path}, expected the dataset's description") from None
    except (OSError, ValueError) as cause:
        raise EvaluationError(f"{path}: found no readable JSON ({cause})") from cause
    if not isinstance(info, dict):
        raise EvaluationError(f"{path}: found {type(info).__name__}, expected an object")
    if "class_names" in info:
        return info
    for key in dataset.keys:
        if isinstance(info.get(key), dict):
            found: dict[str, Any] = info[key]
            return found
    keys = ", ".join(sorted(map(str, info))) or "nothing"
    raise EvaluationError(
        f"{path}: found the keys {keys}, expected class_names or one of {', '.join(dataset.keys)}"
    )


def _strings(info: dict[str, Any], key: str, root: Path) -> tuple[str, ...]:
    """Take a list of strings out of data_info.json."""
    value = info.get(key)
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(entry, str) for entry in value)
    ):
        raise EvaluationError(
            f"{root / 'data_info.json'}: found {key} {value!r:.60}, expected a list of strings"
        )
    return tuple(value)


def _ambiguous_column(value: object, dataset: Dataset, root: Path) -> int | None:
    """Read ignore_index; column 0 is background and counts, and -1 names no column."""
    if value is None:
        return None
    if not isinstance(value, int) or not -1 <= value < dataset.columns:
        raise EvaluationError(
            f"{root / 'data_info.json'}: found ignore_index {value!r}, expected a column from "
            f"0 to {dataset.columns - 1}, -1 or null"
        )
    return value if value > 0 else None


def _check_files(data: FieldData, feature_width: int | None) -> None:
    """Refuse missing files first, all at once, then files of a wrong shape."""
    paths = [data.feature_path(video) for video in data.videos]
    paths += [data.target_path(video) for video in data.videos]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise EvaluationError(f"found no {_some(missing)}, expected one .npy file per video")
    for video in data.videos:
        _check_video(data, video, feature_width)


def _check_video(data: FieldData, video: str, feature_width: int | None) -> None:
    feature_path, target_path = data.feature_path(video), data.target_path(video)
    features, targets = _load(feature_path, mapped=True), _load(target_path, mapped=True)
    if targets.shape[1] != data.dataset.columns:
        raise EvaluationError(
            f"{target_path}: found {targets.shape[1]} columns, expected the "
            f"{data.dataset.columns} of {data.dataset.title}"
        )
    if feature_width is not None and features.shape[1] != feature_width:
        raise EvaluationError(
            f"{feature_path}: found features of width {features.shape[1]}, expected the "
            f"encoder's {feature_width}"
        )
    if len(features) != len(targets):
        raise EvaluationError(
            f"{feature_path}: found {len(features)} frames, expected the {len(targets)} "
            f"of {target_path}"
        )


def _load(path: Path, *, mapped: bool = False) -> NDArray[Any]:
    """Load a matrix of numbers; nothing that would run code on loading."""
    try:
        array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as cause:
        raise EvaluationError(f"{path}: found no readable .npy file ({cause})") from cause
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "fiub":
        found = (
            f"shape {array.shape} of {array.dtype}" if isinstance(array, np.ndarray) else "an .npz"
        )
        raise EvaluationError(f"{path}: found {found}, expected a matrix of numbers [frames, ..]")
    if len(array) == 0:
        raise EvaluationError(f"{path}: found no frames, expected at least one")
    return array


def _some(paths: Sequence[Path]) -> str:
    """Name the first few of many paths."""
    shown = ", ".join(str(path) for path in paths[:SHOWN])
    return shown if len(paths) <= SHOWN else f"{shown} and {len(paths) - SHOWN} more"
