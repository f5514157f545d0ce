"""The server as its own process with the real encoder: start, answers, signals, a shell session."""

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from ovoad_client import protocol
from ovoad_client.protocol import ScorerName
from ovoad_model.build import build_detector
from ovoad_model.detector import Detector, Scores
from ovoad_server.engine.images import decode_image

pytestmark = pytest.mark.slow
WAIT_S = 60.0
LABELS = ["a ball bouncing", "riding a bicycle", "a person cooking"]
FRAME_MS = 200
SHELL_SESSION = r"""
{ echo '{"type":"session.create","vocabulary":{"labels":["riding a bicycle"]}}'
  echo '{"type":"frame","seq":0,"timestamp_ms":0,"image_base64":"'$(base64 -w0 photo.jpg)'"}'
  echo '{"type":"session.close"}'
  sleep 2
} | python -m websockets ws://127.0.0.1:8000/v1/stream | sed -n 's/.*< //p'
"""


@dataclass
class ServerProcess:
    """A running server; `stop` sends a signal and returns exit status and standard error."""

    process: "subprocess.Popen[str]"
    address: str

    def connect(self) -> ClientConnection:
        return connect(f"ws://{self.address}/v1/stream", open_timeout=WAIT_S, proxy=None)

    def stop(self, number: signal.Signals) -> tuple[int, str]:
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, errors


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `python -m ovoad_server` with flags, in an empty home."""
    started: list[subprocess.Popen[str]] = []

    def start_with(*flags: str) -> "subprocess.Popen[str]":
        names = (name for name in os.environ if not name.startswith(("OVOAD_", "XDG_")))
        process = subprocess.Popen(
            [sys.executable, "-m", "ovoad_server", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **{name: os.environ[name] for name in names},
                "HOME": str(tmp_path),
                "OVOAD_RUNTIME": "onnxruntime",
            },
        )
        started.append(process)
        return process

    yield start_with
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def server(start: Start) -> ServerProcess:
    """Return a server that listens."""
    process = start("--port", "0")
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(r"ovoad_server listening on http://(127\.0\.0\.1:\d+)\n", line)
    if found is None:
        process.kill()
        pytest.fail(f"found {line!r}, expected an address; {process.communicate()[1]}")
    return ServerProcess(process, found[1])


@pytest.fixture(scope="module")
def detector() -> Detector:
    return build_detector()


@pytest.fixture(scope="module")
def video() -> list[bytes]:
    """Return 3 s of a ball that crosses a changing background, five JPEG frames a second."""
    frames = []
    for index in range(15):
        pixels = np.full((120, 160, 3), (200 - 10 * index, 120, 40 + 12 * index), np.uint8)
        cv2.circle(pixels, (10 * index, 60 + 2 * index), 14, (30, 220, 240), -1)
        frames.append(cv2.imencode(".jpg", pixels)[1].tobytes())
    return frames


def say(socket: ClientConnection, message: protocol.Message) -> None:
    socket.send(message.to_json())


def hear(socket: ClientConnection) -> protocol.ServerMessage:
    return protocol.parse_server_message(socket.recv(timeout=WAIT_S, decode=True))


def stream(
    server: ServerProcess, video: list[bytes], scorer: ScorerName
) -> list[protocol.Prediction]:
    """Send a whole video, return its predictions."""
    with server.connect() as socket:
        vocabulary = protocol.Vocabulary(labels=LABELS)
        say(
            socket,
            protocol.SessionCreate(vocabulary=vocabulary, policy="lossless", scorer=scorer),
        )
        assert isinstance(hear(socket), protocol.SessionCreated)
        for seq, image in enumerate(video):
            socket.send(protocol.pack_frame(seq, seq * FRAME_MS, image))
        say(socket, protocol.SessionClose())
        predictions = []
        while not isinstance(message := hear(socket), protocol.SessionClosed):
            if isinstance(message, protocol.Prediction):
                predictions.append(message)
        assert (message.received, message.predicted) == (len(video), len(video))
    return predictions


def score(detector: Detector, video: list[bytes], scorer: ScorerName) -> list[Scores]:
    """Score a whole video without a server."""
    vocabulary = detector.vocabulary(LABELS, scorer=scorer)
    window = detector.open_window()
    scores = []
    for index, image in enumerate(video):
        (feature,) = detector.encode([decode_image(image, max_pixels=10**6)])
        window.push(index * FRAME_MS, feature)
        scores += detector.score([window.view()], [vocabulary])
    return scores


def test_streamed_predictions_equal_the_model_s_own(
    server: ServerProcess, detector: Detector, video: list[bytes]
) -> None:
    scorers: list[ScorerName] = ["frame", "average", "cluster"]
    for scorer in scorers:
        streamed, direct = stream(server, video, scorer), score(detector, video, scorer)
        assert [prediction.seq for prediction in streamed] == list(range(len(video)))
        for one, other in zip(streamed, direct, strict=True):
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
            assert one.similarities == pytest.approx(other.similarities, abs=1e-5)
            assert one.background == pytest.approx(other.background, abs=1e-5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_server_in_order_with_a_session_open(
    server: ServerProcess, video: list[bytes], number: signal.Signals
) -> None:
    with server.connect() as client:
        say(client, protocol.SessionCreate(vocabulary=protocol.Vocabulary(labels=LABELS)))
        assert isinstance(hear(client), protocol.SessionCreated)
        client.send(protocol.pack_frame(0, 0, video[0]))
        assert isinstance(hear(client), protocol.Prediction)
        status, errors = server.stop(number)
        goaway, last = hear(client), hear(client)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=WAIT_S)
    assert goaway == protocol.GoAway(
        reason="restart", time_left_ms=4000 if number == signal.SIGTERM else 0
    )
    assert isinstance(last, protocol.SessionClosed)
    assert (last.reason, last.received, last.predicted) == ("restart", 1, 1)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == protocol.CLOSE_RESTART
    assert (status, [line for line in errors.splitlines() if " INFO " not in line]) == (0, [])


def test_port_in_use_is_told_in_one_line(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start("--port", str(port))
        output, errors = process.communicate(timeout=WAIT_S)
    message = f"ovoad serve: cannot bind 127.0.0.1:{port}: Address already in use\n"
    assert (process.returncode, output, errors) == (1, "", message)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--host", "0.0.0.0"),
            "found host 0.0.0.0 without an API key, expected OVOAD_API_KEY or "
            "OVOAD_KEYS_FILE to be set (or OVOAD_ALLOW_ANONYMOUS=true to let anyone in)",
        ),
        (("--port", "70000"), "port: Input should be less than or equal to 65535"),
    ],
)
def test_bad_setting_is_told_in_one_line(
    start: Start, flags: tuple[str, ...], message: str
) -> None:
    process = start(*flags)
    output, errors = process.communicate(timeout=WAIT_S)
    assert (process.returncode, output, errors) == (1, "", f"ovoad serve: {message}\n")


@pytest.mark.parametrize(
    "flags",
    [("--encoder", "nothing"), ("--runtime", "nothing"), ("--scorer", "ovoad")],
)
def test_model_that_cannot_be_built_is_told_in_one_line(
    start: Start, flags: tuple[str, ...]
) -> None:
    process = start("--port", "0", *flags)
    output, errors = process.communicate(timeout=WAIT_S)
    assert (process.returncode, output) == (1, "")
    assert re.fullmatch(r"ovoad serve: [^\n]*expected [^\n]*\n", errors), errors


def test_session_can_be_driven_from_a_shell(
    server: ServerProcess, video: list[bytes], tmp_path: Path
) -> None:
    (tmp_path / "photo.jpg").write_bytes(video[0])
    script = SHELL_SESSION.replace("127.0.0.1:8000", server.address)
    result = subprocess.run(
        ["bash", "-c", script.replace("python", sys.executable)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=True,
    )
    messages = [protocol.parse_server_message(line) for line in result.stdout.splitlines()]
    assert [message.type for message in messages] == [
        "session.created",
        "prediction",
        "session.closed",
    ]
    assert json.loads(result.stdout.splitlines()[1])["seq"] == 0
    assert base64.b64encode(video[0]).decode() not in result.stdout
