"""What an encoder is: frames and sentences into one joint space. Knows no model."""

from collections.abc import Sequence
from typing import Protocol

from ovoad_model.arrays import Float32Array, Frame


class Encoder(Protocol):
    """Turn frames and sentences into unit vectors whose dot product is their similarity.

    F is the width of a frame's feature (what the window keeps), D that of the joint space.
    """

    @property
    def name(self) -> str:
        """The string that names it, e.g. "embedded" or "open_clip:ViT-B-16/openai"."""

    @property
    def fingerprint(self) -> str:
        """Hexadecimal; changes whenever features or text embeddings could change."""

    @property
    def input_size(self) -> int:
        """Side of the square network input in pixels."""

    @property
    def feature_width(self) -> int:
        """F."""

    @property
    def embedding_width(self) -> int:
        """D."""

    @property
    def temperature(self) -> float:
        """Calibrated temperature: probabilities are softmax(similarity / temperature)."""

    @property
    def languages(self) -> tuple[str, ...]:
        """BCP-47 codes of the languages that the text side speaks."""

    @property
    def templates(self) -> tuple[str, ...]:
        """Default prompt templates, each with one "{}"."""

    @property
    def background(self) -> tuple[str, ...]:
        """Default background concepts: whole sentences, put into no template."""

    @property
    def background_floor(self) -> float:
        """Calibrated similarity that a label must clear though no background concept fits."""

    @property
    def lanes(self) -> int:
        """How many frames, each in a call of its own, may be encoded side by side at full speed."""

    def encode_frames(self, frames: Sequence[Frame]) -> Float32Array:
        """Encode RGB frames of any size, B of them, into features [B, F]."""

    def project(self, features: Float32Array) -> Float32Array:
        """Map features [.., F] into the joint space [.., D], unit norm."""

    def encode_text(self, texts: Sequence[str]) -> Float32Array:
        """Embed whole sentences, C of them, into [C, D], unit norm."""

    def warnings_for(self, text: str) -> str | None:
        """Say what the text side cannot do with this text, or None."""
