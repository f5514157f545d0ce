"""How fast a core is from moment to moment, seen by a small fixed piece of work.

The processor time of one product of two matrices, twenty times a second, in a process of its own:
about 2 % of a core. Waiting for a core does not count, so load beside it matters little; what shows
is a core that is slower itself, as on a virtual machine whose neighbours share caches and clock.
"""

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from statistics import median

EVERY_S = 0.05
SPELL_S = 0.5


class SpeedProbe:
    """What the work took so far, by time.monotonic."""

    def __init__(self, readings: Connection) -> None:
        self._readings = readings
        self._seen: list[tuple[float, float]] = []

    def slowest_spell(self, start_s: float, end_s: float) -> float:
        """Return how many times its usual time the work took in the slowest half second between.

        Usual is the median of all that was seen so far; a half second's is the median of it.
        """
        while self._readings.poll():
            self._seen.append(self._readings.recv())
        usual_s = median(took_s for _, took_s in self._seen)
        spells = [
            [took_s for at_s, took_s in self._seen if begin_s <= at_s < begin_s + SPELL_S]
            for begin_s in _steps(start_s, end_s)
        ]
        return max((median(spell) / usual_s for spell in spells if len(spell) > 3), default=1.0)


@contextmanager
def speed_probe() -> Iterator[SpeedProbe]:
    """Watch the speed while the block runs."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_watch, args=(theirs,), daemon=True)
    process.start()
    try:
        assert ours.poll(60), "the probe's process did not begin"
        yield SpeedProbe(ours)
    finally:
        process.terminate()
        process.join()


def _watch(readings: Connection) -> None:
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    import numpy as np

    factor = np.random.default_rng(0).random((192, 192), np.float32)
    while True:
        start_s = time.thread_time()
        for _ in range(4):
            factor @ factor
        readings.send((time.monotonic(), time.thread_time() - start_s))
        time.sleep(EVERY_S)


def _steps(start_s: float, end_s: float) -> Iterator[float]:
    while start_s < end_s:
        yield start_s
        start_s += SPELL_S
