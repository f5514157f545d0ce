"""From videos to a served detector with an open_clip encoder and text adapters, tiny throughout."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ovoad_model.build import build_detector, build_encoder
from ovoad_model.network.adapters import ADAPTER_SCALE
from ovoad_model.training.captions import Caption, write_captions
from ovoad_model.training.commands import features_main, train_main
from ovoad_model.training.feature_store import FeatureDescription
from ovoad_model.training.run import image_projection

from .open_clip_parts import add_tiny_models, random_model, write_weights

NETWORK = {
    "width": 16, "heads": 2, "dntr_layers": 1, "cluster_layers_before": 1,
    "cluster_layers_after": 1, "joint_width": 8, "head_hidden": 16,
}  # fmt: skip


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    add_tiny_models(monkeypatch)
    path = write_weights(random_model("tiny-vit"), tmp_path / "tiny.safetensors")
    return f"open_clip:tiny-vit@{path}"


def write_video(path: Path, seed: int) -> None:
    generator = np.random.default_rng(seed)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 4.0, (64, 64))
    for _ in range(16):
        writer.write(generator.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    writer.release()


def trained(name: str, folder: Path) -> Path:
    """Run `ovoad features` and `ovoad train --text-adapters`; returns the weights."""
    (folder / "videos").mkdir()
    for number in range(2):
        write_video(folder / "videos" / f"v{number}.avi", number)
    features = ["--out", str(folder / "features"), "--encoder", name, "--runtime", "torch"]
    assert features_main([str(folder / "videos"), *features, "--workers", "1"]) == 0
    captions = [
        Caption(f"v{number}", 0, 3000, f"a person doing thing {number}") for number in range(2)
    ]
    write_captions(folder / "captions.jsonl", captions)
    (folder / "network.json").write_text(json.dumps(NETWORK))
    arguments = [
        *("--captions", str(folder / "captions.jsonl"), "--features", str(folder / "features")),
        *("--encoder", name, "--text-adapters", "--out", str(folder / "run")),
        *("--network", str(folder / "network.json"), "--epochs", "1", "--warmup-epochs", "0"),
        *("--batch-size", "4", "--windows-per-epoch", "8", "--phrases", "off", "--device", "cpu"),
        *("--no-tensorboard", "--threads", "1"),
    ]
    assert train_main(arguments) == 0
    return folder / "run" / "weights"


def test_features_training_and_serving_with_adapters(name: str, tmp_path: Path) -> None:
    weights = trained(name, tmp_path)
    description = FeatureDescription.read(tmp_path / "features")
    assert description is not None
    assert description.encoder == "open_clip:tiny-vit@tiny.safetensors"
    assert np.load(tmp_path / "features" / "v0.npy").shape == (16, 32)
    state = load_file(weights / "model.safetensors")
    assert "text_adapters.adapters.1.up.weight" in state
    detector = build_detector(
        encoder=name, weights=weights, runtime="torch", cache=tmp_path / "cache"
    )
    assert detector.scorer_names[0] == "ovoad"
    words = detector.vocabulary(["thing 0", "thing 1"])
    window = detector.open_window()
    window.push(0, detector.encode([np.zeros((64, 64, 3), np.uint8)])[0])
    (scores,) = detector.score([window.view()], [words])
    assert scores.probabilities.sum() + scores.background == pytest.approx(1, abs=1e-5)


def test_adapted_texts_do_not_meet_others_in_the_cache(name: str, tmp_path: Path) -> None:
    """One cache folder, first without adapters, then with two kinds: three embeddings."""
    weights = trained(name, tmp_path)
    state = load_file(weights / "model.safetensors")
    for tensor in (t for key, t in state.items() if key.endswith("up.bias")):
        tensor.copy_(torch.linspace(-1, 1, tensor.numel()) / ADAPTER_SCALE)  # to be seen plainly
    other = tmp_path / "other"
    other.mkdir()
    save_file(state, other / "model.safetensors")
    config = json.loads((weights / "config.json").read_text())
    content = (other / "model.safetensors").read_bytes()
    config["weights_sha256"] = hashlib.sha256(content).hexdigest()
    (other / "config.json").write_text(json.dumps(config))
    cache = tmp_path / "cache"

    def embedded(chosen: Path | None) -> np.ndarray:
        detector = build_detector(
            encoder=name, scorer="average", weights=chosen, runtime="torch", cache=cache
        )
        found: np.ndarray = detector.vocabulary(["thing 0"]).embeddings[0]
        return found

    plain, adapted, strongly = embedded(None), embedded(weights), embedded(other)
    assert (plain == embedded(None)).all()
    assert (strongly == embedded(other)).all()
    assert np.abs(plain - strongly).max() > 1e-3
    assert np.abs(adapted - strongly).max() > 1e-3


def test_training_starts_at_the_encoders_own_projection(name: str) -> None:
    encoder = build_encoder(name, runtime="torch")
    projection = image_projection(encoder)
    assert projection is not None
    assert projection.shape == (32, 24)
