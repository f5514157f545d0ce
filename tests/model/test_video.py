"""Reading a video file on the 4 fps grid."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from ovoad_model.video import VideoError, read_grid_frames


def write_video(path: Path, *, fps: float, seconds: float, codec: str = "MJPG") -> Path:
    """Write a video whose frame i is the grey value 10 + 2 i (so that a frame tells its index)."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (64, 48))
    assert writer.isOpened()
    for index in range(round(fps * seconds)):
        writer.write(np.full((48, 64, 3), (10 + 2 * index) % 256, dtype=np.uint8))
    writer.release()
    return path


def frame_index(frame: np.ndarray) -> int:
    """The index that `write_video` painted (the codec darkens every grey by 2)."""
    return round((float(frame.mean()) - 8) / 2)


@pytest.mark.parametrize(
    ("fps", "wanted"),
    [
        (5.0, [0, 1, 2, 4, 5, 6, 7, 9]),
        (25.0, [0, 6, 12, 19, 25, 31, 37, 44, 48]),
        (60.0, [0, 15, 30, 45, 60, 75, 90, 105, 116]),
        (4.0, [0, 1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_the_frame_nearest_to_each_grid_time_is_kept(
    tmp_path: Path, fps: float, wanted: list[int]
) -> None:
    path = write_video(tmp_path / "grey.avi", fps=fps, seconds=1.95)
    found = list(read_grid_frames(path))
    assert [frame_index(frame) for _, frame in found] == wanted
    for (timestamp_ms, _), index in zip(found, wanted, strict=True):
        assert timestamp_ms == pytest.approx(index * 1000 / fps, abs=1)


def test_a_video_slower_than_the_grid_leaves_cells_empty(tmp_path: Path) -> None:
    path = write_video(tmp_path / "slow.avi", fps=2.0, seconds=2.0)
    assert [timestamp_ms for timestamp_ms, _ in read_grid_frames(path)] == [0, 500, 1000, 1500]


def test_another_rate_can_be_asked_for(tmp_path: Path) -> None:
    path = write_video(tmp_path / "grey.avi", fps=25.0, seconds=2.0)
    assert [time for time, _ in read_grid_frames(path, fps=1.0)] == [0, 1000, 1960]
    with pytest.raises(ValueError, match="found fps 0, expected more than 0"):
        list(read_grid_frames(path, fps=0))


def test_frames_are_rgb_uint8_and_contiguous(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(
        str(tmp_path / "red.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 4.0, (64, 48)
    )
    writer.write(np.full((48, 64, 3), (0, 0, 250), dtype=np.uint8))  # OpenCV writes BGR
    writer.release()
    ((_, frame),) = read_grid_frames(tmp_path / "red.avi")
    assert frame.dtype == np.uint8
    assert frame.shape == (48, 64, 3)
    assert frame.flags["C_CONTIGUOUS"]
    assert frame[..., 0].mean() > 230
    assert frame[..., 2].mean() < 20


def test_frames_come_one_at_a_time(tmp_path: Path) -> None:
    path = write_video(tmp_path / "grey.mp4", fps=25.0, seconds=2.0, codec="mp4v")
    frames = read_grid_frames(path)
    assert next(frames)[0] == 0
    assert next(frames)[0] == 240


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("absent.mp4", None, "found no such file"),
        ("empty.mp4", b"", "found an empty file, expected a video"),
        ("words.mp4", b"these are words" * 50, "found a file that is not a video"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_reason(
    tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(VideoError, match=reason) as caught:
        list(read_grid_frames(path))
    assert caught.value.path == path
    assert str(path) in str(caught.value)


def test_a_folder_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="found no plain file"):
        list(read_grid_frames(tmp_path))


def test_a_video_cut_short_gives_the_frames_that_are_there(tmp_path: Path) -> None:
    path = write_video(tmp_path / "grey.avi", fps=25.0, seconds=4.0)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    found = [timestamp_ms for timestamp_ms, _ in read_grid_frames(path)]
    assert 0 < len(found) < 16
    assert found == sorted(set(found))


def test_a_container_without_frames_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "grey.avi", fps=25.0, seconds=1.0)
    path.write_bytes(path.read_bytes().replace(b"00dc", b"99xx"))
    with pytest.raises(VideoError, match="found no frame that decodes"):
        list(read_grid_frames(path))
