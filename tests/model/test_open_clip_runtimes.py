"""Runtimes of the image side on a tiny tower: agreement, exports on disk, trials, buckets."""

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ovoad_model.build import build_detector
from ovoad_model.errors import ModelError
from ovoad_model.int8.errors import UncalibratedError
from ovoad_model.int8.network import calibrate
from ovoad_model.open_clip_encoder import exports, runtimes, trial
from ovoad_model.open_clip_encoder.encoder import OpenClipEncoder, load_encoder
from ovoad_model.open_clip_encoder.exports import Exports
from ovoad_model.open_clip_encoder.notes import Trial, read_trials, write_trial
from ovoad_model.open_clip_encoder.runtimes import Network, Workshop, in_buckets

from .open_clip_parts import add_tiny_models, random_model, write_weights


@pytest.fixture(autouse=True)
def tiny_models(monkeypatch: pytest.MonkeyPatch) -> None:
    add_tiny_models(monkeypatch)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that keeps one export for all tests that only read it."""
    return tmp_path_factory.mktemp("cache")


def encoder(folder: Path, runtime: str) -> OpenClipEncoder:
    path = folder / "tiny.safetensors"
    if not path.exists():
        write_weights(random_model("tiny-vit"), path)
    return load_encoder(f"open_clip:tiny-vit@{path}", runtime=runtime, cache=folder, device="cpu")


def frames(count: int = 3) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return list(generator.integers(0, 256, (count, 70, 90, 3), dtype=np.uint8))


def test_auto_takes_what_a_trial_found_fastest(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is fastest, OpenVINO too; torch-compile and lower precision are never tried."""
    for fastest in trial.ON_CPU:
        times = {name: 1.0 if name == fastest else 2.0 for name in trial.ON_CPU}
        made = Trial("tiny", times, {fastest: 1.0})
        monkeypatch.setattr(trial, "time_all", lambda networks, shop, made=made: made)
        monkeypatch.setattr(trial, "_load_all", lambda shop: dict.fromkeys(trial.ON_CPU, len))
        found = encoder(tmp_path, "auto")
        found.load_images()
        assert found.runtime == fastest
        (tmp_path / "encoders" / "trials.json").unlink()
    assert not [name for name in trial.ON_CPU if "int8" in name or "bf16" in name]


def test_calibrated_int8_runs_after_its_calibration_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("nncf")
    exact = encoder(tmp_path, "openvino")
    with pytest.raises(UncalibratedError, match="found no network that was calibrated, expected"):
        encoder(tmp_path, "openvino-int8").load_images()
    source = exact.int8_source()
    agreement = calibrate(source, frames(8), pictures="noise")
    assert (agreement.calibrated, agreement.judged) == (4, 4)
    assert agreement.mean > 0.98
    rough = encoder(tmp_path, "openvino-int8")
    left, right = exact.encode_frames(frames()), rough.encode_frames(frames())
    assert (exact.project(left) * rough.project(right)).sum(axis=1).min() > 0.98
    assert (left != right).any()
    assert "openvino-int8 of open_clip:tiny-vit@tiny.safetensors: cosine to float32" in caplog.text


@pytest.mark.parametrize("runtime", ["torch-channels-last", "onnxruntime", "openvino"])
def test_float32_runtimes_give_the_same_features(runtime: str, shared: Path) -> None:
    expected = encoder(shared, "torch").encode_frames(frames())
    found = encoder(shared, runtime)
    assert found.encode_frames(frames()) == pytest.approx(expected, abs=1e-4)
    assert found.encode_frames(frames(1)) == pytest.approx(expected[:1], abs=1e-4)
    assert found.runtime == runtime


@pytest.mark.parametrize("runtime", ["torch-bf16", "openvino-bf16"])
def test_half_precision_agrees_in_direction(runtime: str, shared: Path) -> None:
    exact, half = encoder(shared, "torch"), encoder(shared, runtime)
    cosine = exact.project(exact.encode_frames(frames())) * half.project(
        half.encode_frames(frames())
    )
    assert cosine.sum(axis=1).min() > 0.999


def test_a_second_start_reuses_the_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = encoder(tmp_path, "onnxruntime").encode_frames(frames())
    monkeypatch.setattr("ovoad_model.open_clip_encoder.exports.export", None)  # must not be called
    assert (encoder(tmp_path, "onnxruntime").encode_frames(frames()) == first).all()


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "manifest"])
def test_a_damaged_export_is_made_anew(
    damage: str,
    shared: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = encoder(shared, "onnxruntime").encode_frames(frames())
    (whole,) = shared.rglob("plain/image.onnx")
    monkeypatch.setattr(exports, "export", lambda tower, size, path: shutil.copy(whole, path))
    encoder(tmp_path, "onnxruntime").encode_frames(frames())
    (file,) = tmp_path.rglob("image.onnx")
    content = file.read_bytes()
    match damage:
        case "cut":
            file.write_bytes(content[: len(content) // 2])
        case "changed":
            file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        case "gone":
            file.unlink()
        case _:
            (file.parent / "manifest.json").write_text("{")
    assert (encoder(tmp_path, "onnxruntime").encode_frames(frames()) == first).all()
    assert "found it damaged, making it anew" in caplog.text


def test_auto_measures_once_and_takes_the_fastest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(trial, "BUDGET_S", 0.2)
    first = encoder(tmp_path, "auto")
    assert first.runtime == "auto"
    expected = first.encode_frames(frames())
    ((key, notes),) = read_trials(tmp_path).items()
    assert set(notes.times_ms) == set(trial.ON_CPU)
    assert first.runtime == notes.fastest
    assert notes.encoder == "open_clip:tiny-vit@tiny.safetensors"
    assert set(notes.batch_ms) <= set(trial.ON_CPU)
    slow = dict.fromkeys(trial.ON_CPU, 9.0) | {"torch-channels-last": 1.0}
    write_trial(tmp_path, key, Trial(notes.encoder, slow))
    monkeypatch.setattr(trial, "time_all", None)  # must not be called
    second = encoder(tmp_path, "auto")
    assert second.encode_frames(frames()) == pytest.approx(expected, abs=1e-4)
    assert second.runtime == "torch-channels-last"


def test_auto_goes_on_without_runtimes_that_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = runtimes.load_runtime

    def torch_alone(name: str, shop: Workshop) -> Network:
        if name != "torch":
            raise ModelError("not here")
        return load(name, shop)

    monkeypatch.setattr(trial, "load_runtime", torch_alone)
    found = encoder(tmp_path, "auto")
    found.encode_frames(frames())
    assert found.runtime == "torch"


def test_damaged_trial_notes_are_none(tmp_path: Path) -> None:
    (tmp_path / "encoders").mkdir()
    for content in ("{", "[]", json.dumps({"x": {"encoder": "a"}}), json.dumps({"x": 3})):
        (tmp_path / "encoders" / "trials.json").write_text(content)
        assert read_trials(tmp_path) == {}


def test_batches_are_filled_to_buckets_and_cut(shared: Path) -> None:
    sizes: list[int] = []

    def network(batch: torch.Tensor) -> np.ndarray:
        sizes.append(len(batch))
        return batch.float().mean(dim=(1, 2)).numpy()

    batch = torch.arange(70, dtype=torch.uint8)[:, None, None, None].expand(70, 2, 2, 3)
    found = in_buckets(network)(batch[:5])
    assert sizes == [8]
    assert found[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert in_buckets(network)(batch)[:, 0].tolist() == list(range(70))
    assert sizes == [8, 64, 8]


def test_exports_of_two_processes_do_not_meet(tmp_path: Path) -> None:
    """Whoever comes second keeps what the first one put there."""
    exports = Exports(tmp_path, "f" * 64, (64, 64))
    (exports.own_folder / "plain").mkdir(parents=True)
    made = encoder(tmp_path, "onnxruntime")
    made.encode_frames(frames())
    assert not list(tmp_path.rglob(".unfinished*"))


def test_texts_need_no_image_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ovoad_model.open_clip_encoder.images.load_runtime", None)
    assert encoder(tmp_path, "onnxruntime").encode_text(["archery"]).shape == (1, 24)


def test_int8_tells_how_far_it_agrees_and_is_refused_where_it_does_not(
    shared: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    exact, rough = encoder(shared, "onnxruntime"), encoder(shared, "onnxruntime-int8")
    left, right = exact.encode_frames(frames()), rough.encode_frames(frames())
    assert (exact.project(left) * rough.project(right)).sum(axis=1).min() > 0.98
    assert (left != right).any()
    assert "cosine to float32 on made-up pictures: mean 0.9" in caplog.text
    monkeypatch.setattr(runtimes, "LEAST_AGREEMENT", 1.1)
    with pytest.raises(runtimes.UnusableRuntimeError, match=r"mean 0\.9.* expected 1\.1"):
        encoder(shared, "onnxruntime-int8").encode_frames(frames())


def test_a_detector_for_frames_is_made_ready_at_once(tmp_path: Path) -> None:
    path = write_weights(random_model("tiny-vit"), tmp_path / "tiny.safetensors")
    name, places = f"open_clip:tiny-vit@{path}", (tmp_path / "with", tmp_path / "without")
    build_detector(encoder=name, runtime="onnxruntime", cache=places[0])
    build_detector(encoder=name, runtime="onnxruntime", cache=places[1], frames=False)
    assert [bool(list(place.rglob("image.onnx"))) for place in places] == [True, False]
