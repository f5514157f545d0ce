"""Encoders open_clip: on tiny models with random weights, against open_clip itself."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from ovoad_model import vocabulary
from ovoad_model.build import build_detector, build_encoder
from ovoad_model.open_clip_encoder.encoder import OpenClipEncoder, load_encoder
from ovoad_model.open_clip_encoder.prompts import KINETICS
from ovoad_model.probabilities import label_probabilities

from .open_clip_parts import add_tiny_models, random_model, write_weights

TEXTS = ["a photo of action archery", "a dog", "a man who throws a long javelin over a field"]


@pytest.fixture(autouse=True)
def tiny_models(monkeypatch: pytest.MonkeyPatch) -> None:
    add_tiny_models(monkeypatch)


def loaded(name: str, folder: Path, **settings: Any) -> tuple[Any, OpenClipEncoder]:
    """open_clip's model and our encoder of the same weights."""
    model = random_model(name, **settings)
    path = write_weights(model, folder / f"{name}.safetensors")
    tag = "/webli" if "sigmoid" in name else ""
    encoder = load_encoder(f"open_clip:{name}{tag}@{path}", runtime="torch", cache=folder)
    return model, encoder


def frames() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((64, 64), (90, 120))]


def prepared(model: Any, pictures: list[np.ndarray], **changes: Any) -> torch.Tensor:
    config = PreprocessCfg(**(model.visual.preprocess_cfg | changes))
    transform = image_transform_v2(config, is_train=False)
    return torch.stack([transform(Image.fromarray(picture)) for picture in pictures])


@pytest.mark.parametrize("name", ["tiny-vit", "tiny-sigmoid", "tiny-resnet"])
def test_embeddings_equal_open_clips(name: str, tmp_path: Path) -> None:
    model, encoder = loaded(name, tmp_path)
    changes = {"mean": (0.5,) * 3, "resize_mode": "squash"} if "sigmoid" in name else {}
    with torch.inference_mode():
        images = model.encode_image(prepared(model, frames(), **changes), normalize=True).numpy()
        texts = model.encode_text(open_clip.get_tokenizer(name)(TEXTS), normalize=True).numpy()
    features = encoder.encode_frames(frames())
    assert features.shape == (2, encoder.feature_width)
    assert features.dtype == np.float32
    projected = encoder.project(features)
    assert (projected * images).sum(axis=1).min() > 1 - 1e-5  # the resized frame differs by a level
    assert encoder.encode_text(TEXTS) == pytest.approx(texts, abs=1e-5)
    assert encoder.embedding_width == texts.shape[1]


def test_features_of_a_vit_are_its_class_token_after_the_last_norm(tmp_path: Path) -> None:
    model, encoder = loaded("tiny-vit", tmp_path)
    with torch.inference_mode():
        pooled = model.visual(prepared(model, frames()[:1])).numpy()  # 64 x 64: nothing resized
    assert encoder.feature_width == 32
    features = encoder.encode_frames(frames()[:1])
    assert encoder.image_projection is not None
    assert features @ encoder.image_projection == pytest.approx(pooled, abs=1e-5)


def test_a_tower_without_a_last_map_projects_by_the_identity(tmp_path: Path) -> None:
    _, encoder = loaded("tiny-resnet", tmp_path)
    assert encoder.image_projection is not None
    assert (encoder.image_projection == np.eye(32)).all()


def test_project_takes_any_leading_axes(tmp_path: Path) -> None:
    _, encoder = loaded("tiny-vit", tmp_path)
    features = np.random.default_rng(0).normal(size=(2, 3, 32)).astype(np.float32)
    projected = encoder.project(features)
    assert projected.shape == (2, 3, 24)
    assert np.linalg.norm(projected, axis=-1) == pytest.approx(1, abs=1e-5)


def test_labels_share_probability_as_in_clips_softmax(tmp_path: Path) -> None:
    model, encoder = loaded("tiny-vit", tmp_path)
    with torch.inference_mode():
        logits, _ = model.get_logits(
            prepared(model, frames()[:1]), open_clip.get_tokenizer("tiny-vit")(TEXTS)
        )
    similarities = (
        encoder.encode_text(TEXTS) @ encoder.project(encoder.encode_frames(frames()[:1]))[0]
    )
    shares, background = label_probabilities(
        similarities,
        np.zeros(1, np.float32),
        temperature=encoder.temperature,
        floor=encoder.background_floor,
    )
    assert encoder.background_floor == float("-inf")
    assert background > 0
    assert shares / shares.sum() == pytest.approx(logits[0].softmax(-1).numpy(), abs=1e-4)


def test_one_label_without_concepts_has_siglips_own_probability(tmp_path: Path) -> None:
    """sigmoid(scale · similarity + bias): the floor is where it is one half."""
    model = random_model("tiny-sigmoid")
    with torch.no_grad():
        model.logit_bias.fill_(-3.0)
        model.logit_scale.fill_(2.0)
    path = write_weights(model, tmp_path / "siglip.safetensors")
    encoder = load_encoder(f"open_clip:tiny-sigmoid/webli@{path}", runtime="torch", cache=tmp_path)
    for similarity in (-0.3, 0.1, 0.5):
        (probability,), background = label_probabilities(
            np.array([similarity], np.float32),
            np.array([-np.inf], np.float32),
            temperature=encoder.temperature,
            floor=encoder.background_floor,
        )
        expected = 1 / (1 + np.exp(-(np.exp(2.0) * similarity - 3.0)))
        assert probability == pytest.approx(expected, abs=1e-5)
        assert background == pytest.approx(1 - expected, abs=1e-5)


def test_long_and_many_texts_come_out_as_one_by_one(tmp_path: Path) -> None:
    model, encoder = loaded("tiny-vit", tmp_path)
    texts = [f"label {number} {'very ' * (number % 90)}long" for number in range(150)]
    whole = encoder.encode_text(texts)
    with torch.inference_mode():
        tokens = open_clip.get_tokenizer("tiny-vit")(texts)
        expected = model.encode_text(tokens, normalize=True).numpy()
    assert whole == pytest.approx(expected, abs=1e-5)
    assert encoder.encode_text([]).shape == (0, 24)
    assert encoder.encode_frames([]).shape == (0, 32)


def test_fingerprints_tell_weights_and_preprocessing_not_files(tmp_path: Path) -> None:
    model, encoder = loaded("tiny-vit", tmp_path)
    torch.save(model.state_dict(), tmp_path / "same.pt")
    same = load_encoder(f"open_clip:tiny-vit@{tmp_path / 'same.pt'}", runtime="torch")
    assert same.fingerprint == encoder.fingerprint
    other = write_weights(random_model("tiny-vit", seed=1), tmp_path / "other.safetensors")
    assert load_encoder(f"open_clip:tiny-vit@{other}").fingerprint != encoder.fingerprint
    (tmp_path / "open_clip_config.json").write_text('{"preprocess_cfg": {"resize_mode": "squash"}}')
    squashed = load_encoder(f"open_clip:tiny-vit@{tmp_path / 'same.pt'}")
    assert squashed.fingerprint != encoder.fingerprint


def test_names_do_not_show_folders(tmp_path: Path) -> None:
    _, encoder = loaded("tiny-sigmoid", tmp_path)
    assert encoder.name == "open_clip:tiny-sigmoid/webli@tiny-sigmoid.safetensors"


def test_warnings_name_language_and_length(tmp_path: Path) -> None:
    _, encoder = loaded("tiny-vit", tmp_path)
    assert encoder.warnings_for("archery") is None
    assert "is not in a language that encoder open_clip:tiny-vit" in str(
        encoder.warnings_for("弓を引く")
    )
    assert "has 82 tokens" in str(encoder.warnings_for("run " * 80))


def test_a_detector_scores_with_it(tmp_path: Path) -> None:
    path = write_weights(random_model("tiny-vit"), tmp_path / "tiny.safetensors")
    detector = build_detector(encoder=f"open_clip:tiny-vit@{path}", runtime="torch", cache=tmp_path)
    words = detector.vocabulary(["archery", "yoga"], templates=KINETICS)
    window = detector.open_window()
    window.push(0, detector.encode(frames()[:1])[0])
    (scores,) = detector.score([window.view()], [words])
    assert scores.probabilities.sum() + scores.background == pytest.approx(1, abs=1e-5)
    assert len(KINETICS) == 28


def test_build_encoder_names_open_clip_among_what_it_takes() -> None:
    with pytest.raises(Exception, match="expected one of embedded, open_clip:MODEL/TAG"):
        build_encoder("clip")


def test_many_labels_are_embedded_some_at_a_time_and_the_log_tells(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(vocabulary, "PROGRESS_S", -1.0)
    sizes: list[int] = []

    def embed(texts: Sequence[str]) -> np.ndarray:
        sizes.append(len(texts))
        return np.array([[len(text), text.count("0") + 1.0] for text in texts], np.float32)

    labels = [f"label {number}" for number in range(300)]
    together = vocabulary.embed_labels(labels, KINETICS, embed)
    assert max(sizes) == 28 * vocabulary.LABELS_AT_ONCE
    alone = [vocabulary.embed_labels([label], KINETICS, embed)[0] for label in labels[:3]]
    assert together[:3] == pytest.approx(np.array(alone))
    assert together.shape == (300, 2)
    assert "embedded 256 of 300 labels" in caplog.text
