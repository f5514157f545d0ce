"""Turn the field's annotation files into timed captions. Knows no features and no videos.

Formats: ActivityNet (class tags), ActivityNet Captions, InternVid's JSONL.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from ovoad_model.errors import ModelError
from ovoad_model.training.captions import Caption

TAG_TEMPLATE: Final = "a video of a person {}"
"""How a class tag ("Drinking coffee") becomes a sentence; the tag is put in lower case."""

LAST_S: Final = 2**53 / 1000
"""Times beyond this, 285,000 years, are no times: their milliseconds are not exact numbers."""

TIME_OF_DAY: Final = re.compile(r"(\d{1,9}):([0-5]?\d):([0-5]?\d(?:\.\d+)?)")


class AnnotationError(ModelError):
    """An annotation file that does not have its format's shape."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


@dataclass(frozen=True)
class Conversion:
    """Captions found, and a sentence for each entry that could not be used."""

    captions: list[Caption]
    problems: list[str]


def convert_activitynet(
    path: Path,
    *,
    subset: str | None = "training",
    template: str = TAG_TEMPLATE,
    video_prefix: str = "v_",
) -> Conversion:
    """Convert {"database": {id: {subset, annotations: [{segment: [s, s], label}]}}}.

    Times are seconds. Videos are named video_prefix + id, as the data set's files are.
    """
    database = _members(path, _read_json(path), "database")
    collected = _Collector(path)
    for name, entry in database.items():
        if not isinstance(entry, dict) or not isinstance(entry.get("annotations"), list):
            collected.problem(name, "found no list of annotations")
            continue
        if subset is not None and entry.get("subset") != subset:
            continue
        for index, annotation in enumerate(entry["annotations"]):
            tag = annotation.get("label") if isinstance(annotation, dict) else None
            segment = annotation.get("segment") if isinstance(annotation, dict) else None
            sentence = tag
            if isinstance(tag, str) and tag.strip():
                sentence = template.replace("{}", tag.lower())
            collected.caption(f"{name}, annotation {index}", video_prefix + name, segment, sentence)
    return collected.conversion()


def convert_activitynet_captions(path: Path) -> Conversion:
    """Convert {video: {duration, timestamps: [[s, s]], sentences: [str]}}; times are seconds."""
    collected = _Collector(path)
    for name, entry in _members(path, _read_json(path), None).items():
        times = entry.get("timestamps") if isinstance(entry, dict) else None
        sentences = entry.get("sentences") if isinstance(entry, dict) else None
        if not isinstance(times, list) or not isinstance(sentences, list):
            collected.problem(name, "found no lists of timestamps and sentences")
            continue
        if len(times) != len(sentences):
            collected.problem(name, f"found {len(times)} timestamps for {len(sentences)} sentences")
            continue
        for index, (segment, sentence) in enumerate(zip(times, sentences, strict=True)):
            collected.caption(f"{name}, sentence {index}", name, segment, sentence)
    return collected.conversion()


def convert_internvid(path: Path) -> Conversion:
    """Convert JSONL of {YoutubeID, Start_timestamp, End_timestamp "H:M:S.fff", Caption}."""
    collected = _Collector(path)
    for number, entry in _json_lines(path, collected):
        where = f"line {number}"
        video = entry.get("YoutubeID")
        if not isinstance(video, str) or not video:
            collected.problem(where, "found no YoutubeID")
            continue
        segment = [_seconds(entry.get(key)) for key in ("Start_timestamp", "End_timestamp")]
        collected.caption(where, video, segment, entry.get("Caption"))
    return collected.conversion()


class _Collector:
    """Gather captions in file order, and name each entry that is no caption."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._captions: list[Caption] = []
        self._problems: list[str] = []

    def problem(self, where: str, reason: str) -> None:
        self._problems.append(f"{self._path}: {where}: {reason}")

    def caption(self, where: str, video: str, segment: object, text: object) -> None:
        """Add a caption of a segment [start, end] in seconds."""
        if not (
            isinstance(segment, Sequence) and len(segment) == 2 and all(map(_is_time, segment))
        ):
            self.problem(where, f"found segment {segment!r}, expected [start, end] in seconds")
        elif not 0 <= segment[0] < segment[1]:
            self.problem(where, f"found segment {segment!r}, expected the end after the start")
        elif not isinstance(text, str) or not text.strip():
            self.problem(where, f"found text {text!r}, expected a sentence")
        else:
            start_ms, end_ms = round(segment[0] * 1000), round(segment[1] * 1000)
            sentence = " ".join(text.split())
            self._captions.append(Caption(video, start_ms, max(end_ms, start_ms + 1), sentence))

    def conversion(self) -> Conversion:
        if not self._captions:
            first = f" (first problem: {self._problems[0]})" if self._problems else ""
            raise AnnotationError(self._path, f"found no caption{first}")
        return Conversion(self._captions, self._problems)


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise AnnotationError(path, f"found no JSON ({error})") from error


def _members(path: Path, found: object, name: str | None) -> dict[str, Any]:
    """Return the object, or its member `name`, as a dict of entries."""
    if name is not None:
        found = found.get(name) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        raise AnnotationError(path, f"found no object {name!r}" if name else "found no object")
    return found


def _json_lines(path: Path, collected: _Collector) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
            except ValueError as error:
                collected.problem(f"line {number}", f"found no JSON ({error})")
                continue
            if isinstance(entry, dict):
                yield number, entry
            else:
                collected.problem(f"line {number}", "found no object")


def _is_time(value: object) -> bool:
    """Tell whether it is a number of seconds: no bool, no NaN, no infinity."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and -LAST_S < cast(float, value) < LAST_S


def _seconds(value: object) -> float | None:
    """Read "H:M:S.fff" or a number as seconds."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value
    match = TIME_OF_DAY.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return None
    hours, minutes, seconds = match.groups()
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
