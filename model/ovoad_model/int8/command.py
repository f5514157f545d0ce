"""`ovoad encoders NAME --calibrate`: make an encoder's int8 network and tell how far it agrees."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from ovoad_model.build import build_detector, build_encoder
from ovoad_model.embedded import EmbeddedEncoder
from ovoad_model.embedded.preprocess import square_batch
from ovoad_model.embedded.shipped import ASSETS
from ovoad_model.encoder import Encoder
from ovoad_model.int8.agreement import Agreement, ClipPrecision, write_agreement
from ovoad_model.int8.network import LEAST_MEAN, Source, calibrate, int8_folder
from ovoad_model.int8.pictures import SAMPLE_NAME, read_pictures, sample_pictures
from ovoad_model.kept import write_manifest


def calibrate_encoder(
    name: str, pictures: Path | None, *, clips: Path | None, cache: Path
) -> Agreement:
    """Calibrate on a folder's pictures, or the sample; judge on labelled clips where given."""
    frames = sample_pictures() if pictures is None else read_pictures(pictures)
    encoder = build_encoder(name, runtime="openvino", cache=cache)
    source = _source(encoder, cache)
    shown = SAMPLE_NAME if pictures is None else pictures.name
    agreement = calibrate(source, frames, pictures=shown)
    if clips is None or agreement.mean < LEAST_MEAN:
        return agreement
    agreement = replace(agreement, clips=judge_clips(name, clips, cache=cache))
    write_agreement(source.folder, agreement)
    write_manifest(source.folder)
    return agreement


def _source(encoder: Encoder, cache: Path) -> Source:
    if isinstance(encoder, EmbeddedEncoder):
        return Source(
            encoder=encoder.name,
            plain=ASSETS / "image.onnx",
            folder=int8_folder(cache, encoder.fingerprint),
            prepare=partial(square_batch, size=encoder.input_size),
            embed=encoder.joint.place_frames,
        )
    source: Source = cast(Any, encoder).int8_source()  # open_clip's, which brings torch
    return source


def judge_clips(name: str, clips: Path, *, cache: Path) -> ClipPrecision:
    """Evaluate stitched clips in float32 and in int8, as `ovoad evaluate clips` does."""
    from ovoad_model.evaluation.clips import read_clips

    count = len(read_clips(clips))
    exact, rough = (
        _precision(name, clips, runtime, cache) for runtime in ("openvino", "openvino-int8")
    )
    return ClipPrecision(clips.name, count, exact, rough)


def _precision(name: str, folder: Path, runtime: str, cache: Path) -> Mapping[str, float]:
    from ovoad_model.evaluation.clips import default_distractors, read_clips
    from ovoad_model.evaluation.protocols import STANDARD
    from ovoad_model.evaluation.runs import Options, evaluate_clips

    detector = build_detector(encoder=name, runtime=runtime, cache=cache)
    options = Options(("frame", "average"), STANDARD)
    report = evaluate_clips(
        detector, read_clips(folder), options, distractors=default_distractors()
    )
    return {
        result.scorer: result.mean_average_precision
        for result in report.results
        if result.mean_average_precision is not None
    }
