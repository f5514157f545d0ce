"""An archive gives the numbers and the events that a server gives over the same clips."""

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pyarrow", reason="archives need the scale extra")

from ovoad_client.clip_sending import ClipQuestion, send_clip
from ovoad_client.clip_sources import open_clip
from ovoad_client.protocol import EventSettings
from ovoad_model.archive.events import EventRule as ArchiveRule
from ovoad_model.archive.events import find_actions
from ovoad_model.archive.settings import ArchiveSettings
from ovoad_model.archive.sources import list_videos
from ovoad_model.archive.worker import Setup, Worker
from ovoad_server.engine.events import EventDetector, EventRule

from .real_server import RealServer, start_server, stop_server

LABELS = ("a red circle", "a person playing guitar", "a meadow")


@given(
    steps=st.lists(st.sampled_from([1, 125, 250, 500, 2000, 2001, 9000]), min_size=1, max_size=40),
    data=st.data(),
)
@settings(max_examples=100, deadline=None)
def test_actions_are_those_that_the_server_reports(steps: list[int], data: st.DataObject) -> None:
    times = [int(each) for each in np.cumsum(steps)]
    values = st.sampled_from([0.0, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0])
    rows = data.draw(st.lists(st.tuples(values, values), min_size=len(times), max_size=len(times)))
    enter, exit_ = sorted(data.draw(st.tuples(values, values)), reverse=True)
    least_ms = data.draw(st.sampled_from([0, 250, 1000]))
    probabilities = np.array(rows, np.float32)
    detector = EventDetector(EventRule(enter, exit_, least_ms), LABELS[:2])
    events = []
    for timestamp_ms, row in zip(times, probabilities, strict=True):
        events += detector.update(timestamp_ms, row)
    events += detector.finish()
    expected = {(e.label, e.start_ms, e.timestamp_ms) for e in events if e.kind == "end"}
    rule = ArchiveRule(enter, exit_, least_ms)
    actions = find_actions(times, probabilities, LABELS[:2], rule)
    assert {(a.label, a.start_ms, a.end_ms) for a in actions} == expected
    assert len(actions) == len(expected)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    server = start_server(tmp_path_factory.mktemp("home"), promised_fps=0)
    yield server
    stop_server(server)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a video of a red circle that comes, goes and comes again, over a field."""
    path = tmp_path_factory.mktemp("drawn") / "drawn.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 12.5, (320, 240))
    assert writer.isOpened()
    for index in range(150):
        pixels = np.full((240, 320, 3), (60, 140, 90), np.uint8)
        if index // 40 % 2:
            cv2.circle(pixels, (20 + 2 * index, 120), 60, (20, 20, 220), -1)
        writer.write(pixels)
    writer.release()
    return path


def test_archive_and_rest_give_the_same_numbers_and_events(
    server: RealServer, drawn: Path, tmp_path: Path
) -> None:
    rule = ArchiveRule(0.2, 0.15, 250)  # events in a drawn video, whatever it is taken for
    asked = ArchiveSettings(labels=LABELS, runtime="onnxruntime", events=rule)
    worker = Worker(Setup(asked, "digest", tmp_path / "cache"))
    (row,) = worker.score(list_videos([str(drawn)])[0]).to_pylist()
    worker.close()
    events = EventSettings(enter=0.2, exit=0.15, min_duration_ms=250)
    question = ClipQuestion(LABELS, events=events).to_json()
    with open_clip(str(drawn)) as clip:
        answer = send_clip(clip, question, url=server.address)
        messages = [json.loads(line) for line in answer]
    predictions = [each for each in messages if each["type"] == "prediction"]
    assert row["timestamps_ms"] == [each["timestamp_ms"] for each in predictions]
    for name in ("probabilities", "background", "similarities"):
        expected = np.array([each[name] for each in predictions])
        assert np.abs(np.array(row[name]) - expected).max() <= 1e-5
    ends = [each for each in messages if each["type"] == "event" and each["kind"] == "end"]
    found = {(each["label"], each["start_ms"], each["end_ms"]) for each in row["events"]}
    assert found == {(each["label"], each["start_ms"], each["timestamp_ms"]) for each in ends}
    assert found, "nothing was compared"
