"""An archive's worker: a video in, its row out, whatever the video is."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="archives need the scale extra")


from ovoad_model.archive.rows import SCHEMA
from ovoad_model.archive.scratch import clear_scratch, scratch_file
from ovoad_model.archive.settings import ArchiveSettings
from ovoad_model.archive.sources import Video, list_videos
from ovoad_model.archive.worker import Setup, Worker
from ovoad_model.video import read_grid_frames

from .archive_parts import draw_clip, write_bad

SETTINGS = ArchiveSettings(labels=("a red circle", "a person cooking"), runtime="onnxruntime")


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    worker = Worker(Setup(SETTINGS, "digest", tmp_path_factory.mktemp("cache")))
    yield worker
    worker.close()


def of_file(path: Path) -> Video:
    return list_videos([str(path)])[0]


def test_row_holds_the_librarys_numbers(worker: Worker, tmp_path: Path) -> None:
    path = draw_clip(tmp_path / "a.mp4", frames=300)
    table = worker.score(of_file(path))
    assert table.schema == SCHEMA
    (found,) = table.to_pylist()
    detector = SETTINGS.build_detector(tmp_path / "cache")
    words = detector.vocabulary(SETTINGS.labels)
    window = detector.open_window()
    for index, (timestamp_ms, frame) in enumerate(read_grid_frames(path)):
        window.push(timestamp_ms, detector.encode([frame])[0])
        (scores,) = detector.score([window.view()], [words])
        assert found["timestamps_ms"][index] == timestamp_ms
        assert found["probabilities"][index] == pytest.approx(list(scores.probabilities), abs=1e-5)
        assert found["background"][index] == pytest.approx(scores.background, abs=1e-5)
        assert found["similarities"][index] == pytest.approx(list(scores.similarities), abs=1e-5)
    assert index + 1 == found["frames"] == len(found["timestamps_ms"]) == 97
    assert (found["status"], found["width"], found["height"]) == ("ok", 160, 120)
    assert (found["duration_ms"], found["complete"], found["error"]) == (24_000, True, None)
    assert found["labels"] == list(SETTINGS.labels)
    assert (found["encoder"], found["scorer"], found["settings"]) == (
        "embedded",
        "average",
        "digest",
    )


def test_fewer_numbers_are_kept_where_asked_for(tmp_path: Path) -> None:
    clip = of_file(draw_clip(tmp_path / "a.mp4"))
    kept = {}
    for per_frame in ("all", "probabilities", "none"):
        settings = replace(SETTINGS, per_frame=per_frame)
        worker = Worker(Setup(settings, "digest", tmp_path / "cache"))
        (found,) = worker.score(clip).to_pylist()
        worker.close()
        columns = ("timestamps_ms", "probabilities", "background", "similarities")
        kept[per_frame] = [found[name] is not None for name in columns]
        assert found["frames"] == 9
        assert found["events"] is not None
    assert kept == {
        "all": [True, True, True, True],
        "probabilities": [True, True, True, False],
        "none": [False, False, False, False],
    }


def test_bad_videos_get_a_row(worker: Worker, tmp_path: Path) -> None:
    for path in write_bad(tmp_path):
        (found,) = worker.score(of_file(path)).to_pylist()
        assert (found["status"], found["error_code"]) == ("bad", "not_a_video")
        assert found["probabilities"] is None
    gone = of_file(path)
    path.unlink()
    (found,) = worker.score(gone).to_pylist()
    assert (found["error_code"], found["error"]) == ("not_a_video", "found no such file")
    (found,) = worker.give_up(gone, 3).to_pylist()
    assert (found["error_code"], found["seconds"]) == ("worker_died", 0.0)


def test_fault_of_ours_is_that_videos_alone(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = of_file(draw_clip(tmp_path / "a.mp4"))

    def fail(*arguments: object) -> None:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr("ovoad_model.archive.worker.score_frames", fail)
    (found,) = worker.score(clip).to_pylist()
    assert (found["error_code"], found["error"]) == ("failed", "ZeroDivisionError: of ours")
    monkeypatch.undo()
    (found,) = worker.score(clip).to_pylist()
    assert found["status"] == "ok"


def test_clip_cut_short_is_not_complete(worker: Worker, tmp_path: Path) -> None:
    import cv2

    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for index in range(60):
        writer.write(np.full((48, 64, 3), index * 4, np.uint8))
    writer.release()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    (found,) = worker.score(of_file(path)).to_pylist()
    assert (found["status"], found["complete"]) == ("ok", False)
    assert found["warnings"][-1].startswith("the file ends at ")


def test_copies_of_dead_processes_are_cleared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "ovoad-archive-4194309-x.mp4").write_text("of a process that is no more")
    with scratch_file(".mp4") as path:
        clear_scratch()
        assert list(tmp_path.iterdir()) == [path]
    assert list(tmp_path.iterdir()) == []
