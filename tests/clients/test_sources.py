"""Tests of video sources: real small files, missing cameras, unreadable files."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from ovoad_client.errors import MissingExtraError, SourceError
from ovoad_client.sources import describe_cameras, encode_jpeg, open_source, sent_size

if TYPE_CHECKING:
    from tests.clients.conftest import MakeVideo


def test_a_file_tells_its_size_rate_and_length(make_video: MakeVideo) -> None:
    source = open_source(str(make_video(frames=10, fps=20.0)))
    assert (source.width, source.height, source.fps) == (64, 48, 20.0)
    assert source.duration_ms == 500.0
    assert not source.live
    assert source.name == "v.mp4"
    source.close()


def test_times_are_those_of_the_file_and_strictly_increase(make_video: MakeVideo) -> None:
    source = open_source(str(make_video(frames=6, fps=30.0)))
    assert list(source.grab()) == [0, 33, 67, 100, 133, 167]
    source.close()


def test_a_file_without_times_is_counted_on(make_video: MakeVideo, tmp_path: Path) -> None:
    path = tmp_path / "v.mjpeg"  # bare JPEG images one after another, no container
    images = [cv2.imencode(".jpg", np.full((16, 16, 3), 40 * i, np.uint8))[1] for i in range(4)]
    path.write_bytes(b"".join(image.tobytes() for image in images))
    source = open_source(str(path))
    times = list(source.grab())
    assert len(times) == 4
    assert times == sorted(set(times))
    source.close()


def test_frames_decode_as_they_were_written(make_video: MakeVideo) -> None:
    source = open_source(str(make_video(frames=3)))
    shades = []
    for _ in source.grab():
        image = source.retrieve()
        assert image is not None
        assert image.shape == (48, 64, 3)
        shades.append(float(image.mean()))
    assert shades == pytest.approx([10, 90, 170], abs=4)
    source.close()


@pytest.mark.parametrize(
    ("size", "max_side", "expected"),
    [
        ((1920, 1080), 640, (640, 360)),
        ((1080, 1920), 640, (360, 640)),
        ((320, 240), 640, (320, 240)),
        ((1920, 1080), 0, (1920, 1080)),
        ((5000, 1), 640, (640, 1)),
    ],
)
def test_longer_side_is_bounded(
    size: tuple[int, int], max_side: int, expected: tuple[int, int]
) -> None:
    assert sent_size(*size, max_side) == expected


def test_frames_are_sent_as_jpeg_of_the_bounded_size() -> None:
    data = encode_jpeg(np.full((100, 200, 3), 128, np.uint8), max_side=50)
    assert data[:2] == b"\xff\xd8"
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert decoded.shape == (25, 50, 3)


def test_a_missing_file_is_told() -> None:
    with pytest.raises(SourceError, match=r"cannot read video 'x\.mp4': file does not exist"):
        open_source("x.mp4")


def test_a_folder_without_pictures_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"found no pictures, expected names ending in \.jpg"):
        open_source(str(tmp_path))


def test_an_empty_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "empty.mp4"
    path.touch()
    with pytest.raises(SourceError, match="no video frames found: the file is empty"):
        open_source(str(path))


def test_a_file_that_is_no_video_is_told(tmp_path: Path) -> None:
    path = tmp_path / "notes.mp4"
    path.write_text("these are notes, not a video\n" * 50)
    with pytest.raises(SourceError, match=r"cannot read video '.*notes\.mp4': no video frames"):
        open_source(str(path))


@pytest.mark.skipif(sys.platform != "linux", reason="cameras are listed on Linux only")
def test_a_missing_camera_tells_which_there_are() -> None:
    with pytest.raises(SourceError, match=r"cannot open camera 97: found (none|/dev/video)"):
        open_source("97")


def test_cameras_are_listed_in_order(tmp_path: Path) -> None:
    assert describe_cameras(tmp_path) == "found none (no /dev/video*)"
    for number in (10, 2, 0):
        (tmp_path / f"video{number}").touch()
    names = ", ".join(str(tmp_path / f"video{number}") for number in (0, 2, 10))
    assert describe_cameras(tmp_path) == f"found {names}"


def test_an_address_that_gives_no_video_is_told_without_its_password() -> None:
    with pytest.raises(SourceError, match="cannot read video http://…@127") as caught:
        open_source("http://me:hunter2@127.0.0.1:9/stream")
    assert "hunter2" not in str(caught.value)


def test_without_opencv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=r"needs the watch extra .* 'ovoad\[watch\]'"):
        open_source("v.mp4")
