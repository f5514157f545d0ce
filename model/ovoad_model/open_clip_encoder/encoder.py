"""Encoder `open_clip:…`: one of open_clip's models with its weights, behind the shared interface.

Knows no window and no server.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor, nn

from ovoad_model.arrays import Float32Array, Frame
from ovoad_model.embedded.language import english_warning
from ovoad_model.errors import ModelError, UnknownRuntimeError
from ovoad_model.int8.network import Source
from ovoad_model.open_clip_encoder.exports import Exports
from ovoad_model.open_clip_encoder.images import ImageSide, device_of
from ovoad_model.open_clip_encoder.languages import MANY, languages_of
from ovoad_model.open_clip_encoder.names import OpenClipName, parse_name
from ovoad_model.open_clip_encoder.notes import default_cache
from ovoad_model.open_clip_encoder.preprocess import Preprocessing
from ovoad_model.open_clip_encoder.prompts import BACKGROUND, TEMPLATES
from ovoad_model.open_clip_encoder.runtimes import RUNTIMES, Workshop
from ovoad_model.open_clip_encoder.text import TextSide, load_text_side
from ovoad_model.open_clip_encoder.tower import Projection, cut_tower
from ovoad_model.open_clip_encoder.weights import load_model

MOST_FRAMES: Final = 64
"""How many frames run through the tower at once; bounds the memory of a large batch."""


class OpenClipEncoder:
    """Frames and sentences into the space that a CLIP was trained to join.

    Features are what the image tower has before its last linear map, F wide; `project` is that map
    (tower.py says for which towers there is none). Safe to use from several threads.
    """

    def __init__(
        self,
        name: OpenClipName,
        *,
        fingerprint: str,
        preprocessing: Preprocessing,
        images: ImageSide,
        projection: Projection,
        texts: TextSide,
        scale: float,
        bias: float | None,
    ) -> None:
        """scale and bias are the model's learned ones: logit = scale · similarity + bias."""
        self.name = name.shown
        self.fingerprint = fingerprint
        self.languages = languages_of(name.model.name)
        self.templates: tuple[str, ...] = TEMPLATES
        self.background: tuple[str, ...] = BACKGROUND
        self.temperature = 1 / scale
        self.background_floor = float("-inf") if bias is None else -bias / scale
        self.lanes = 1  # its batches use all of the device
        self.embedding_width = texts.width
        self.feature_width = texts.width if projection.weight is None else len(projection.weight)
        self._preprocessing = preprocessing
        self._images = images
        self._projection = projection
        self._texts = texts

    @property
    def input_size(self) -> int:
        """Side of the square input in pixels."""
        return max(self._preprocessing.height, self._preprocessing.width)

    @property
    def runtime(self) -> str:
        """What runs the image tower; with `auto` it is chosen at the first frame."""
        return self._images.name

    def load_images(self) -> None:
        """Make the runtime now, with its export and trial, and not at the first frame."""
        self._images.load()

    def int8_source(self) -> Source:
        """Give what an int8 network is made from; exports the tower where it is not yet."""
        return Source(
            encoder=self.name,
            plain=self._images.export(),
            folder=self._images.exports.calibrated,
            prepare=lambda frames: self._preprocessing.batch(frames, torch.device("cpu")).numpy(),
            embed=self._projection,
        )

    def encode_frames(self, frames: Sequence[Frame]) -> Float32Array:
        """Encode B frames of any size: features [B, F]."""
        features = np.empty((len(frames), self.feature_width), np.float32)
        for start in range(0, len(frames), MOST_FRAMES):
            rows = slice(start, start + MOST_FRAMES)
            batch = self._preprocessing.batch(frames[rows], self._images.device)
            features[rows] = self._images(batch)
        return features

    def project(self, features: Float32Array) -> Float32Array:
        """Map features [.., F] into the joint space [.., D], unit norm."""
        return self._projection(features)

    def encode_text(self, texts: Sequence[str]) -> Float32Array:
        """Embed C whole sentences: [C, D], unit norm."""
        return self._texts.encode(texts)

    def warnings_for(self, text: str) -> str | None:
        """Say that a text is not in a language of the model, or too long for it, or None."""
        if self.languages != MANY:
            warning = english_warning(text, encoder=self.name)
            if warning is not None:
                return warning
        length, most = self._texts.tokens_in(text), self._texts.context_length
        if length > most:
            return f"label {text!r:.60} has {length} tokens: encoder {self.name} reads {most}"
        return None

    @property
    def image_projection(self) -> Float32Array | None:
        """The linear map [F, D] from features to the joint space; None where it is not linear.

        The identity where features are embeddings already.
        """
        if self._projection.bias is not None:
            return None
        if self._projection.weight is None:
            return np.eye(self.embedding_width, dtype=np.float32)
        return self._projection.weight

    @property
    def text_model(self) -> nn.Module:
        """The open_clip model, for adapters on its text tower; the image tower is taken off."""
        return self._texts.model

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Return token ids int64 [C, L] for text_model."""
        return self._texts.tokenize(texts)


def load_encoder(
    name: str, *, runtime: str = "auto", cache: Path | None = None, device: str | None = None
) -> OpenClipEncoder:
    """Load the model that a name says; every failure is a ModelError.

    runtime runs the image tower; cache is the folder for exports and trials, by default
    OVOAD_CACHE or ~/.cache/ovoad; device is torch's, by default a GPU where there is one.
    """
    if runtime not in RUNTIMES:
        raise UnknownRuntimeError(runtime, RUNTIMES)
    parsed = parse_name(name)
    loaded = load_model(parsed)
    place = device_of(device)
    scale, bias = _scale_and_bias(loaded.model)
    model = cast(Any, loaded.model)
    preprocessing = loaded.preprocessing
    tower, projection = cut_tower(model.visual, preprocessing)
    exports = Exports(
        cache or default_cache(), loaded.fingerprint, (preprocessing.height, preprocessing.width)
    )
    images = ImageSide(Workshop(parsed.shown, tower, place, exports), runtime)
    model.visual = nn.Identity()  # the image side has it, and lets it go where it needs it no more
    model.to(place)
    return OpenClipEncoder(
        parsed,
        fingerprint=loaded.fingerprint,
        preprocessing=preprocessing,
        images=images,
        projection=projection,
        texts=load_text_side(parsed, model, loaded.folder),
        scale=scale,
        bias=bias,
    )


def _scale_and_bias(model: Any) -> tuple[float, float | None]:
    """The learned numbers that make logits of similarities; refuse a scale that is none."""
    scale = float(model.logit_scale.detach().exp())
    if not (math.isfinite(scale) and scale > 0):
        raise ModelError(
            f"found logit scale {scale}, expected a positive number: are they weights?"
        )
    return scale, None if model.logit_bias is None else float(model.logit_bias.detach())
