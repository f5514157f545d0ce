"""Features of a folder of videos: the grid, what is skipped, what is damaged, what is refused."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from ovoad_model.arrays import Float32Array, Frame
from ovoad_model.training import features as features_module
from ovoad_model.training.feature_store import FeatureDescription, FeatureError
from ovoad_model.training.features import extract_features, find_videos


class GreyEncoder:
    """An encoder whose feature is the frame's mean grey, three times."""

    name = "grey"
    input_size = 1
    feature_width = 3
    embedding_width = 3
    temperature = 0.1
    languages = ("en",)
    templates = ("{}",)
    background = ("background",)
    background_floor = 0.0
    lanes = 1

    def __init__(self, fingerprint: str = "abc") -> None:
        self.fingerprint = fingerprint
        self.calls = 0

    def encode_frames(self, frames: Sequence[Frame]) -> Float32Array:
        self.calls += 1
        return np.array([[frame.mean()] * 3 for frame in frames], np.float32)

    def project(self, features: Float32Array) -> Float32Array:
        return features

    def encode_text(self, texts: Sequence[str]) -> Float32Array:
        return np.ones((len(texts), 3), np.float32)

    def warnings_for(self, text: str) -> str | None:
        return None


def write_video(path: Path, *, fps: float = 20.0, frames: int = 60) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (32, 32))
    for index in range(frames):
        writer.write(np.full((32, 32, 3), (10 + 4 * index) % 250, dtype=np.uint8))
    writer.release()
    return path


def test_a_row_is_the_frame_of_its_grid_time(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.avi")
    report = extract_features([video], GreyEncoder(), tmp_path / "out", batch_size=5)
    features = np.load(tmp_path / "out" / "a.npy")
    assert features.shape == (13, 3)
    assert features.dtype == np.float32
    indices = (features[:, 0] - 8) / 4
    assert indices == pytest.approx([0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 59], abs=0.5)
    assert report.written == [video]
    assert report.frames == 13


def test_a_slow_video_repeats_the_row_before_in_empty_cells(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.avi", fps=2.0, frames=4)
    extract_features([video], GreyEncoder(), tmp_path / "out")
    features = np.load(tmp_path / "out" / "a.npy")[:, 0]
    assert len(features) == 7
    assert features[0] == features[1] != features[2]


def test_finished_videos_are_skipped_and_unfinished_ones_done_again(tmp_path: Path) -> None:
    videos = [write_video(tmp_path / name) for name in ("a.avi", "b.avi", "c.avi")]
    extract_features(videos, GreyEncoder(), tmp_path / "out")
    (tmp_path / "out" / "b.npy").write_bytes(b"torn")
    (tmp_path / "out" / "c.npy").unlink()
    seen: list[Path] = []
    report = extract_features(videos, GreyEncoder(), tmp_path / "out", on_video=seen.append)
    assert report.skipped == videos[:1]
    assert sorted(report.written) == videos[1:]
    assert sorted(seen) == videos
    assert not list((tmp_path / "out").glob(".*"))


def test_damaged_videos_are_reported_and_the_others_written(tmp_path: Path) -> None:
    good = write_video(tmp_path / "good.avi")
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video" * 99)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    report = extract_features([bad, good, empty], GreyEncoder(), tmp_path / "out", workers=3)
    assert report.written == [good]
    reasons = {damaged.path: damaged.reason for damaged in report.damaged}
    assert reasons[empty] == "found an empty file, expected a video"
    assert "not a video" in reasons[bad]
    assert not (tmp_path / "out" / "bad.npy").exists()


def test_features_of_another_encoder_are_refused(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.avi")
    extract_features([video], GreyEncoder(), tmp_path / "out")
    found = FeatureDescription.read(tmp_path / "out")
    assert found == FeatureDescription("grey", "abc", 3, 4.0)
    with pytest.raises(FeatureError, match=r"found features of grey \(abc\), expected grey \(x\)"):
        extract_features([video], GreyEncoder("x"), tmp_path / "out")


def test_videos_are_found_in_folders_below_by_their_endings(tmp_path: Path) -> None:
    for name in ("b.MP4", "sub/a.mkv", "README.md", "labels.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_videos(tmp_path) == [tmp_path / "b.MP4", tmp_path / "sub" / "a.mkv"]
    (tmp_path / "sub" / "b.avi").touch()
    with pytest.raises(FeatureError, match="found the same name as"):
        find_videos(tmp_path)
    with pytest.raises(FeatureError, match="found no such folder"):
        find_videos(tmp_path / "absent")


def test_a_fault_of_ours_in_a_thread_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: Path) -> Iterator[tuple[int, Frame]]:
        raise ZeroDivisionError

    monkeypatch.setattr(features_module, "read_grid_frames", broken)
    monkeypatch.setattr(features_module, "WAIT_S", 0.01)
    with pytest.raises(ZeroDivisionError):
        extract_features([tmp_path / "a.avi"], GreyEncoder(), tmp_path / "out")


def test_a_failing_encoder_ends_the_run_and_leaves_no_torn_file(tmp_path: Path) -> None:
    class FailingEncoder(GreyEncoder):
        def encode_frames(self, frames: Sequence[Frame]) -> Float32Array:
            raise MemoryError

    videos = [write_video(tmp_path / f"{i}.avi", frames=300) for i in range(4)]
    with pytest.raises(MemoryError):
        extract_features(videos, FailingEncoder(), tmp_path / "out", batch_size=1)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["features.json"]
