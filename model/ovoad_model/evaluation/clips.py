"""Short clips of one action each, stitched into streams whose cut points are known.

    DIR/labels.json     {"drums.mp4": {"label": "playing drums"}, "empty.mp4": {"label": null}}
    DIR/drums.mp4 ...

A stream is all clips in a seeded order, end to end on one timeline: what a camera would see if
the world changed abruptly, so the first windows after a cut still hold the clip before it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovoad_model.evaluation.encoded import EncodedVideo
from ovoad_model.evaluation.scored import Instance, Truth
from ovoad_model.metrics import EvaluationError
from ovoad_model.window import GRID_MS

ARTICLES = frozenset({"a", "an", "the"})


@dataclass(frozen=True)
class Clip:
    """A file and what happens in it from first frame to last; None for none of the labels."""

    path: Path
    label: str | None


@dataclass(frozen=True)
class Stream:
    """Clips end to end: truth [L] and, for each of the L frames, the row of its feature."""

    truth: Truth
    rows: NDArray[np.int64]


def read_clips(directory: Path) -> tuple[Clip, ...]:
    """Read labels.json, in the order of file names; every clip it names must be there."""
    path = directory / "labels.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EvaluationError(f"found no {path}, expected one that names the clips") from None
    except (OSError, ValueError) as cause:
        raise EvaluationError(f"{path}: found no readable JSON ({cause})") from cause
    if not isinstance(entries, dict) or not entries:
        raise EvaluationError(f'{path}: found no clips, expected {{file: {{"label": ..}}}}')
    clips = tuple(
        Clip(directory / name, _label(entries[name], name, path)) for name in sorted(entries)
    )
    missing = [clip.path.name for clip in clips if not clip.path.is_file()]
    if missing:
        raise EvaluationError(f"{path}: found no {', '.join(missing)} beside it")
    if all(clip.label is None for clip in clips):
        raise EvaluationError(f"{path}: found no clip with a label, expected at least one")
    return clips


def _label(entry: object, name: str, path: Path) -> str | None:
    if not isinstance(entry, dict) or "label" not in entry:
        raise EvaluationError(f'{path}: {name}: found {entry!r:.60}, expected {{"label": ..}}')
    label = entry["label"]
    if label is None:
        return None
    if not isinstance(label, str) or not label.strip():
        raise EvaluationError(f"{path}: {name}: found label {label!r}, expected words or null")
    return " ".join(label.split())


def labels_of(clips: Sequence[Clip]) -> tuple[str, ...]:
    """Give the clips' own labels, each once, in the order of their first clip."""
    return tuple(dict.fromkeys(clip.label for clip in clips if clip.label is not None))


def default_distractors() -> tuple[str, ...]:
    """Give the fixed list of 17 actions that ship with the package."""
    text = resources.files(__package__).joinpath("distractors.txt").read_text(encoding="utf-8")
    return read_words(text)


def read_words(text: str) -> tuple[str, ...]:
    """Read one label a line; blank lines and lines that begin with # are comments."""
    lines = (line.strip() for line in text.splitlines())
    return tuple(line for line in lines if line and not line.startswith("#"))


def without_doubles(distractors: Sequence[str], labels: Sequence[str]) -> tuple[str, ...]:
    """Leave out distractors that name a clip's own action, articles and case aside."""
    own = {_bare(label) for label in labels}
    return tuple(distractor for distractor in distractors if _bare(distractor) not in own)


def _bare(label: str) -> tuple[str, ...]:
    return tuple(word for word in label.casefold().split() if word not in ARTICLES)


def stitch(
    clips: Sequence[Clip],
    encoded: Sequence[EncodedVideo],
    labels: Sequence[str],
    *,
    seed: int,
    streams: int,
) -> tuple[Stream, ...]:
    """Stitch the clips into streams, each in its own order drawn from the seed.

    `rows` counts through the features of all clips laid end to end in the order given, so that
    every frame is encoded once however many streams show it.
    """
    starts = np.cumsum([0, *(len(video.timestamps_ms) for video in encoded)])
    generator = random.Random(seed)
    stitched = []
    for number in range(1, streams + 1):
        order = sorted(range(len(clips)), key=lambda _: generator.random())
        rows = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in order])
        name = f"stream {number}"
        truth = _truth(name, [clips[i] for i in order], [encoded[i] for i in order], list(labels))
        stitched.append(Stream(truth, rows))
    return tuple(stitched)


def keep_apart(
    clips: Sequence[Clip], encoded: Sequence[EncodedVideo], labels: Sequence[str]
) -> tuple[Stream, ...]:
    """Make each clip a stream of its own: no cuts, every window opens with its clip."""
    starts = np.cumsum([0, *(len(video.timestamps_ms) for video in encoded)])
    return tuple(
        Stream(
            _truth(clip.path.name, [clip], [video], list(labels)),
            np.arange(starts[index], starts[index + 1]),
        )
        for index, (clip, video) in enumerate(zip(clips, encoded, strict=True))
    )


def _truth(
    name: str, clips: Sequence[Clip], encoded: Sequence[EncodedVideo], labels: list[str]
) -> Truth:
    """Lay clips on one timeline: each begins on the grid, one cell after the last one's end."""
    timestamps_ms: list[NDArray[np.int64]] = []
    instances: list[Instance] = []
    start_ms = first = 0
    length = sum(len(video.timestamps_ms) for video in encoded)
    targets = np.zeros((length, len(labels)), np.bool_)
    for clip, video in zip(clips, encoded, strict=True):
        end = first + len(video.timestamps_ms)
        timestamps_ms.append(video.timestamps_ms + start_ms)
        if clip.label is not None and clip.label in labels:
            label = labels.index(clip.label)
            targets[first:end, label] = True
            instances.append(Instance(label, first, end))
        start_ms += (round(int(video.timestamps_ms[-1]) / GRID_MS) + 1) * GRID_MS
        first = end
    counted = np.ones(length, np.bool_)
    return Truth(name, np.concatenate(timestamps_ms), targets, counted, tuple(instances))
