"""Cost of the OV-OAD head batched over sessions, against the cost of the encoders.

    python benchmarks/network_cost.py [--device cuda] [--threads 1] [--seconds 5]

The head is the paper's size with random weights (speed does not depend on their values). A frame
of a session costs one encoder pass and one head pass; the ratio is head / encoder at the same
number of sessions. Sessions batch in both.
"""

import argparse
import platform
import time
from collections.abc import Callable

import numpy as np
import open_clip
import torch

from ovoad_model.network.config import NetworkConfig
from ovoad_model.network.network import OVOAD

PAPER_FRAMES_PER_S = 571.4  # the paper's model alone on one V100, a reference only


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


def embedded_call(frames: int, threads: int) -> Callable[[], object]:
    """The embedded encoder on RGB frames of 320 x 240."""
    from ovoad_model.embedded import EmbeddedEncoder

    encoder = EmbeddedEncoder.load(threads=threads)
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
    print(f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| sessions | head ms | head ms/frame | head frames/s | x paper's V100 |", end="")
    print(" ViT-B/16 ms/frame | head / ViT | embedded ms/frame | head / embedded |")
    print("|---" * 9 + "|")
    with torch.inference_mode():
        for sessions in (1, 64, 1024) if device == "cuda" else (1, 8, 64):
            print_row(sessions, device=device, seconds=seconds)


def print_row(sessions: int, *, device: str, seconds: float) -> None:
    """Measure one number of sessions."""

    def measure(call: Callable[[], object]) -> float:
        return 1000 * seconds_per_call(call, seconds=seconds, device=device)

    clip_head = measure(head_call(NetworkConfig(), sessions, device))
    images = min(sessions, 16) if device == "cpu" else sessions  # larger CPU batches gain nothing
    vit = measure(vit_call(images, device)) / images
    per_frame = clip_head / sessions
    rate = 1000 / per_frame
    cells = [f"{sessions}", f"{clip_head:.1f}", f"{per_frame:.2f}", f"{rate:.0f}"]
    cells += [f"{rate / PAPER_FRAMES_PER_S:.2f}", f"{vit:.1f}", f"{per_frame / vit:.3f}"]
    if device == "cpu":
        embedded = measure(embedded_call(images, torch.get_num_threads())) / images
        small = NetworkConfig(feature_width=386, text_width=386, current_width=386)
        head = measure(head_call(small, sessions, device)) / sessions
        cells += [f"{embedded:.1f}", f"{head / embedded:.3f}"]
    else:
        cells += ["-", "-"]
    print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
