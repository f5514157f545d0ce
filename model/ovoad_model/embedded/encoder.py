"""Encoder `embedded`: needs no download and no torch. Knows no window and no server."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ovoad_model.arrays import Float32Array, Frame, unit
from ovoad_model.embedded.frames import FrameNetwork
from ovoad_model.embedded.joint_space import DEVIATION, JointSpace, load_joint_space
from ovoad_model.embedded.language import english_warning
from ovoad_model.embedded.runtime import Runtime, load_network
from ovoad_model.embedded.sentences import SentenceEncoder, load_tokenizer
from ovoad_model.embedded.shipped import ASSETS, open_shipped

INPUT_SIZE: Final = 260
TEMPERATURE: Final = 0.4 * DEVIATION
BACKGROUND_FLOOR: Final = 5.7 * DEVIATION
TEXTS_AT_ONCE: Final = 512  # bounds the memory that a large vocabulary takes
TEMPLATES: Final = ("a video of a person {}",)
BACKGROUND: Final = (
    "nothing is happening",
    "an empty room",
    "an empty street",
    "an empty stage",
    "a landscape",
    "a building",
    "the sky",
    "trees and grass",
    "water",
    "a wall",
    "a machine",
    "a vehicle",
    "a piece of furniture",
    "an animal",
    "a screen with text",
    "a dark picture",
    "a blurred picture",
)


@dataclass(frozen=True)
class EmbeddedEncoder:
    """EfficientNet-Lite2's posterior against sentences as distributions over the same classes.

    Safe to use from several threads. Make it with `EmbeddedEncoder.load()`.
    """

    fingerprint: str
    image_net: FrameNetwork
    sentences: SentenceEncoder
    joint: JointSpace
    name: str = "embedded"
    input_size: int = INPUT_SIZE
    temperature: float = TEMPERATURE
    languages: tuple[str, ...] = ("en",)
    templates: tuple[str, ...] = TEMPLATES
    background: tuple[str, ...] = BACKGROUND
    background_floor: float = BACKGROUND_FLOOR

    @classmethod
    def load(
        cls,
        folder: Path = ASSETS,
        *,
        runtime: Runtime = "onnxruntime",
        threads: int = 0,
        image_net: Path | None = None,
    ) -> "EmbeddedEncoder":
        """Check and load the shipped files; a bad one raises DamagedFileError.

        image_net stands in for the shipped image net: the same in another precision. Texts are
        embedded in float32 whatever the runtime.
        """
        shipped = open_shipped(folder)
        texts: Runtime = "onnxruntime" if runtime == "onnxruntime" else "openvino"
        text_net = load_network(shipped.path("text.onnx"), runtime=texts, threads=threads)
        tokenizer = load_tokenizer(str(shipped.path("tokenizer.json")))
        return cls(
            fingerprint=shipped.fingerprint,
            image_net=FrameNetwork(
                image_net or shipped.path("image.onnx"),
                size=INPUT_SIZE,
                runtime=runtime,
                threads=threads,
            ),
            sentences=SentenceEncoder(tokenizer, text_net),
            joint=load_joint_space(shipped.path("joint.npz")),
        )

    @property
    def feature_width(self) -> int:
        """F = D: a feature is a point of the joint space."""
        return self.joint.width

    @property
    def embedding_width(self) -> int:
        """D, the width of the joint space."""
        return self.joint.width

    @property
    def lanes(self) -> int:
        """One frame a core."""
        return self.image_net.cores

    def encode_frames(self, frames: Sequence[Frame]) -> Float32Array:
        """Encode B frames straight into the joint space: [B, D], unit norm."""
        if not frames:
            return np.empty((0, self.feature_width), np.float32)
        return self.joint.place_frames(self.image_net(frames))

    def project(self, features: Float32Array) -> Float32Array:
        """Scale features [.., D] to unit norm: they are in the joint space already."""
        return unit(features)

    def encode_text(self, texts: Sequence[str]) -> Float32Array:
        """Embed C sentences into the joint space: [C, D], unit norm."""
        parts = [
            self.joint.place_sentences(self.sentences.embed(texts[start : start + TEXTS_AT_ONCE]))
            for start in range(0, len(texts), TEXTS_AT_ONCE)
        ]
        return np.concatenate(parts) if parts else np.empty((0, self.joint.width), np.float32)

    def warnings_for(self, text: str) -> str | None:
        """Say that a text is not in a language that the text side speaks, or None."""
        return english_warning(text)
