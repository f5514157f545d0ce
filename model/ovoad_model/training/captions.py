"""Timed captions: JSONL lines of video, start_ms, end_ms, text, and what can be wrong with them.

Knows no network and no windows.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ovoad_model.errors import ModelError
from ovoad_model.training.feature_store import FeatureError, FeatureStore
from ovoad_model.training.files import write_atomically
from ovoad_model.window import GRID_MS

END_TOLERANCE_MS: Final = 1000
"""How far a caption may run past the last frame: annotators' clocks and containers' differ."""

SHOWN_PROBLEMS: Final = 20

MAX_MS: Final = 10**12
"""Some thirty years: longer than any video."""


@dataclass(frozen=True)
class Caption:
    """A sentence about one stretch of a video, start_ms <= time < end_ms; `line` is where from."""

    video: str
    start_ms: int
    end_ms: int
    text: str
    line: int = 0


@dataclass(frozen=True)
class LineProblem:
    """What is wrong with one line of a caption file."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


class CaptionError(ModelError):
    """Captions that cannot be used; `problems` has every bad line, the message the first 20."""

    def __init__(self, problems: Sequence[LineProblem]) -> None:
        shown = "\n".join(map(str, problems[:SHOWN_PROBLEMS]))
        more = len(problems) - SHOWN_PROBLEMS
        super().__init__(shown + (f"\n… and {more} more" if more > 0 else ""))
        self.problems = tuple(problems)


def read_captions(path: Path) -> tuple[list[Caption], list[LineProblem]]:
    """Read a JSONL file: its good captions, and a problem for each bad line. Blank lines pass."""
    captions: list[Caption] = []
    problems: list[LineProblem] = []
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            found = _parse(line, number)
            if isinstance(found, str):
                problems.append(LineProblem(path, number, found))
            else:
                captions.append(found)
    return captions, problems


def write_captions(path: Path, captions: Sequence[Caption]) -> None:
    """Write captions as JSONL, whole or not at all."""
    lines = [
        json.dumps(
            {
                "video": caption.video,
                "start_ms": caption.start_ms,
                "end_ms": caption.end_ms,
                "text": caption.text,
            },
            ensure_ascii=False,
        )
        for caption in captions
    ]
    text = "".join(f"{line}\n" for line in lines)
    write_atomically(path, lambda stream: stream.write(text.encode()))


def check_against_features(
    path: Path, captions: Sequence[Caption], store: FeatureStore
) -> tuple[list[Caption], list[LineProblem]]:
    """Split captions into those that fit their video's features, and problems.

    A caption fits where its video's file is sound and it lies inside the video.
    """
    reasons = {video: _feature_problem(store, video) for video in {c.video for c in captions}}
    good: list[Caption] = []
    problems: list[LineProblem] = []
    for caption in captions:
        reason = reasons[caption.video] or _outside(caption, store.length(caption.video))
        if reason is None:
            good.append(caption)
        else:
            problems.append(LineProblem(path, caption.line, reason))
    return good, problems


def _parse(line: bytes, number: int) -> Caption | str:
    """Read one line: a caption, or what is wrong with it."""
    try:
        members = json.loads(line)
    except ValueError as error:
        return f"found no JSON ({error})"
    if not isinstance(members, dict):
        return f"found {type(members).__name__}, expected an object"
    absent = [name for name in ("video", "start_ms", "end_ms", "text") if name not in members]
    if absent:
        return f"found no {' and no '.join(absent)}"
    video, text = members["video"], members["text"]
    start_ms, end_ms = members["start_ms"], members["end_ms"]
    if not isinstance(video, str) or not video or "/" in video or "\\" in video or "\0" in video:
        return f"found video {video!r}, expected a file name without folder or ending"
    if not isinstance(text, str) or not text.strip():
        return f"found text {text!r}, expected a sentence"
    for name, value in (("start_ms", start_ms), ("end_ms", end_ms)):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return f"found {name} {value!r}, expected a number"
        if not 0 <= value <= MAX_MS:  # false for NaN too
            return f"found {name} {str(value)[:40]}, expected 0 to {MAX_MS}"
    if not start_ms < end_ms:
        return f"found start_ms {start_ms} and end_ms {end_ms}, expected the end after the start"
    return Caption(video, math.floor(start_ms), math.ceil(end_ms), " ".join(text.split()), number)


def _feature_problem(store: FeatureStore, video: str) -> str | None:
    try:
        store.check(video)
    except FeatureError as error:
        return str(error)
    return None


def _outside(caption: Caption, length: int) -> str | None:
    duration_ms = length * GRID_MS
    if caption.start_ms >= duration_ms or caption.end_ms > duration_ms + END_TOLERANCE_MS:
        return (
            f"found {caption.start_ms} to {caption.end_ms} ms, outside the video "
            f"{caption.video!r} of {duration_ms} ms"
        )
    return None
