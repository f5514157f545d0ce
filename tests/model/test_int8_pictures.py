"""Pictures to calibrate on come one by one: many full-size frames at once would be gigabytes."""

import weakref
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ovoad_model.int8 import network
from ovoad_model.int8.errors import CalibrationError
from ovoad_model.int8.network import Source, calibrate
from ovoad_model.int8.pictures import read_pictures


def write_pictures(folder: Path, count: int) -> None:
    for number in range(count):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((6, 8, 3), number, np.uint8))


def write_video(path: Path, seconds: int) -> None:
    """Write one frame a second, each brighter than the one before by 10."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 1.0, (32, 32))
    for second in range(seconds):
        writer.write(np.full((32, 32, 3), 10 * second, np.uint8))
    writer.release()


def test_calibration_holds_one_frame_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(tmp_path, 6)
    write_video(tmp_path / "video.avi", 8)
    seen: list[weakref.ref[Any]] = []
    most = 0

    def prepare(frames: Any) -> Any:
        nonlocal most
        (frame,) = frames
        seen.append(weakref.ref(frame))
        most = max(most, sum(each() is not None for each in seen))
        return np.zeros((1, 2, 2, 3), np.uint8)

    def make_folder(folder: Path, make: object) -> None:
        raise InterruptedError  # all is read; no network is needed

    monkeypatch.setattr(network, "make_folder", make_folder)
    source = Source("tiny", tmp_path / "no.onnx", tmp_path / "int8", prepare, lambda rows: rows)
    with pytest.raises(InterruptedError):
        calibrate(source, read_pictures(tmp_path), pictures="made-up ones")
    assert most <= 2, "the one that is prepared, and the one before until its name is taken"


def test_frames_of_a_video_are_spread_over_it(tmp_path: Path) -> None:
    write_video(tmp_path / "video.avi", 8)
    brightness = [round(float(frame.mean()) / 10) for frame in read_pictures(tmp_path, most=4)]
    assert brightness == [0, 2, 4, 6]
    assert len(list(read_pictures(tmp_path))) == 8


def test_no_folder_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="found no folder"):
        read_pictures(tmp_path / "none")
    write_pictures(tmp_path, 1)
    frames = read_pictures(tmp_path)
    next(frames)
    with pytest.raises(CalibrationError, match="found 1 readable pictures"):
        next(frames)
