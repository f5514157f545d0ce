"""From names to objects: encoders, scorers and the detector that joins them."""

from pathlib import Path
from typing import Final

from ovoad_model.detector import Detector
from ovoad_model.embedded import EmbeddedEncoder
from ovoad_model.embedded.runtime import Runtime
from ovoad_model.encoder import Encoder
from ovoad_model.errors import MissingWeightsError, UnknownEncoderError, UnknownRuntimeError
from ovoad_model.scorers import (
    Scorer,
    ScorerName,
    average_scorer,
    cluster_scorer,
    frame_scorer,
)
from ovoad_model.text_cache import TextCache

ENCODERS: Final = ("embedded",)
RUNTIMES: Final[dict[str, Runtime]] = {
    "auto": "onnxruntime",  # level with OpenVINO in speed (docs/embedded.md)
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
}


def build_encoder(name: str, *, runtime: str = "auto") -> Encoder:
    """Load the encoder of this name; raises UnknownEncoderError."""
    if name not in ENCODERS:
        raise UnknownEncoderError(name, ENCODERS)
    if runtime not in RUNTIMES:
        raise UnknownRuntimeError(runtime, tuple(RUNTIMES))
    return EmbeddedEncoder.load(runtime=RUNTIMES[runtime])


def build_detector(
    *,
    encoder: str = "embedded",
    scorer: ScorerName | None = None,
    weights: Path | None = None,
    runtime: str = "auto",
    cache: Path | None = None,
) -> Detector:
    """Join an encoder, every scorer at hand and a text cache (on disk in `cache`, if given).

    The default scorer is `ovoad` where trained weights are given, else `average`.
    """
    if scorer == "ovoad" and weights is None:
        raise MissingWeightsError
    loaded = build_encoder(encoder, runtime=runtime)
    texts = TextCache(None if cache is None else cache / "texts.sqlite3")
    default = scorer or ("average" if weights is None else "ovoad")
    scorers = _scorers(loaded, weights)
    scorers.sort(key=lambda each: each.name != default)
    return Detector(loaded, scorers, text_cache=texts)


def _scorers(encoder: Encoder, weights: Path | None) -> list[Scorer]:
    scorers: list[Scorer] = [
        average_scorer(encoder),
        frame_scorer(encoder),
        cluster_scorer(encoder),
    ]
    if weights is not None:
        from ovoad_model.network.scorer import load_scorer  # brings torch: only where asked for

        scorers.append(load_scorer(weights, encoder))
    return scorers
