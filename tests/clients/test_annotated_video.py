"""Tests of the annotated video: its times, sizes and words, and what happens when it fails."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from ovoad_client import annotated_video
from ovoad_client.annotated_video import AnnotatedVideo, VideoError, check_annotating
from ovoad_client.annotation import PANEL_WIDTH, STRIP_HEIGHT, Annotator, clock, text_image
from ovoad_client.errors import MissingExtraError, UsageError
from ovoad_client.notices import FramesLost
from ovoad_client.outputs import Outputs, check_outputs, format_of
from ovoad_client.protocol import Event, FrameDropped, Prediction, SessionCreated
from ovoad_client.recording import read_recording

MakePrediction = Callable[..., Prediction]
GREEN = (20, 200, 20)


def jpeg(width: int = 64, height: int = 48) -> bytes:
    """Return a green picture."""
    return cv2.imencode(".jpg", np.full((height, width, 3), GREEN, np.uint8))[1].tobytes()


def read(path: Path) -> list[tuple[int, np.ndarray[Any, Any]]]:
    """Return (time in ms, BGR picture) of each frame of a video."""
    with av.open(str(path)) as container:
        return [
            (round((frame.time or 0) * 1000), frame.to_ndarray(format="bgr24"))
            for frame in container.decode(video=0)
        ]


def test_frames_stand_at_their_own_times(
    created: SessionCreated, predict: MakePrediction, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "out.mp4"
    video = AnnotatedVideo(path, created)
    times = [0, 40, 100, 333, 777, 1000]  # a frame rate that varies
    for seq, time_ms in enumerate(times):
        video.push_frame(seq, time_ms, jpeg())
        if seq == 3:
            video.take(FrameDropped(seq=3, timestamp_ms=time_ms, reason="busy"))
        else:
            video.take(predict(seq, time_ms, [0.5, 0.25]))
    video.close()
    frames = read(path)
    assert [time for time, _ in frames] == [0, 40, 100, 777, 1000]
    assert frames[0][1].shape == (480 + STRIP_HEIGHT, 640 + PANEL_WIDTH, 3)
    assert frames[0][1][200, 300] == pytest.approx(GREEN, abs=12)
    assert video.note is None


def test_a_stretch_without_predictions_says_so(
    created: SessionCreated, predict: MakePrediction, tmp_path: Path
) -> None:
    video = AnnotatedVideo(tmp_path / "out.mp4", created)
    for seq, time_ms in enumerate([0, 100, 200, 3200, 3300]):
        video.push_frame(seq, time_ms, jpeg())
        video.take(predict(seq, time_ms, [0.5, 0.25]))
    video.close()
    frames = read(tmp_path / "out.mp4")
    assert [time for time, _ in frames] == [0, 100, 200, 450, 3200, 3300]
    assert frames[3][1][100, 300].max() < 90  # dimmed
    assert frames[4][1][100, 300] == pytest.approx(GREEN, abs=12)


def test_slow_sources_have_no_such_stretches(
    created: SessionCreated, predict: MakePrediction, tmp_path: Path
) -> None:
    video = AnnotatedVideo(tmp_path / "out.mp4", created)
    for seq in range(4):
        video.push_frame(seq, 900 * seq * (seq + 1) // 2, jpeg())
        video.take(predict(seq, 900 * seq * (seq + 1) // 2, [0.5, 0.25]))
    video.close()
    assert [time for time, _ in read(tmp_path / "out.mp4")] == [0, 900, 2700, 5400]


def test_a_video_without_a_prediction_is_closed_too(
    created: SessionCreated, tmp_path: Path
) -> None:
    video = AnnotatedVideo(tmp_path / "out.mp4", created)
    video.push_frame(0, 0, jpeg())
    video.take(FramesLost((0,)))
    video.close()
    assert (tmp_path / "out.mp4").exists()


def test_a_file_cut_off_while_it_is_written_plays(
    created: SessionCreated, predict: MakePrediction, tmp_path: Path
) -> None:
    video = AnnotatedVideo(tmp_path / "out.mp4", created)
    for seq in range(250):
        video.push_frame(seq, 40 * seq, jpeg(32, 32))
        video.take(predict(seq, 40 * seq, [0.5, 0.25]))
        video.wait_for_room()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes((tmp_path / "out.mp4").read_bytes())
    video.close()
    assert len(read(cut)) >= 99
    assert len(read(tmp_path / "out.mp4")) == 250


def test_more_than_can_be_drawn_is_left_out_and_told(
    created: SessionCreated,
    predict: MakePrediction,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(annotated_video, "MOST_WAITING", 0)
    video = AnnotatedVideo(tmp_path / "out.mp4", created)
    video.push_frame(0, 0, jpeg())
    video.take(predict(0, 0, [0.5, 0.25]))
    video.close()
    assert video.note is not None
    assert "lacks 1 frames: they came faster than they were drawn" in video.note


def test_a_failure_while_drawing_is_told(
    created: SessionCreated,
    predict: MakePrediction,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(self: object, *details: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(annotated_video._Drawing, "draw", full)
    video = AnnotatedVideo(tmp_path / "out.mp4", created)
    video.push_frame(0, 0, jpeg())
    video.take(predict(0, 0, [0.5, 0.25]))
    video.wait_for_room()
    with pytest.raises(VideoError, match=r"cannot write '.*out\.mp4': no space left on device"):
        video.close()


def test_a_failed_video_does_not_end_the_other_files(
    created: SessionCreated,
    predict: MakePrediction,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(self: object, *details: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(annotated_video._Drawing, "draw", full)
    paths = [tmp_path / name for name in ("out.mp4", "out.jsonl", "out.csv")]
    outputs = Outputs(paths, created)
    for seq in range(3):
        outputs.push_frame(40 * seq, jpeg())
        outputs.take(predict(seq, 40 * seq, [0.5, 0.25]))
    outputs._close_all()
    assert [str(failure) for failure in outputs.failures] == [
        f"cannot write '{tmp_path / 'out.mp4'}': no space left on device"
    ]
    kinds = [message.type for message in read_recording(tmp_path / "out.jsonl")]
    assert kinds == ["session.created", "prediction", "prediction", "prediction"]
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 4


def test_formats_are_told_by_the_ending() -> None:
    names = ["a.JSONL", "a.b.csv", "a.events.csv", "a.srt", "a.mp4"]
    found = [format_of(Path(name)) for name in names]
    assert found == ["messages", "predictions", "events", "subtitles", "video"]
    with pytest.raises(
        UsageError, match=r"found output 'a\.avi', expected a name ending in \.jsonl"
    ):
        check_outputs([Path("a.avi")])
    with pytest.raises(UsageError, match="the same output file twice"):
        check_outputs([Path("a.srt"), Path("a.srt")])


def test_without_pyav_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"needs the mp4 extra \(found no module av\)"):
        check_annotating()


@pytest.mark.parametrize("size", [(640, 272), (272, 640), (3, 500), (1920, 1080)])
def test_any_shape_of_picture_has_its_place(size: tuple[int, int]) -> None:
    annotator = Annotator(["waving", "jumping"], picture_size=size)
    picture = np.full((size[1], size[0], 3), GREEN, np.uint8)
    frame = annotator.draw(picture, 0, {"waving": 1.0, "jumping": 0.0}, 0.0)
    assert frame.shape == (annotator.height, annotator.width, 3)
    assert annotator.width % 2 == annotator.height % 2 == 0
    other = annotator.draw(np.zeros((33, 77, 3), np.uint8), 40, {}, 0.5)
    assert other.shape == frame.shape


def test_a_bar_is_as_long_as_its_probability() -> None:
    annotator = Annotator(["waving"], picture_size=(64, 48))
    picture = np.zeros((48, 64, 3), np.uint8)
    lengths = []
    for number, value in enumerate([0.25, 0.5, 1.0]):
        frame = annotator.draw(picture, 40 * number, {"waving": value}, 0.0)
        bar = frame[12 + 27, 640 + 12 : annotator.width - 12]
        lengths.append(int((bar == (233, 180, 86)).all(axis=1).sum()))
    assert lengths == [69, 138, 276]


def test_of_many_labels_the_likeliest_are_shown() -> None:
    labels = [f"action {number}" for number in range(100)]
    annotator = Annotator(labels, picture_size=(64, 48))
    values = {label: number / 200 for number, label in enumerate(labels)}
    annotator.draw(np.zeros((48, 64, 3), np.uint8), 0, values, 0.1)
    assert annotator._shown() == list(range(92, 100))


def test_events_and_times_are_words() -> None:
    assert clock(5_240) == "0:05.2"
    assert clock(3_723_400) == "1:02:03.4"
    annotator = Annotator(["waving"], picture_size=(640, 480))
    picture = np.zeros((480, 640, 3), np.uint8)
    plain = annotator.draw(picture, 1000, {"waving": 0.9}, 0.1)
    annotator.show_events({"waving": 500})
    shown = annotator.draw(picture, 1040, {"waving": 0.9}, 0.1)
    assert not plain[440:470, 12:200].any()
    assert shown[440:470, 12:200].any()


def test_long_and_foreign_words_fit() -> None:
    assert text_image("骑自行车" * 40, 15, (255,) * 3, (0,) * 3, 200).shape[1] <= 200
    assert text_image("", 15, (255,) * 3, (0,) * 3, 200).shape[0] == 20


def test_an_event_told_before_any_frame_is_no_problem(
    created: SessionCreated, predict: MakePrediction, tmp_path: Path
) -> None:
    video = AnnotatedVideo(tmp_path / "out.mp4", created)
    video.take(Event(kind="start", label="waving", timestamp_ms=0, probability=0.9, start_ms=0))
    video.push_frame(0, 40, jpeg())
    video.take(predict(0, 40, [0.9, 0.0]))
    video.take(Event(kind="end", label="waving", timestamp_ms=80, probability=0.1, start_ms=0))
    video.take(created)
    video.close()
    assert [time for time, _ in read(tmp_path / "out.mp4")] in ([40], [0])
