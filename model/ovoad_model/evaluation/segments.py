"""Raw videos and a CSV of segments: truth for people who have no feature files.

    video,start_s,end_s,label
    kitchen.mp4,3.5,9.0,washing dishes
    corridor.mp4,,,                      a video in which none of the labels happens

A frame has a label where start_s <= its time < end_s. Knows no detector.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovoad_model.evaluation.scored import Instance, Truth
from ovoad_model.metrics import EvaluationError

HEADER = ("video", "start_s", "end_s", "label")


@dataclass(frozen=True)
class Segment:
    """One label over [start_s, end_s) of one video; `line` is where the CSV says so."""

    video: str
    start_s: float
    end_s: float
    label: str
    line: int


@dataclass(frozen=True)
class Segments:
    """All segments, the videos in the CSV's order and the labels in sorted order."""

    videos: tuple[str, ...]
    labels: tuple[str, ...]
    segments: tuple[Segment, ...]


def read_segments(path: Path) -> Segments:
    """Read the CSV; a bad line is named with what was found and expected."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, ValueError) as cause:
        raise EvaluationError(f"{path}: found no readable CSV ({cause})") from cause
    header = tuple(cell.strip() for cell in rows[0]) if rows else ()
    if header != HEADER:
        raise EvaluationError(
            f"{path}, line 1: found {','.join(header) or 'nothing'}, expected {','.join(HEADER)}"
        )
    videos: dict[str, None] = {}
    segments: list[Segment] = []
    for line, row in enumerate(rows[1:], 2):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        video, segment = _parse_row(cells, where=f"{path}, line {line}", line=line)
        videos.setdefault(video)
        if segment is not None:
            segments.append(segment)
    if not segments:
        raise EvaluationError(f"{path}: found no segment, expected at least one")
    labels = sorted({segment.label for segment in segments})
    return Segments(tuple(videos), tuple(labels), tuple(segments))


def _parse_row(cells: Sequence[str], *, where: str, line: int) -> tuple[str, Segment | None]:
    if len(cells) != len(HEADER) or not cells[0]:
        raise EvaluationError(f"{where}: found {','.join(cells)}, expected {','.join(HEADER)}")
    video, start, end, label = cells
    if not (start or end or label):
        return video, None
    if not label:
        raise EvaluationError(f"{where}: found no label, expected some words")
    start_s, end_s = _seconds(start, "start_s", where), _seconds(end, "end_s", where)
    if end_s <= start_s:
        raise EvaluationError(
            f"{where}: found end_s {end_s:g}, expected more than start_s {start_s:g}"
        )
    return video, Segment(video, start_s, end_s, label, line)


def _seconds(text: str, name: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise EvaluationError(f"{where}: found {name} {text!r}, expected seconds, 0 or more")
    return value


def truth_of(
    video: str,
    segments: Sequence[Segment],
    labels: Sequence[str],
    timestamps_ms: NDArray[np.int64],
) -> Truth:
    """Lay a video's segments over its frames' timestamps [L].

    A segment that begins after the last frame is refused; one that falls between two frames of
    the grid has no frame and counts nowhere.
    """
    targets = np.zeros((len(timestamps_ms), len(labels)), np.bool_)
    instances = []
    for segment in segments:
        if segment.video != video:
            continue
        if segment.start_s * 1000 > timestamps_ms[-1]:
            raise EvaluationError(
                f"line {segment.line}: found start_s {segment.start_s:g}, expected at most the "
                f"{timestamps_ms[-1] / 1000:g} s of {video}"
            )
        bounds = [segment.start_s * 1000, segment.end_s * 1000]
        first, end = (int(index) for index in np.searchsorted(timestamps_ms, bounds, "left"))
        label = labels.index(segment.label)
        targets[first:end, label] = True
        if end > first:
            instances.append(Instance(label, first, end))
    counted = np.ones(len(timestamps_ms), np.bool_)
    return Truth(video, timestamps_ms, targets, counted, tuple(instances))
