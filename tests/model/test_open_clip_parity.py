"""Whole architectures of open_clip with random weights: every number against open_clip itself.

SigLIP 2's own tokenizer lies on a hub; a small one made here stands in for it on both sides.
"""

import copy
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import open_clip
import pytest
import torch
from open_clip import factory
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from ovoad_model.arrays import Float32Array, unit
from ovoad_model.int8.errors import UncalibratedError
from ovoad_model.int8.network import LEAST_MEAN, Source, calibrate
from ovoad_model.open_clip_encoder.catalogue import architectures
from ovoad_model.open_clip_encoder.encoder import OpenClipEncoder, load_encoder
from ovoad_model.open_clip_encoder.exports import Exports
from ovoad_model.open_clip_encoder.int8 import made_up_frames
from ovoad_model.open_clip_encoder.preprocess import Preprocessing
from ovoad_model.open_clip_encoder.runtimes import Workshop, load_runtime
from ovoad_model.open_clip_encoder.tower import cut_tower
from ovoad_model.probabilities import label_probabilities

from .open_clip_parts import random_model, write_weights

MODELS: Final = {
    "ViT-B-32": ("", 768, 512),
    "ViT-B-16": ("", 768, 512),
    "MobileCLIP2-S0": ("/dfndr2b", 1024, 512),
    "ViT-B-16-SigLIP2": ("/webli", 768, 768),
    "RN50": ("", 1024, 1024),
    "convnext_tiny": ("", 768, 1024),
}
"""Tag whose preprocessing is taken, F and D."""

EXACT: Final = 1 - 1e-5
RUNS: Final = {
    "torch": EXACT,
    "torch-channels-last": EXACT,
    "onnxruntime": EXACT,
    "openvino": EXACT,
    "torch-bf16": 0.999,
    "openvino-bf16": 0.999,
    "onnxruntime-int8": 0.98,
    "openvino-int8": 0.98,
}
"""Least cosine of a frame's embedding with open_clip's own in float32, by runtime."""

MAY_BE_REFUSED: Final = ("ViT-B-16-SigLIP2", "convnext_tiny")
"""With random weights and two pictures to calibrate on, these do not agree: never served."""

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


@pytest.fixture(scope="module")
def few_words() -> Iterator[None]:
    """SigLIP 2's table of 256,000 tokens is most of its file; the stand-in knows thirteen."""
    config = copy.deepcopy(factory._MODEL_CONFIGS["ViT-B-16-SigLIP2"])
    config["text_cfg"]["vocab_size"] = 64
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(factory._MODEL_CONFIGS, "ViT-B-16-SigLIP2", config)
        yield


@pytest.fixture(scope="module", params=MODELS)
def pair(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    few_words: None,
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
    checked(encoder, reference, EXACT)
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


def image_tower(name: str) -> tuple[Any, Preprocessing]:
    """open_clip's image tower alone, random; of a transformer's equal blocks the first two."""
    torch.manual_seed(0)
    config = architectures()[name].config
    vision = {**config["vision_cfg"], "timm_model_pretrained": False}
    visual: Any = _build_vision_tower(config["embed_dim"], CLIPVisionCfg(**vision))
    if hasattr(visual, "transformer"):
        visual.transformer.resblocks = visual.transformer.resblocks[:2]
    elif isinstance(getattr(getattr(visual, "trunk", None), "blocks", None), torch.nn.Sequential):
        visual.trunk.blocks = visual.trunk.blocks[:2]
    height, width = open_clip.utils.to_2tuple(visual.image_size)
    half = (0.5, 0.5, 0.5)
    return visual.eval(), Preprocessing(height, width, "squash", "bicubic", 0, half, half)


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", MODELS)
def test_every_runtime_and_precision_agrees(name: str, tmp_path: Path) -> None:
    """Embeddings and softmax scores of every runtime, with those of open_clip's own tower."""
    visual, preprocessing = image_tower(name)
    batch = preprocessing.batch(pictures(), torch.device("cpu"))
    with torch.inference_mode():
        own = visual(batch.permute(0, 3, 1, 2).float() / 127.5 - 1).numpy()
    own = unit(own)
    tower, projection = cut_tower(visual, preprocessing)
    exports = Exports(tmp_path, "f" * 64, (preprocessing.height, preprocessing.width))
    shop = Workshop(name, tower, torch.device("cpu"), exports)
    frames = [*batch.numpy(), *made_up_frames(exports.size, count=2)[:1]]
    source = Source(name, exports.plain(tower), exports.calibrated, np.stack, projection)
    runs = dict(RUNS)
    if find_spec("nncf") is None:
        del runs["openvino-int8"]
    elif calibrate(source, frames, pictures="made-up ones").mean < LEAST_MEAN:
        assert name in MAY_BE_REFUSED
        with pytest.raises(UncalibratedError, match=r"expected a mean cosine from 0\.98"):
            load_runtime("openvino-int8", shop)
        del runs["openvino-int8"]
    texts = unit(np.random.default_rng(0).normal(size=(5, own.shape[1])).astype(np.float32))
    for runtime, least_cosine in runs.items():
        images = projection(load_runtime(runtime, shop)(batch))
        assert (images * own).sum(axis=1).min() > least_cosine, runtime
        change = softmax(100 * images @ texts.T) - softmax(100 * own @ texts.T)
        tolerance = 25 * np.sqrt(2 * (1 - least_cosine))  # |p - q| <= |logits' difference| / 4
        assert np.abs(change).max() < min(1, tolerance), runtime


def softmax(logits: Float32Array) -> Float32Array:
    """Over the last axis, at CLIP's scale of 100."""
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scores: Float32Array = shares / shares.sum(axis=-1, keepdims=True)
    return scores
