"""What the trials of encoder `embedded` share: clips, words, windows, metrics. No encoder here.

Letters: N frames of all clips, C labels, D the width of a space.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from ovoad_model.arrays import Float32Array, Frame, unit
from ovoad_model.evaluation.clips import default_distractors
from ovoad_model.video import read_grid_frames

ROOT: Final = Path(__file__).parents[1]
NEIGHBOURS: Final = 8
ORDERS: Final = 3
SETS_PER_WORDING: Final = 5
DISTRACTORS: Final = 17


@dataclass(frozen=True)
class Words:
    """Labels of the clips in 4 wordings [4][L], the fixed distractors, and other actions."""

    wordings: list[list[str]]
    fixed: list[str]
    others: list[str]
    absent_not_plain: dict[str, list[str]]

    @property
    def all(self) -> list[str]:
        """Every label that is ever asked for, once."""
        flat = [label for wording in self.wordings for label in wording]
        return list(dict.fromkeys(flat + self.fixed + self.others))


@dataclass(frozen=True)
class Clips:
    """Clips with their frames; truth [N] is the number of a clip's label, -1 for none."""

    names: list[str]
    labels: list[str | None]
    frames: list[list[Frame]]
    own: list[str]

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each clip begins among all frames, and the end of the last: [clips + 1]."""
        return np.cumsum([0, *(len(frames) for frames in self.frames)])

    @property
    def truth(self) -> NDArray[np.int64]:
        """The label's number of each frame."""
        numbers = [self.own.index(label) if label else -1 for label in self.labels]
        return np.repeat(numbers, [len(frames) for frames in self.frames])


@dataclass(frozen=True)
class Outcome:
    """Numbers of one scorer: fixed distractors, then mean and spread over the drawn sets."""

    top1: float
    mean_average_precision: float
    drawn_top1: float
    drawn_map: float
    spread_top1: float
    spread_map: float


def clip_folder(description: str) -> Path:
    """Read the command line: the folder of clips."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("clips", type=Path, nargs="?", default=ROOT.parent / "shared" / "clips")
    folder: Path = parser.parse_args().clips
    return folder


def read_clips(folder: Path) -> Clips:
    """Read labels.json and every clip's frames at 4 fps."""
    entries = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    names = sorted(entries)
    labels = [entries[name]["label"] for name in names]
    frames = [[frame for _, frame in read_grid_frames(folder / name)] for name in names]
    return Clips(names, labels, frames, [label for label in labels if label])


def read_words(own: Sequence[str]) -> Words:
    """Read the words that lie beside this file."""
    stored = json.loads((ROOT / "benchmarks" / "embedded_words.json").read_text(encoding="utf-8"))
    wordings = [list(own)] + [[stored["wordings"][label][k] for label in own] for k in range(3)]
    fixed = list(default_distractors())
    others = [action for action in stored["other_actions"] if action not in fixed]
    return Words(wordings, fixed, others, stored["not_plainly_absent"])


def draw_sets(words: Words) -> list[list[str]]:
    """Draw vocabularies of 30: each wording with 17 other actions, five times."""
    generator = np.random.default_rng(0)
    pool = words.fixed + words.others
    return [
        wording + list(generator.choice(pool, DISTRACTORS, replace=False))
        for wording in words.wordings
        for _ in range(SETS_PER_WORDING)
    ]


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Softmax over the last axis."""
    weights = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    shares: NDArray[np.float64] = weights / weights.sum(axis=-1, keepdims=True)
    return shares


def averaged(frames: Float32Array, clips: Clips, *, order: Sequence[int] | None) -> Float32Array:
    """Unit mean of each frame's last 8 [N, D]: over cuts of a stream in this order, or reset."""
    starts = clips.starts
    result = np.empty_like(frames)
    streams = [[clip] for clip in range(len(clips.names))] if order is None else [list(order)]
    for stream in streams:
        rows = np.concatenate([np.arange(starts[clip], starts[clip + 1]) for clip in stream])
        for at, row in enumerate(rows):
            result[row] = frames[rows[max(0, at - NEIGHBOURS + 1) : at + 1]].mean(axis=0)
    return unit(result)


def scorers(frames: Float32Array, clips: Clips) -> dict[str, list[Float32Array]]:
    """Embed all windows by each scorer; the continuing average in several orders of clips."""
    generator = np.random.default_rng(5)
    orders = [generator.permutation(len(clips.names)).tolist() for _ in range(ORDERS)]
    return {
        "frame": [frames],
        "average": [averaged(frames, clips, order=order) for order in orders],
        "average, reset at cuts": [averaged(frames, clips, order=None)],
    }


def judge(
    windows: Sequence[Float32Array],
    text: dict[str, Float32Array],
    clips: Clips,
    words: Words,
    *,
    temperature: float,
) -> Outcome:
    """Give top-1 over labelled frames and mAP of softmaxed scores over all frames."""
    fixed = words.wordings[0] + words.fixed

    def numbers(vocabulary: Sequence[str]) -> tuple[float, float]:
        found = [_numbers(w, text, vocabulary, clips, temperature) for w in windows]
        top1, precision = np.mean(found, axis=0)
        return float(top1), float(precision)

    drawn = np.array([numbers(vocabulary) for vocabulary in draw_sets(words)])
    return Outcome(*numbers(fixed), *drawn.mean(axis=0).tolist(), *drawn.std(axis=0).tolist())


def _numbers(
    windows: Float32Array,
    text: dict[str, Float32Array],
    vocabulary: Sequence[str],
    clips: Clips,
    temperature: float,
) -> tuple[float, float]:
    similarities = windows @ np.stack([text[label] for label in vocabulary]).T
    probabilities = softmax(similarities / temperature)
    truth, labelled = clips.truth, clips.truth >= 0
    top1 = float((similarities.argmax(axis=1) == truth)[labelled].mean())
    targets = truth[:, None] == np.arange(len(clips.own))
    return top1, float(average_precisions(probabilities[:, : len(clips.own)], targets).mean())


def average_precisions(
    scores: NDArray[np.float64], targets: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Average precision of each column of scores [N, L], targets [N, L]: [L]."""
    order = np.argsort(-scores, axis=0, kind="stable")
    hits = np.take_along_axis(targets, order, axis=0)
    precision = hits.cumsum(axis=0) / np.arange(1, len(hits) + 1)[:, None]
    means: NDArray[np.float64] = (precision * hits).sum(axis=0) / hits.sum(axis=0)
    return means
