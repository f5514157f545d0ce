"""From videos to a served network: features, captions, train, serve, one frame after another."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from websockets.sync.client import connect

from ovoad_client import protocol

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

COLOURS = {"red": (0, 0, 220), "green": (0, 200, 0), "blue": (220, 0, 0)}


def ovoad(*arguments: str) -> str:
    """Run a command of the real program; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "ovoad_client", *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small training run on three made-up videos."""
    folder = tmp_path_factory.mktemp("train")
    (folder / "videos").mkdir()
    lines = []
    for name, colour in COLOURS.items():
        path = str(folder / "videos" / f"{name}.avi")
        writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), 4.0, (64, 48))
        for step in range(40):
            pixels = np.full((48, 64, 3), colour if 10 <= step < 30 else (90, 90, 90), np.uint8)
            writer.write(pixels)
        writer.release()
        text = f"a person paints a wall {name}"
        lines.append(json.dumps({"video": name, "start_ms": 2500, "end_ms": 7500, "text": text}))
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")
    videos, features = str(folder / "videos"), str(folder / "features")
    ovoad("features", videos, "--encoder", "embedded", "--out", features)
    network = folder / "network.json"
    network.write_text(json.dumps({"width": 64, "heads": 4, "head_hidden": 512}))
    ovoad(
        *("train", "--captions", str(folder / "captions.jsonl"), "--features", features),
        *("--out", str(folder / "run"), "--size", "small", "--network", str(network)),
        *("--epochs", "2", "--warmup-epochs", "1", "--batch-size", "8"),
        *("--phrases", "off", "--no-tensorboard", "--threads", "2"),
    )
    return folder


def frames() -> list[bytes]:
    pixels = [np.full((48, 64, 3), colour, np.uint8) for colour in COLOURS.values()]
    return [cv2.imencode(".jpg", image)[1].tobytes() for image in pixels]


def test_trained_network_is_served_with_its_groups(trained: Path) -> None:
    serving = [sys.executable, "-m", "ovoad_server", "--port", "0", "--scorer", "ovoad"]
    serving += ["--weights", str(trained / "run" / "weights")]
    with subprocess.Popen(serving, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip().rpartition("http://")[2]
            with connect(f"ws://{address}/v1/stream") as socket:
                words = protocol.Vocabulary(labels=["painting a wall red", "cooking"])
                create = protocol.SessionCreate(vocabulary=words, policy="lossless")
                socket.send(create.to_json())
                created = protocol.parse_server_message(socket.recv(timeout=60))
                assert isinstance(created, protocol.SessionCreated)
                assert created.model.scorer == "ovoad"
                for seq, image in enumerate(frames()):
                    socket.send(protocol.pack_frame(seq, 250 * seq, image))
                answers = [protocol.parse_server_message(socket.recv(timeout=60)) for _ in frames()]
        finally:
            server.terminate()
    for seq, answer in enumerate(answers):
        assert isinstance(answer, protocol.Prediction)
        assert answer.probabilities is not None
        assert sum(answer.probabilities) + answer.background == pytest.approx(1, abs=1e-4)
        assert answer.grouping is not None
        assignment = np.array(answer.grouping.assignment)
        there = min(seq + 1, 8)
        np.testing.assert_allclose(assignment[-there:].sum(axis=1), 1, atol=1e-4)
        assert np.all(assignment[:-there] == 0)
        assert len(answer.grouping.foreground) == 8
        assert all(0 <= share <= 1 for share in answer.grouping.foreground)


def test_weights_of_another_encoder_are_refused_by_name(trained: Path, tmp_path: Path) -> None:
    weights = trained / "run" / "weights"
    other = tmp_path / "weights"
    other.mkdir()
    (other / "model.safetensors").write_bytes((weights / "model.safetensors").read_bytes())
    config = (weights / "config.json").read_text()
    assert '"embedded"' in config
    (other / "config.json").write_text(config.replace('"embedded"', '"open_clip:ViT-B-16/openai"'))
    serving = [sys.executable, "-m", "ovoad_server", "--port", "0", "--scorer", "ovoad"]
    done = subprocess.run(
        [*serving, "--weights", str(other)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 1
    assert "open_clip:ViT-B-16/openai" in done.stderr
    assert "embedded" in done.stderr
    assert "Traceback" not in done.stderr
