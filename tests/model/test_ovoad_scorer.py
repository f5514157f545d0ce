"""Trained weights on disk and the scorer they serve."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from ovoad_model.arrays import Float32Array
from ovoad_model.encoder import Encoder
from ovoad_model.errors import DamagedFileError
from ovoad_model.network.adapters import TextAdapters
from ovoad_model.network.config import NetworkConfig
from ovoad_model.network.network import OVOAD
from ovoad_model.network.scorer import OvoadScorer, load_scorer
from ovoad_model.network.weights import (
    WeightsError,
    WeightsInfo,
    WrongEncoderError,
    load_weights,
    save_weights,
)
from ovoad_model.scorers import Scorer
from ovoad_model.window import WindowBatch

torch.set_num_threads(2)

CONFIG = NetworkConfig(
    feature_width=16, width=32, groups=3, heads=4, dntr_layers=1, cluster_layers_before=1,
    cluster_layers_after=1, text_width=12, current_width=12, joint_width=10, head_hidden=16,
    score_alpha=0.4,
)  # fmt: skip
INFO = WeightsInfo(CONFIG, "fake", "ab" * 32, 7, {"windows": 100})


@dataclass(frozen=True)
class FakeEncoder:
    name: str = "fake"
    fingerprint: str = "ab" * 32


ENCODER = cast(Encoder, FakeEncoder())


def build(config: NetworkConfig = CONFIG) -> OVOAD:
    torch.manual_seed(0)
    return OVOAD(config).eval()


def draw_windows(batch: int) -> WindowBatch:
    generator = np.random.default_rng(0)
    past_mask, neighbours_mask = (generator.random((batch, n)) < 0.7 for n in (24, 8))
    neighbours_mask[:, -1] = True
    past = generator.standard_normal((batch, 24, 16)).astype(np.float32)
    neighbours = generator.standard_normal((batch, 8, 16)).astype(np.float32)
    past[~past_mask], neighbours[~neighbours_mask] = 0, 0
    return WindowBatch(past, past_mask, neighbours, neighbours_mask)


def draw_text(count: int) -> Float32Array:
    text = np.random.default_rng(1).standard_normal((count, 12)).astype(np.float32)
    unit: Float32Array = text / np.linalg.norm(text, axis=1, keepdims=True)
    return unit


def test_dot_product_is_the_fused_score() -> None:
    network, windows, text = build(), draw_windows(5), draw_text(6)
    scorer: Scorer = OvoadScorer(network)
    embedded = scorer.embed_windows(windows)
    found = embedded.embedding @ scorer.embed_text(text).T
    with torch.no_grad():
        output = network(
            *(
                torch.tensor(x)
                for x in (
                    windows.past, windows.neighbours, windows.past_mask, windows.neighbours_mask
                )
            )
        )  # fmt: skip
        joint = network.embed_text_joint(torch.tensor(text)).numpy()
    # ŷ = onehot(argmax_k A)·G·T256ᵀ [-1] + α V'_N[-1]·T512ᵀ
    one_hot = np.eye(3)[output.assignment.numpy().argmax(axis=2)]
    p_ac = one_hot @ output.groups.numpy() @ joint.T
    p_dntr = output.current.numpy() @ text.T
    np.testing.assert_allclose(found, p_ac[:, -1] + 0.4 * p_dntr, atol=1e-5)
    assert embedded.embedding.dtype == np.float32
    assert embedded.assignment is not None
    assert embedded.groups is not None
    np.testing.assert_allclose(embedded.assignment, output.assignment.numpy(), atol=1e-6)
    np.testing.assert_allclose(embedded.groups[..., :10], output.groups.numpy(), atol=1e-6)
    assert not embedded.groups[..., 10:].any()


def test_without_clusters_the_score_is_the_current_frames() -> None:
    network, windows, text = build(), draw_windows(4), draw_text(6)
    scorer = OvoadScorer(network, clusters=False)
    found = scorer.embed_windows(windows).embedding @ scorer.embed_text(text).T
    fused = OvoadScorer(network, alpha=1.0).embed_windows(windows).embedding
    np.testing.assert_allclose(found, fused[:, 10:] @ text.T, atol=1e-5)


def test_shorter_past_takes_the_newest_frames() -> None:
    network, windows = build(replace(CONFIG, past=16)), draw_windows(4)
    expected = OvoadScorer(network).embed_windows(windows).embedding
    windows.past[:, :8] = 9.0
    found = OvoadScorer(network).embed_windows(windows).embedding
    np.testing.assert_array_equal(found, expected)


def test_longer_windows_than_the_servers_are_refused() -> None:
    with pytest.raises(ValueError, match="found a network of 32 past and 8 neighbouring frames"):
        OvoadScorer(build(replace(CONFIG, past=32)))


def test_foreground_is_the_networks_mask_of_the_text() -> None:
    network, windows = build(), draw_windows(5)
    scorer = OvoadScorer(network)
    embedded, text = scorer.embed_windows(windows), scorer.embed_text(draw_text(5))
    assert embedded.assignment is not None
    assert embedded.groups is not None
    found = scorer.foreground(embedded.assignment, embedded.groups, text)
    similarity = np.einsum("bnk,bke,be->bn", embedded.assignment, embedded.groups, text)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-10 * similarity)), atol=1e-5)


def test_temperature_is_the_learned_one() -> None:
    network = build()
    with torch.no_grad():
        network.scale_joint.log_scale.fill_(float(np.log(50)))
    assert OvoadScorer(network).temperature == pytest.approx(1 / 50, rel=1e-5)
    assert OvoadScorer(network, clusters=False).temperature == pytest.approx(0.07, rel=1e-5)


def test_saved_weights_score_the_same(tmp_path: Path) -> None:
    network, windows = build(), draw_windows(3)
    save_weights(tmp_path / "run", network, INFO)
    expected = OvoadScorer(network).embed_windows(windows).embedding
    for path in (tmp_path / "run", tmp_path / "run" / "model.safetensors"):
        found = load_scorer(path, ENCODER).embed_windows(windows).embedding
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert load_weights(tmp_path / "run", ENCODER).info == INFO
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "model.safetensors",
        "config.json",
    }


def test_weights_of_another_encoder_are_refused_by_name(tmp_path: Path) -> None:
    save_weights(tmp_path, build(), INFO)
    with pytest.raises(
        WrongEncoderError,
        match=r"made for encoder 'fake' \(abababababab\), found encoder 'other' \(cdcdcdcdcdcd\)",
    ):
        load_weights(tmp_path, cast(Encoder, FakeEncoder("other", "cd" * 32)))
    with pytest.raises(WrongEncoderError):
        load_weights(tmp_path, cast(Encoder, FakeEncoder(fingerprint="cd" * 32)))


def test_untrained_weights_are_refused(tmp_path: Path) -> None:
    save_weights(tmp_path, build(), replace(INFO, trained_steps=0))
    with pytest.raises(WeightsError, match="found 0 trained steps, expected 1 at least"):
        load_weights(tmp_path, ENCODER)


def test_absent_or_changed_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"found no config.json, expected it beside"):
        load_weights(tmp_path, ENCODER)
    save_weights(tmp_path, build(), INFO)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(DamagedFileError):
        load_weights(tmp_path, ENCODER)
    weights.unlink()
    with pytest.raises(DamagedFileError, match="found no such file"):
        load_weights(tmp_path, ENCODER)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"config": {"depth": 1}}'])
def test_damaged_config_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(WeightsError, match="found no valid config"):
        load_weights(tmp_path, ENCODER)


def test_weights_that_do_not_fit_their_config_are_refused(tmp_path: Path) -> None:
    save_weights(tmp_path, build(), replace(INFO, config=replace(CONFIG, groups=5)))
    with pytest.raises(WeightsError, match="do not fit their config"):
        load_weights(tmp_path, ENCODER)


def test_diverged_weights_are_never_written(tmp_path: Path) -> None:
    network = build()
    with torch.no_grad():
        network.current_head.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"found values in current_head.weight"):
        save_weights(tmp_path, network, INFO)
    assert not any(tmp_path.iterdir())


def test_text_adapters_travel_with_the_weights_and_need_a_tower(tmp_path: Path) -> None:
    adapters = TextAdapters(2, 12)
    torch.nn.init.normal_(cast(Any, adapters.adapters[1]).up.weight)
    save_weights(tmp_path, build(), INFO, text_adapters=adapters)
    loaded = load_weights(tmp_path, ENCODER).text_adapters
    assert loaded is not None
    for name, tensor in adapters.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], tensor)
    with pytest.raises(WeightsError, match="found text adapters, expected an open_clip encoder"):
        load_scorer(tmp_path, ENCODER)


def test_config_is_readable_json(tmp_path: Path) -> None:
    save_weights(tmp_path, build(), INFO)
    members = json.loads((tmp_path / "config.json").read_text())
    assert members["encoder_name"] == "fake"
    assert members["config"]["width"] == 32
    assert members["training"] == {"windows": 100}
