"""Whole architectures of open_clip with random weights: every number against open_clip itself.

SigLIP 2's own tokenizer lies on a hub; a small one made here stands in for it on both sides.
"""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from ovoad_model.arrays import Float32Array
from ovoad_model.open_clip_encoder.encoder import OpenClipEncoder, load_encoder
from ovoad_model.open_clip_encoder.exports import Exports
from ovoad_model.open_clip_encoder.names import parse_name
from ovoad_model.open_clip_encoder.runtimes import Workshop, load_runtime
from ovoad_model.open_clip_encoder.tower import cut_tower
from ovoad_model.open_clip_encoder.weights import load_model, visual_of
from ovoad_model.probabilities import label_probabilities

from .open_clip_parts import random_model, write_weights

MODELS: Final = {
    "ViT-B-32": ("", 768, 512),
    "ViT-B-16": ("", 768, 512),
    "MobileCLIP2-S0": ("/dfndr2b", 1024, 512),
    "ViT-B-16-SigLIP2": ("/webli", 768, 768),
    "RN50": ("", 1024, 1024),
    "convnext_base": ("", 1024, 512),
}
"""Tag whose preprocessing is taken, F and D."""

RUNS: Final = ("torch", "torch-channels-last", "onnxruntime", "openvino", "torch-bf16")
LEAST_COSINE: Final = {"float32": 1 - 1e-5, "torch-bf16": 0.999}
"""Of a frame's embedding with open_clip's own in float32, by precision."""

WORDS: Final = ("a", "photo", "of", "action", "person", "playing", "drums", "riding", "horse")
TEXTS: Final = ["a photo of action playing drums", "a person riding a horse", "running"]


def pictures(count: int = 3) -> list[np.ndarray]:
    """Noise of low frequency in sizes that are scaled down and up."""
    generator = np.random.default_rng(0)
    sizes = [(480, 640), (333, 201), (224, 224)][:count]
    coarse = [generator.integers(0, 256, (9, 12, 3), dtype=np.uint8) for _ in sizes]
    return [
        np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
        for small, (height, width) in zip(coarse, sizes, strict=True)
    ]


def write_stand_in_tokenizer(folder: Path) -> None:
    """A tokenizer of nine words, with the names of SigLIP's special tokens."""
    vocabulary = {"<pad>": 0, "<eos>": 1, "<unk>": 3} | {w: i for i, w in enumerate(WORDS, 4)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "<eos>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


class Reference:
    """What open_clip itself makes of the pictures and texts, its own way."""

    def __init__(self, model: Any, tokenizer: Any, preprocessing: dict[str, Any]) -> None:
        transform = image_transform_v2(PreprocessCfg(**preprocessing), is_train=False)
        batch = torch.stack([transform(Image.fromarray(picture)) for picture in pictures()])
        with torch.inference_mode():
            self.images: Float32Array = model.encode_image(batch, normalize=True).numpy()
            self.texts: Float32Array = model.encode_text(tokenizer(TEXTS), normalize=True).numpy()
        logits = float(model.logit_scale.exp()) * self.images @ self.texts.T
        if model.logit_bias is not None:
            logits = logits + float(model.logit_bias)
        self.logits = torch.from_numpy(logits)


@pytest.fixture(scope="module", params=MODELS)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, Reference]:
    """A model's name for us, the folder for its exports, and what open_clip makes of it."""
    name = request.param
    tag, _, _ = MODELS[name]
    folder = tmp_path_factory.mktemp("weights")
    model = random_model(name)
    path = write_weights(model, folder / "model.safetensors")
    preprocessing = dict(model.visual.preprocess_cfg)
    if tag:
        preprocessing |= {
            key: value
            for key, value in open_clip.get_pretrained_cfg(name, tag[1:]).items()
            if key in preprocessing
        }
    if "SigLIP2" in name:
        write_stand_in_tokenizer(folder)
        tokenizer: Any = open_clip.tokenizer.HFTokenizer(
            str(folder), context_length=64, clean="canonicalize"
        )
    else:
        tokenizer = open_clip.get_tokenizer(name)
    return f"open_clip:{name}{tag}@{path}", folder, Reference(model, tokenizer, preprocessing)


def checked(encoder: OpenClipEncoder, reference: Reference, least_cosine: float) -> None:
    """Compare embeddings and scores."""
    images = encoder.project(encoder.encode_frames(pictures()))
    assert (images * reference.images).sum(axis=1).min() > least_cosine
    similarities = images @ reference.texts.T
    logits = similarities / encoder.temperature
    if np.isfinite(encoder.background_floor):
        logits = logits - encoder.background_floor / encoder.temperature
    tolerance = 25 * np.sqrt(2 * (1 - least_cosine))
    assert logits == pytest.approx(reference.logits.numpy(), abs=tolerance)


@pytest.mark.slow
def test_embeddings_and_scores_equal_open_clips(pair: tuple[str, Path, Reference]) -> None:
    """Features' width, projected embeddings, text embeddings, softmax or sigmoid scores."""
    name, folder, reference = pair
    encoder = load_encoder(name, runtime="torch", cache=folder)
    model = name.partition(":")[2].partition("@")[0].partition("/")[0]
    _, feature_width, embedding_width = MODELS[model]
    assert (encoder.feature_width, encoder.embedding_width) == (feature_width, embedding_width)
    features = encoder.encode_frames(pictures())
    assert features.shape == (3, feature_width)
    texts = encoder.encode_text(TEXTS)
    assert texts == pytest.approx(reference.texts, abs=2e-6)
    checked(encoder, reference, LEAST_COSINE["float32"])
    similarities = encoder.project(features)[0] @ texts.T
    none = np.array([-np.inf if np.isfinite(encoder.background_floor) else 0.0], np.float32)
    probabilities, background = label_probabilities(
        similarities, none, temperature=encoder.temperature, floor=encoder.background_floor
    )
    if np.isfinite(encoder.background_floor):  # odds against none are SigLIP's own
        odds = reference.logits[0].sigmoid() / (1 - reference.logits[0].sigmoid())
        assert probabilities / background == pytest.approx(odds.numpy(), rel=2e-2)
    else:
        shares = probabilities / probabilities.sum()
        assert shares == pytest.approx(reference.logits[0].softmax(-1).numpy(), abs=2e-3)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_runtime_and_precision_agrees(pair: tuple[str, Path, Reference]) -> None:
    name, folder, reference = pair
    loaded = load_model(parse_name(name))
    tower, projection = cut_tower(visual_of(loaded.model), loaded.preprocessing)
    size = (loaded.preprocessing.height, loaded.preprocessing.width)
    exports = Exports(folder, loaded.fingerprint, size)
    shop = Workshop(name, tower, torch.device("cpu"), exports)
    batch = loaded.preprocessing.batch(pictures(), torch.device("cpu"))
    for runtime in RUNS:
        images = projection(load_runtime(runtime, shop)(batch))
        cosine = float((images * reference.images).sum(axis=1).min())
        assert cosine > LEAST_COSINE.get(runtime, LEAST_COSINE["float32"]), runtime
