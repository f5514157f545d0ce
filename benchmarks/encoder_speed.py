"""Measure image towers in every runtime: ms a frame, and the share of the machine's matrix limit.

    python benchmarks/encoder_speed.py [--models ViT-B-16 …] [--runtimes torch …] [--compile]
    python benchmarks/encoder_speed.py --start ViT-B-32      # seconds and memory of a start

Towers have open_clip's architectures and random weights: nothing is fetched, and speed does not
depend on what weights say. Best of the rounds; the runtimes take turns. The limit is the best of
products of square float32 matrices by torch with the same threads. Prints a Markdown table.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from ovoad_model.build import build_encoder
from ovoad_model.embedded import EmbeddedEncoder
from ovoad_model.embedded.preprocess import square_batch
from ovoad_model.errors import ModelError
from ovoad_model.open_clip_encoder.catalogue import architectures
from ovoad_model.open_clip_encoder.exports import Exports
from ovoad_model.open_clip_encoder.int8 import read_agreement
from ovoad_model.open_clip_encoder.preprocess import Preprocessing
from ovoad_model.open_clip_encoder.runtimes import Workshop, load_runtime
from ovoad_model.open_clip_encoder.tower import ImageTower, cut_tower
from ovoad_model.open_clip_encoder.trial import find_fastest

MODELS = ("ViT-B-32", "ViT-B-16", "MobileCLIP2-S0", "ViT-B-16-SigLIP2", "RN50", "convnext_base")
RUNTIMES = (
    *("torch", "torch-channels-last", "torch-bf16", "onnxruntime", "onnxruntime-int8", "openvino"),
)
BATCHES = (1, 8)
CONVOLUTIONAL = ("MobileCLIP", "RN", "convnext")
Work = Callable[[], Any]


def main(arguments: Sequence[str]) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--runtimes", nargs="+", default=RUNTIMES)
    parser.add_argument("--compile", action="store_true", help="torch-compile too: minutes more")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--start", metavar="MODEL", help="measure a start instead")
    parser.add_argument("--one-start", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.one_start:
        return one_start(*options.one_start)
    if options.start:
        return measure_start(options.start)
    names = [*options.runtimes, *(["torch-compile"] if options.compile else [])]
    limit = matrix_limit()
    print(f"matrix products, {options.threads} threads: {limit:.0f} GFLOP/s float32", flush=True)
    print(f"bfloat16: {matrix_limit(torch.bfloat16):.0f} GFLOP/s\n")
    preprocessing_table(options.rounds)
    print("\n| encoder | runtime | ms, batch 1 | ms a frame, batch 8 | of the limit |")
    print("| --- | --- | ---: | ---: | ---: |", flush=True)
    embedded_rows(options.rounds, options.threads)
    for model in options.models:
        tower_rows(model, names, options.rounds, limit)
    return 0


def matrix_limit(kind: torch.dtype = torch.float32, *, side: int = 2048, rounds: int = 8) -> float:
    """GFLOP/s of the best of several square products."""
    left, right = torch.randn(side, side).to(kind), torch.randn(side, side).to(kind)
    return 2 * side**3 / 1e6 / best_ms({"product": lambda: left @ right}, rounds)["product"]


def preprocessing_table(rounds: int) -> None:
    """Ours against open_clip's PIL transform, one frame to 224 x 224."""
    config = PreprocessCfg()
    ours, theirs = Preprocessing.of_config(vars(config)), image_transform_v2(config, is_train=False)
    print("| frame | open_clip's transform, ms | ours, ms | times |")
    print("| --- | ---: | ---: | ---: |")
    for height, width in ((480, 640), (720, 1280), (1080, 1920)):
        frame = noise(1, height, width)[0]
        times = best_ms(
            {
                "theirs": lambda f=frame: theirs(Image.fromarray(f)),
                "ours": lambda f=frame: ours.batch([f], torch.device("cpu")),
            },
            4 * rounds,
        )
        ratio = times["theirs"] / times["ours"]
        print(
            f"| {width} x {height} | {times['theirs']:.2f} | {times['ours']:.2f} | {ratio:.1f} |",
            flush=True,
        )


def embedded_rows(rounds: int, threads: int) -> None:
    """The default encoder's image net, for comparison."""
    for runtime in ("onnxruntime", "openvino"):
        encoder = EmbeddedEncoder.load(runtime=runtime, threads=threads)  # type: ignore[arg-type]
        ms = {}
        for batch in BATCHES:
            frames = square_batch(list(noise(batch, 480, 640)), size=encoder.input_size)
            ms[batch] = best_ms({"net": lambda n=encoder.image_net, f=frames: n(f)}, rounds)["net"]
        print(f"| embedded | {runtime} | {ms[1]:.1f} | {ms[8] / 8:.1f} | |", flush=True)


def tower_rows(model: str, runtimes: Sequence[str], rounds: int, limit: float) -> None:
    """One row a runtime, then what auto chose."""
    tower, size = random_tower(model)
    gigaflops = flops(tower, size) / 1e9
    with tempfile.TemporaryDirectory() as folder:
        exports = Exports(Path(folder), model.encode().hex().ljust(64, "0"), size)
        shop = Workshop(model, tower, torch.device("cpu"), exports)
        networks = {}
        for name in runtimes:
            if "int8" in name and model.startswith(CONVOLUTIONAL):
                continue  # int8.py leaves convolutions as they are
            try:
                networks[name] = load_runtime(name, shop)
            except ModelError as error:
                print(f"{model}: {error}", file=sys.stderr)
        times: dict[int, dict[str, float]] = {}
        for batch in BATCHES:
            frames = torch.from_numpy(noise(batch, *size))
            work = {name: lambda n=run, f=frames: n(f) for name, run in networks.items()}
            times[batch] = best_ms(work, rounds)
        chosen, _ = find_fastest(shop)
        for name in networks:
            note = ""
            if "int8" in name:
                mean, _ = read_agreement(exports.int8(tower))
                note = f" (cosine {mean:.4f})"
            share = gigaflops * 8 / (times[8][name] / 1000) / limit
            mark = " **auto**" if name == chosen else ""
            print(
                f"| {model} ({gigaflops:.1f} GFLOP) | {name}{note}{mark} | {times[1][name]:.1f} | "
                f"{times[8][name] / 8:.1f} | {share:.2f} |",
                flush=True,
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


def flops(tower: ImageTower, size: tuple[int, int]) -> float:
    """Multiplications and additions of one frame, as torch counts them."""
    torch.backends.mha.set_fastpath_enabled(False)  # whose insides are not counted
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        tower(torch.zeros((1, *size, 3), dtype=torch.uint8))
    torch.backends.mha.set_fastpath_enabled(True)
    return float(counter.get_total_flops())


def best_ms(work: Mapping[str, Work], rounds: int) -> dict[str, float]:
    """Least milliseconds of each way; they take turns after one run that does not count."""
    best = dict.fromkeys(work, float("inf"))
    for run in work.values():
        run()
    for _ in range(rounds):
        for name, run in work.items():
            start = time.perf_counter()
            run()
            best[name] = min(best[name], (time.perf_counter() - start) * 1000)
    return best


def noise(count: int, height: int, width: int) -> Any:
    """Frames of noise, uint8 [count, height, width, 3]."""
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def measure_start(model: str) -> int:
    """Print seconds and memory of cold and warm starts, each in a process of its own."""
    print("| runtime | start | load, s | first frame, s | peak memory, MiB |")
    print("| --- | --- | ---: | ---: | ---: |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        state = open_clip.create_model(model, load_weights=False).state_dict()
        weights = Path(folder) / "weights.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, weights)
        del state
        for runtime in ("torch", "onnxruntime", "openvino", "auto"):
            for kind in ("cold", "warm"):
                cache = Path(folder) / runtime
                command = [sys.executable, __file__, "--one-start"]
                command += [f"open_clip:{model}@{weights}", runtime, str(cache)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                load_s, first_s, memory = json.loads(done.stdout.splitlines()[-1])
                print(f"| {runtime} | {kind} | {load_s:.1f} | {first_s:.1f} | {memory:.0f} |")
    return 0


def one_start(name: str, runtime: str, cache: str) -> int:
    """Load an encoder, encode one frame, print both times and the process's peak memory."""
    start = time.perf_counter()
    encoder = build_encoder(name, runtime=runtime, cache=Path(cache))
    loaded = time.perf_counter()
    encoder.encode_frames([noise(1, 480, 640)[0]])
    done = time.perf_counter()
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([loaded - start, done - loaded, peak_mib]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
