"""From videos to a served network: features, captions, train, serve, one frame after another."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from websockets.sync.client import connect

from ovoad_client import protocol
from ovoad_client.recording import read_recording

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

COLOURS = {"red": (0, 0, 220), "green": (0, 200, 0), "blue": (220, 0, 0)}
REPOSITORY = Path(__file__).parents[2]
CLIPS = Path(os.environ.get("OVOAD_TEST_CLIPS", REPOSITORY.parent / "shared" / "clips"))
REAL = ("archery.avi", "eye_makeup.avi", "guitar.mp4")


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
    train(folder, {"width": 64, "heads": 4, "head_hidden": 512})
    return folder


def train(folder: Path, network: dict[str, int]) -> None:
    """Turn folder's videos and captions.jsonl into folder/run/weights."""
    features = str(folder / "features")
    ovoad("features", str(folder / "videos"), "--encoder", "embedded", "--out", features)
    members = folder / "network.json"
    members.write_text(json.dumps(network))
    ovoad(
        *("train", "--captions", str(folder / "captions.jsonl"), "--features", features),
        *("--out", str(folder / "run"), "--size", "small", "--network", str(members)),
        *("--epochs", "2", "--warmup-epochs", "1", "--batch-size", "8"),
        *("--phrases", "off", "--no-tensorboard", "--threads", "2"),
    )


@contextmanager
def served(weights: Path) -> Iterator[str]:
    """Serve the weights; yield host:port."""
    serving = [sys.executable, "-m", "ovoad_server", "--port", "0", "--scorer", "ovoad"]
    serving += ["--weights", str(weights)]
    with subprocess.Popen(serving, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield server.stdout.readline().strip().rpartition("http://")[2]
        finally:
            server.terminate()


def frames() -> list[bytes]:
    pixels = [np.full((48, 64, 3), colour, np.uint8) for colour in COLOURS.values()]
    return [cv2.imencode(".jpg", image)[1].tobytes() for image in pixels]


def test_trained_network_is_served_with_its_groups(trained: Path) -> None:
    with (
        served(trained / "run" / "weights") as address,
        connect(f"ws://{address}/v1/stream") as socket,
    ):
        words = protocol.Vocabulary(labels=["painting a wall red", "cooking"])
        create = protocol.SessionCreate(vocabulary=words, policy="lossless")
        socket.send(create.to_json())
        created = protocol.parse_server_message(socket.recv(timeout=60))
        assert isinstance(created, protocol.SessionCreated)
        assert created.model.scorer == "ovoad"
        for seq, image in enumerate(frames()):
            socket.send(protocol.pack_frame(seq, 250 * seq, image))
        answers = [protocol.parse_server_message(socket.recv(timeout=60)) for _ in frames()]
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


@pytest.fixture(scope="module")
def trained_on_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short training run on three real clips, each captioned by its label."""
    missing = [name for name in ("labels.json", *REAL) if not (CLIPS / name).is_file()]
    if missing:
        pytest.skip(f"no {', '.join(missing)} in {CLIPS}; set OVOAD_TEST_CLIPS")
    folder = tmp_path_factory.mktemp("clips")
    (folder / "videos").mkdir()
    told = json.loads((CLIPS / "labels.json").read_text())
    lines = []
    for name in REAL:
        (folder / "videos" / name).symlink_to((CLIPS / name).resolve())
        caption = {"video": Path(name).stem, "start_ms": 0, "end_ms": 3000}
        lines.append(json.dumps({**caption, "text": f"a person {told[name]['label']}"}))
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")
    train(folder, {"width": 32, "heads": 4, "head_hidden": 128, "joint_width": 32})
    return folder


def test_network_trained_on_real_clips_answers_watch(trained_on_clips: Path) -> None:
    labels = [entry["label"] for entry in json.loads((CLIPS / "labels.json").read_text()).values()]
    saved = trained_on_clips / "out.jsonl"
    with served(trained_on_clips / "run" / "weights") as address:
        ovoad(
            *("watch", str(CLIPS / REAL[-1]), "--url", f"ws://{address}/v1/stream"),
            *("--labels", *(label for label in labels if label)),
            *("--policy", "lossless", "--pace", "fast", "--duration", "4"),
            *("--no-table", "--save", str(saved)),
        )
    messages = list(read_recording(saved))
    created, *_, closed = messages
    assert isinstance(created, protocol.SessionCreated)
    assert created.model.scorer == "ovoad"
    answers = [message for message in messages if isinstance(message, protocol.Prediction)]
    assert isinstance(closed, protocol.SessionClosed)
    assert len(answers) == closed.predicted == closed.received > 16
    assert answers[-1].window.frames > 8
    for answer in answers:
        assert answer.grouping is not None
        assert answer.window.gaps == 0
        assignment = np.array(answer.grouping.assignment)
        there = min(answer.window.frames, 8)
        np.testing.assert_allclose(assignment[-there:].sum(axis=1), 1, atol=1e-4)
        assert np.all(assignment[:-there] == 0)


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
