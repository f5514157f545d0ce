"""Cost of the OV-OAD head batched over sessions, against the cost of the encoders.

    python benchmarks/network_cost.py [--device cuda] [--threads 1] [--seconds 5]

The head is the paper's size (width 768) with random weights: speed does not depend on their
values. A frame of a session costs one encoder pass and one head pass; both batch over sessions
(on a CPU the encoders at most 8 frames at once). "head ms/frame" and "head / ViT-B/16" take
CLIP's features (768 numbers, as wide as the head), "head / embedded" the embedded encoder's,
through an input map. The table is that of docs/network.md.
"""

import argparse
import platform
import time
from collections.abc import Callable

import numpy as np
import open_clip
import torch

from ovoad_model.embedded import EmbeddedEncoder
from ovoad_model.network.config import NetworkConfig
from ovoad_model.network.network import OVOAD

COLUMNS = (
    *("sessions", "head ms/frame", "ViT-B/16 ms/frame", "head / ViT-B/16"),
    *("embedded ms/frame", "head / embedded"),
)


def seconds_per_call(call: Callable[[], object], *, seconds: float, device: str) -> float:
    """Least time of a call, over about `seconds` after one warm-up: the least disturbed one."""
    times: list[float] = []
    call()
    until = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < until:
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def head_call(config: NetworkConfig, sessions: int, device: str) -> Callable[[], object]:
    """The head on full windows of so many sessions."""
    network = OVOAD(config).eval().to(device)
    past = torch.randn(sessions, config.past, config.feature_width, device=device)
    neighbours = torch.randn(sessions, config.neighbours, config.feature_width, device=device)
    masks = [frames[:, :, 0] < torch.inf for frames in (past, neighbours)]
    return lambda: network(past, neighbours, *masks)


def vit_call(frames: int, device: str) -> Callable[[], object]:
    """open_clip's ViT-B/16 image tower, random weights, 224 x 224."""
    tower = open_clip.create_model("ViT-B-16", pretrained=None).visual.eval().to(device)
    images = torch.randn(frames, 3, 224, 224, device=device)
    return lambda: tower(images)


def embedded_call(encoder: EmbeddedEncoder, frames: int) -> Callable[[], object]:
    """The embedded encoder on RGB frames of 320 x 240."""
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (240, 320, 3), np.uint8) for _ in range(frames)]
    return lambda: encoder.encode_frames(images)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--seconds", type=float, default=5.0, help="time for each measurement")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device, seconds = arguments.device, arguments.seconds
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "CPU"
    encoder = EmbeddedEncoder.load(threads=arguments.threads)
    print(f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"head of width {NetworkConfig().width}; embedded features {encoder.feature_width}\n")
    print("| " + " | ".join(COLUMNS) + " |")
    print("|---:" * len(COLUMNS) + "|")
    with torch.inference_mode():
        for sessions in (1, 64, 1024) if device == "cuda" else (1, 8, 64):
            print_row(sessions, encoder, device=device, seconds=seconds)


def print_row(sessions: int, encoder: EmbeddedEncoder, *, device: str, seconds: float) -> None:
    """Measure one number of sessions."""

    def measure(call: Callable[[], object]) -> float:
        return 1000 * seconds_per_call(call, seconds=seconds, device=device)

    head = measure(head_call(NetworkConfig(), sessions, device)) / sessions
    images = min(sessions, 8) if device == "cpu" else sessions  # larger CPU batches gain nothing
    vit = measure(vit_call(images, device)) / images
    cells = [f"{sessions}", f"{head:.1f}", f"{vit:.1f}", f"{head / vit:.3f}"]
    if device == "cpu":
        embedded = measure(embedded_call(encoder, images)) / images
        fitted = NetworkConfig(
            feature_width=encoder.feature_width,
            text_width=encoder.embedding_width,
            current_width=encoder.embedding_width,
        )
        head = measure(head_call(fitted, sessions, device)) / sessions
        cells += [f"{embedded:.1f}", f"{head / embedded:.1f}"]
    else:
        cells += ["-", "-"]
    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
