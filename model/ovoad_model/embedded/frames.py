"""The image net over a batch of frames: how its work is spread over the cores.

One big batch is the slowest way on a processor: what flows between the layers leaves its caches.
So a few frames go one after the other, all cores on each, and as many as there are cores go one
frame a core, which loses nothing where the threads of one frame would wait for each other.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ovoad_model.arrays import Float32Array, Frame
from ovoad_model.embedded.preprocess import square_batch
from ovoad_model.embedded.runtime import Runtime, load_network


class FrameNetwork:
    """Scales frames of any size and puts them through the net. Safe to use from several threads."""

    def __init__(self, path: Path, *, size: int, runtime: Runtime, threads: int) -> None:
        """Load the net; threads = 0 takes every core that this process may use."""
        self._size = size
        self._cores = threads or len(os.sched_getaffinity(0))
        self._wide = load_network(path, runtime=runtime, threads=threads)
        self._narrow = self._wide
        if self._cores > 1:
            self._narrow = load_network(path, runtime=runtime, threads=1)
            self._pool = ThreadPoolExecutor(self._cores, "ovoad-frame")

    def __call__(self, frames: Sequence[Frame]) -> Float32Array:
        """Return the logits of B >= 1 frames: [B, K]."""
        if self._cores > 1 and len(frames) >= self._cores:
            return np.concatenate(list(self._pool.map(self._by_one_core, frames)))
        return np.concatenate([self._wide(square_batch([f], size=self._size)) for f in frames])

    def _by_one_core(self, frame: Frame) -> Float32Array:
        return self._narrow(square_batch([frame], size=self._size))
