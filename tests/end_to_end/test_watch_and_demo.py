"""The commands as a person runs them: a real server process, a real video, real files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import pytest

from ovoad_client.demo import LABELS, find_demo_video
from ovoad_client.protocol import Prediction, SessionClosed, SessionCreated
from ovoad_client.recording import read_recording

pytestmark = pytest.mark.slow
OVOAD = (sys.executable, "-m", "ovoad_client")
LIMIT_S = 110


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Return the environment without settings of the surroundings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OVOAD_")}


@pytest.fixture(scope="module")
def address(environment: dict[str, str]) -> Iterator[str]:
    """Return the address of a real server with an API key."""
    command = [*OVOAD, "serve", "--port", "0"]
    environment = {**environment, "OVOAD_API_KEY": "a-key", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("ovoad_server listening on http://"), line
        yield line.split()[-1]
        process.terminate()
        # uvicorn shuts down in order, then lets the signal end the process.
        assert process.wait(30) in (0, -signal.SIGTERM)


def run(
    *arguments: str, folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run an ovoad command to its end."""
    return subprocess.run(
        [*OVOAD, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def test_watch_answers_every_frame_of_a_real_video(
    address: str, environment: dict[str, str], tmp_path: Path
) -> None:
    video = str(find_demo_video())
    done = run(
        *("watch", video, "--url", address, "--api-key", "a-key", "--labels", *LABELS),
        *("--policy", "lossless", "--pace", "fast", "--duration", "4"),
        *("--save", "out.jsonl", "--plot", "out.png"),
        folder=tmp_path,
        environment=environment,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "100 frames sent" in done.stdout
    assert "100 predictions, dropped: none, errors: 0" in done.stdout
    assert "warning" not in done.stdout
    messages = list(read_recording(tmp_path / "out.jsonl"))
    created, *_, closed = messages
    assert isinstance(created, SessionCreated)
    assert created.model.encoder == "embedded"
    assert isinstance(closed, SessionClosed)
    assert closed.received == closed.predicted == 100
    predictions = [message for message in messages if isinstance(message, Prediction)]
    assert [prediction.timestamp_ms for prediction in predictions] == list(range(0, 4000, 40))
    for prediction in predictions:
        assert prediction.probabilities is not None
        total = sum(prediction.probabilities) + prediction.background
        assert total == pytest.approx(1.0, abs=1e-4)
    assert cv2.imread(str(tmp_path / "out.png")) is not None


def test_several_sources_are_watched_at_once_into_files_of_every_kind(
    address: str, environment: dict[str, str], tmp_path: Path
) -> None:
    video = str(find_demo_video())
    save = ("out.jsonl", "out.csv", "out.events.csv", "out.srt", "out.mp4")
    done = run(
        *("watch", video, video, "--url", address, "--api-key", "a-key", "--labels", *LABELS),
        *("--policy", "lossless", "--pace", "fast", "--duration", "2", "--save", *save),
        folder=tmp_path,
        environment=environment,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[-1] == "2 sources: 100 frames sent, 100 predictions, dropped: none, errors: 0"
    for number in (1, 2):
        assert f"[{number}: bikes.mp4] wrote out.{number}.events.csv" in lines
        kinds = Counter(one.type for one in read_recording(tmp_path / f"out.{number}.jsonl"))
        assert kinds["prediction"] == 50
        assert len((tmp_path / f"out.{number}.csv").read_text().splitlines()) == 51
        with av.open(str(tmp_path / f"out.{number}.mp4")) as drawn:
            times = [round((frame.time or 0) * 1000) for frame in drawn.decode(video=0)]
        assert times == list(range(0, 2000, 40))


def test_pictures_may_come_from_standard_input(
    address: str, environment: dict[str, str], tmp_path: Path
) -> None:
    capture = cv2.VideoCapture(str(find_demo_video()))
    pictures = [cv2.imencode(".jpg", capture.read()[1])[1].tobytes() for _ in range(10)]
    command = [*OVOAD, "watch", "-", "--url", address, "--api-key", "a-key", "--labels", "waving"]
    done = subprocess.run(
        [*command, "--fps", "10", "--policy", "lossless", "--pace", "fast"],
        cwd=tmp_path,
        env=environment,
        input=b"".join(pictures),
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"10 frames sent" in done.stdout
    assert b"10 predictions, dropped: none, errors: 0" in done.stdout


@pytest.mark.parametrize("key", [[], ["--api-key", "wrong"]])
def test_watch_with_a_wrong_key_is_told(
    address: str, environment: dict[str, str], tmp_path: Path, key: list[str]
) -> None:
    video = str(find_demo_video())
    done = run(
        *("watch", video, "--url", address, "--labels", "waving", *key),
        folder=tmp_path,
        environment=environment,
    )
    assert done.returncode == 1
    assert "refused the connection" in done.stderr
    assert "pass --api-key or set OVOAD_API_KEY" in done.stderr
    assert done.stderr.count("\n") == 1


def test_watch_tells_what_the_server_refuses(
    address: str, environment: dict[str, str], tmp_path: Path
) -> None:
    video = str(find_demo_video())
    done = run(
        *("watch", video, "--url", address, "--api-key", "a-key"),
        *("--labels", *[f"action {number}" for number in range(1001)]),
        folder=tmp_path,
        environment=environment,
    )
    assert done.returncode == 1
    assert "found 1001 labels, expected at most 1000" in done.stderr


def test_demo_runs_through_and_leaves_its_files(
    environment: dict[str, str], tmp_path: Path
) -> None:
    done = run("demo", folder=tmp_path, environment=environment)
    assert (done.returncode, done.stderr) == (0, "")
    for text in (
        "the server is ready at http://127.0.0.1:",
        "first prediction",
        "event",
        "latency",
    ):
        assert text in done.stdout
    messages = list(read_recording(tmp_path / "demo" / "messages.jsonl"))
    kinds = Counter(message.type for message in messages)
    assert kinds["prediction"] + kinds["frame.dropped"] == 250
    assert kinds["prediction"] > 20
    assert isinstance(messages[-1], SessionClosed)
    picture = cv2.imread(str(tmp_path / "demo" / "timeline.png"))
    assert picture is not None
    assert picture.shape[1] > 1000
    assert "listening on" in (tmp_path / "demo" / "server.log").read_text()


def test_interrupted_demo_stops_its_server(environment: dict[str, str], tmp_path: Path) -> None:
    command = [*OVOAD, "demo"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("session "):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stdout.read()
        assert process.wait(LIMIT_S) == 130
    assert "the server has stopped" in rest
    assert "Traceback" not in rest
    assert isinstance(list(read_recording(tmp_path / "demo" / "messages.jsonl"))[-1], SessionClosed)
    assert "Finished server process" in (tmp_path / "demo" / "server.log").read_text()


def test_demo_shows_why_its_server_does_not_start(
    environment: dict[str, str], tmp_path: Path
) -> None:
    done = run("demo", "--encoder", "xyzzy", folder=tmp_path, environment=environment)
    assert done.returncode == 1
    assert "the server ended (1); the end of its log" in done.stderr
    assert "xyzzy" in done.stderr
    assert "Traceback" not in done.stderr
