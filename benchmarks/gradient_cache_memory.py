"""Peak memory and time of one contrastive step, whole batch against gradient caching.

    python benchmarks/gradient_cache_memory.py [--batch 256] [--chunks 0 64 16]

The paper's network and batch; chunk 0 is the whole batch at once. Each runs in a process of its
own; "step" is the peak of resident memory above what the process held before the step (network and
empty gradients), so it is what activations and the cache need.
"""

import argparse
import resource
import subprocess
import sys
import time

import torch

from ovoad_model.network.config import NetworkConfig
from ovoad_model.network.network import OVOAD
from ovoad_model.training.gradient_cache import PairEmbedder, cached_backward
from ovoad_model.training.losses import CaptionBatch, WindowTensors, pair_losses


def draw_batch(config: NetworkConfig, batch: int) -> tuple[WindowTensors, CaptionBatch]:
    """Random windows and captions, M = 2."""
    windows = WindowTensors(
        torch.randn(batch, config.past, config.feature_width),
        torch.randn(batch, config.neighbours, config.feature_width),
        torch.ones(batch, config.past, dtype=torch.bool),
        torch.ones(batch, config.neighbours, dtype=torch.bool),
    )
    captions = CaptionBatch(
        text_current=torch.randn(batch, config.text_width),
        text_global=torch.randn(batch, config.text_width),
        text_extra=torch.randn(batch, 2, config.text_width),
        extra_mask=torch.ones(batch, 2, dtype=torch.bool),
        caption_mask=torch.rand(batch, config.neighbours) < 0.5,
    )
    return windows, captions


def peak_mib() -> float:
    """Peak resident memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(batch: int, chunk: int) -> None:
    """Run one step in this process and print before, step (MiB) and seconds."""
    torch.manual_seed(0)
    config = NetworkConfig()
    embedder = PairEmbedder(OVOAD(config)).train()
    for parameter in embedder.parameters():
        parameter.grad = torch.zeros_like(parameter)
    windows, captions = draw_batch(config, batch)
    before, start = peak_mib(), time.perf_counter()
    if chunk:
        cached_backward(embedder, windows, captions, chunk=chunk)
    else:
        embeddings = embedder(windows, captions)
        terms = pair_losses(embeddings, captions, neighbours_mask=windows.neighbours_mask)
        torch.autograd.backward(terms.total)
    print(f"{before:.0f} {peak_mib() - before:.0f} {time.perf_counter() - start:.1f}")


def main() -> None:
    """Measure each chunk size in its own process and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--chunks", type=int, nargs="+", default=[0, 64, 16])
    parser.add_argument("--only", type=int, help="measure one chunk size in this process")
    arguments = parser.parse_args()
    if arguments.only is not None:
        measure(arguments.batch, arguments.only)
        return
    print(
        f"batch {arguments.batch}, {torch.get_num_threads()} threads, torch {torch.__version__}\n"
    )
    print("| chunk | before MiB | step MiB | seconds |\n|---|---|---|---|")
    for chunk in arguments.chunks:
        command = [sys.executable, __file__, "--batch", str(arguments.batch), "--only", str(chunk)]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        print(f"| {chunk or 'whole batch'} | {' | '.join(found)} |", flush=True)


if __name__ == "__main__":
    main()
