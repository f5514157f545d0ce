"""From names to objects: encoders, scorers and the detector that joins them."""

from importlib.util import find_spec
from pathlib import Path
from typing import Final, cast

from ovoad_model.detector import Detector
from ovoad_model.embedded import EmbeddedEncoder
from ovoad_model.embedded.encoder import INPUT_SIZE
from ovoad_model.embedded.runtime import Runtime
from ovoad_model.embedded.shipped import open_shipped
from ovoad_model.embedded.trial import choose_runtime
from ovoad_model.encoder import Encoder
from ovoad_model.errors import (
    MissingRuntimeError,
    MissingWeightsError,
    UnknownEncoderError,
    UnknownRuntimeError,
)
from ovoad_model.int8.network import find_int8, int8_folder
from ovoad_model.open_clip_encoder.notes import default_cache
from ovoad_model.scorers import (
    Scorer,
    ScorerName,
    average_scorer,
    cluster_scorer,
    frame_scorer,
)
from ovoad_model.text_cache import TextCache

ENCODERS: Final = ("embedded",)
OPEN_CLIP: Final = "open_clip:"
"""What the names of the other encoders begin with: open_clip:MODEL/TAG (docs/encoders.md)."""

RUNTIMES: Final = ("auto", "onnxruntime", "openvino", "openvino-bf16", "openvino-int8")
"""What runs `embedded`; open_clip's have more (open_clip_encoder/runtimes.py)."""


def build_encoder(name: str, *, runtime: str = "auto", cache: Path | None = None) -> Encoder:
    """Load the encoder of this name; raises UnknownEncoderError and other ModelErrors.

    cache is the folder for what encoders export and measure (~/.cache/ovoad).
    """
    if name.startswith(OPEN_CLIP):
        return _build_open_clip(name, runtime, cache)
    if name not in ENCODERS:
        raise UnknownEncoderError(name, (*ENCODERS, "open_clip:MODEL/TAG"))
    if runtime not in RUNTIMES:
        raise UnknownRuntimeError(runtime, RUNTIMES)
    return _build_embedded(runtime, cache or default_cache())


def _build_embedded(runtime: str, cache: Path) -> Encoder:
    match runtime:
        case "auto":
            return EmbeddedEncoder.load(
                runtime=choose_runtime(open_shipped(), size=INPUT_SIZE, cache=cache)
            )
        case "openvino-int8":
            folder = int8_folder(cache, open_shipped().fingerprint)
            image_net = find_int8(folder, encoder="embedded")
            return EmbeddedEncoder.load(runtime="openvino", image_net=image_net)
        case _:
            return EmbeddedEncoder.load(runtime=cast(Runtime, runtime))


def _build_open_clip(name: str, runtime: str, cache: Path | None) -> Encoder:
    """Bring torch: only where such an encoder is asked for."""
    for package in ("torch", "open_clip"):
        if find_spec(package) is None:
            raise MissingRuntimeError("'ovoad[model]'")
    from ovoad_model.open_clip_encoder.encoder import load_encoder

    return load_encoder(name, runtime=runtime, cache=cache)


def build_detector(
    *,
    encoder: str = "embedded",
    scorer: ScorerName | None = None,
    weights: Path | None = None,
    runtime: str = "auto",
    cache: Path | None = None,
    frames: bool = True,
) -> Detector:
    """Join an encoder, every scorer at hand and a text cache (on disk in `cache`, if given).

    frames: whether frames will be encoded; then what runs the encoder is made now, and an export
    or a trial does not wait for the first of them. The default scorer is `ovoad` where trained
    weights are given, else `average`.
    """
    if scorer == "ovoad" and weights is None:
        raise MissingWeightsError
    if encoder == "embedded" and runtime == "auto" and not frames:
        runtime = "onnxruntime"  # no trial where only words are embedded
    loaded = build_encoder(encoder, runtime=runtime, cache=cache)
    load_images = getattr(loaded, "load_images", None)  # open_clip's alone have one
    if frames and load_images is not None:
        load_images()
    default = scorer or ("average" if weights is None else "ovoad")
    scorers, adapters = _scorers(loaded, weights)
    texts = TextCache(None if cache is None else cache / "texts.sqlite3", adapters=adapters)
    scorers.sort(key=lambda each: each.name != default)
    return Detector(loaded, scorers, text_cache=texts)


def _scorers(encoder: Encoder, weights: Path | None) -> tuple[list[Scorer], str]:
    """Make every scorer at hand; tell the fingerprint of trained text adapters, "" without."""
    scorers: list[Scorer] = [
        average_scorer(encoder),
        frame_scorer(encoder),
        cluster_scorer(encoder),
    ]
    if weights is None:
        return scorers, ""
    from ovoad_model.network.scorer import load_scorer  # brings torch: only where asked for

    text_model = getattr(encoder, "text_model", None)  # open_clip's alone have one
    trained = load_scorer(weights, encoder, text_model=text_model)
    return [*scorers, trained], trained.text_adapters
