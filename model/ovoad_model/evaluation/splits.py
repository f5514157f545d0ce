"""Base-to-novel splits: some classes to learn from, the others to be judged on.

The paper's Table 3 asks what is left of a model on classes that its training never named. A split
is a function of (sorted class names, share, seed) alone, so every machine cuts the same way.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from ovoad_model.evaluation.field import FieldData, load_truth
from ovoad_model.evaluation.scored import Truth
from ovoad_model.metrics import EvaluationError
from ovoad_model.window import GRID_MS

Share = Literal["75/25", "50/50"]
Part = Literal["base", "novel"]

SHARES: Final[dict[str, float]] = {"75/25": 0.75, "50/50": 0.5}


@dataclass(frozen=True)
class Split:
    """Classes to train on and classes held out, each in sorted order."""

    share: str
    seed: int
    base: tuple[str, ...]
    novel: tuple[str, ...]


@dataclass(frozen=True)
class TimedCaption:
    """What `ovoad train` learns from: a sentence and the time it is true of."""

    video: str
    start_ms: int
    end_ms: int
    text: str


def split_classes(names: Sequence[str], share: str, *, seed: int) -> Split:
    """Hold out a quarter or half of the classes, chosen by the seed; at least one on each side."""
    if share not in SHARES:
        raise EvaluationError(f"found split {share!r}, expected one of {', '.join(SHARES)}")
    if len(set(names)) < 2:
        raise EvaluationError(f"found {len(set(names))} classes, expected at least two to split")
    # random() is the one draw whose sequence Python promises never to change.
    generator = random.Random(seed)
    shuffled = sorted(sorted(set(names)), key=lambda _: generator.random())
    count = min(max(round(SHARES[share] * len(shuffled)), 1), len(shuffled) - 1)
    return Split(share, seed, tuple(sorted(shuffled[:count])), tuple(sorted(shuffled[count:])))


def columns_of(names: Sequence[str], chosen: Iterable[str]) -> tuple[int, ...]:
    """Find each chosen class among the names; the answer keeps the names' order."""
    wanted = set(chosen)
    unknown = sorted(wanted - set(names))
    if unknown:
        raise EvaluationError(
            f"found the unknown class {unknown[0]!r}, expected one of {', '.join(names)}"
        )
    return tuple(index for index, name in enumerate(names) if name in wanted)


def base_captions(data: FieldData, split: Split) -> tuple[list[TimedCaption], int]:
    """Write the training videos' base-class instances as timed captions.

    A video that shows a novel class anywhere is left out whole: without a caption its novel frames
    would be taught as background. Returns the captions and how many videos were left out.
    """
    novel = columns_of(data.class_names, split.novel)
    captions: list[TimedCaption] = []
    left_out = 0
    for video in data.videos:
        truth = load_truth(data, video)
        if truth.targets[:, list(novel)].any():
            left_out += 1
        else:
            captions += _captions_of(truth, data.labels)
    if not captions:
        raise EvaluationError(
            f"found a novel class in {left_out} of {len(data.videos)} training videos and no base "
            "instance in the others, expected videos that show base classes alone"
        )
    return captions, left_out


def _captions_of(truth: Truth, labels: Sequence[str]) -> list[TimedCaption]:
    return [
        TimedCaption(
            video=truth.video,
            start_ms=int(truth.timestamps_ms[instance.first]),
            end_ms=int(truth.timestamps_ms[instance.end - 1]) + GRID_MS,
            text=labels[instance.label],
        )
        for instance in truth.instances
    ]


def write_split(split: Split, directory: Path) -> tuple[Path, Path]:
    """Write base.txt and novel.txt, one class a line."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = directory / "base.txt", directory / "novel.txt"
    for path, names in zip(paths, (split.base, split.novel), strict=True):
        path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return paths


def write_captions(captions: Sequence[TimedCaption], path: Path) -> None:
    """Write captions as JSON lines: video, start_ms, end_ms, text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(vars(caption), ensure_ascii=False) for caption in captions]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
