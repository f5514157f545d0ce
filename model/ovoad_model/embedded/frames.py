"""The image net over a batch of frames: how its work is spread over the cores.

One big batch is the slowest way on a processor: what flows between the layers leaves its caches.
So a frame that has the processor for itself gets all cores, and frames side by side get one core
each, which loses nothing where the threads of one frame would wait for each other.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Final

import numpy as np

from ovoad_model.arrays import Float32Array, Frame
from ovoad_model.embedded.preprocess import square_batch
from ovoad_model.embedded.runtime import Runtime, load_network

CROWDED: Final = 0.2  # share of calls that met another, beyond which a frame gets one core
MEMORY: Final = 0.9  # weight of the calls before


class FrameNetwork:
    """Scales frames of any size and puts them through the net. Safe to use from several threads."""

    def __init__(self, path: Path, *, size: int, runtime: Runtime, threads: int) -> None:
        """Load the net; threads = 0 takes every core that this process may use."""
        self._size = size
        self.cores = threads or len(os.sched_getaffinity(0))
        # Left to itself a runtime counts the machine's cores, not those of this process.
        wide = 1 if self.cores == 1 else threads
        self._wide = load_network(path, runtime=runtime, threads=wide)
        self._narrow = self._wide
        if self.cores > 1:
            self._narrow = load_network(path, runtime=runtime, threads=1, side_by_side=self.cores)
        self._pool = ThreadPoolExecutor(self.cores, "ovoad-frame")
        self._lock = Lock()
        self._calls = 0  # under way
        self._met = 0.0  # share of the calls so far that met another, the last ones weigh most

    def __call__(self, frames: Sequence[Frame]) -> Float32Array:
        """Return the logits of B >= 1 frames: [B, K]."""
        with self._entering() as crowded:
            if len(frames) >= self.cores > 1:
                return np.concatenate(list(self._pool.map(self._by_one_core, frames)))
            if crowded and self.cores > 1:
                return np.concatenate([self._by_one_core(frame) for frame in frames])
            return np.concatenate([self._wide(square_batch([f], size=self._size)) for f in frames])

    @contextmanager
    def _entering(self) -> Iterator[bool]:
        """Count a call; tell whether it shares the cores with others, or is likely to."""
        with self._lock:
            met = self._calls > 0
            self._met = MEMORY * self._met + (1 - MEMORY) * met
            crowded = met or self._met > CROWDED
            self._calls += 1
        try:
            yield crowded
        finally:
            with self._lock:
                self._calls -= 1

    def _by_one_core(self, frame: Frame) -> Float32Array:
        return self._narrow(square_batch([frame], size=self._size))
