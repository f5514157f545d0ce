"""Time several ways of doing the same against each other, on a machine that does other things too.

Knows neither encoders nor runtimes.
"""

import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

Clock = Callable[[], float]
"""Seconds, rising."""

LEAST_ROUNDS: Final = 4
MOST_ROUNDS: Final = 60
HOPELESS: Final = 1.3
"""A way that takes this many times the best is left out of further rounds."""


def race(
    ways: Mapping[str, Callable[[], object]], *, budget_s: float, clock: Clock = time.perf_counter
) -> dict[str, float]:
    """Least milliseconds of each way.

    The ways take turns, in another order every round, so that a disturbance hits none alone; what
    disturbs only adds, so the least is nearest to the truth. Rounds go on until the budget is
    spent, at least 4; ways that are far behind leave after two. One run each does not count.
    """
    for run in ways.values():
        run()
    best = dict.fromkeys(ways, float("inf"))
    left = list(ways)
    end = clock() + budget_s
    for number in range(MOST_ROUNDS):
        if number >= LEAST_ROUNDS and clock() >= end:
            break
        for name in left[number % len(left) :] + left[: number % len(left)]:
            start = clock()
            ways[name]()
            best[name] = min(best[name], (clock() - start) * 1000)
        if number:
            least = min(best.values())
            left = [name for name in left if best[name] <= HOPELESS * least]
    return best


def machine(packages: Iterable[str], *facts: str) -> str:
    """What a measured time depends on: processor, cores, versions and further facts."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = " ".join(f"{name} {_version(name)}" for name in packages)
    return ", ".join((_processor(), f"{cores} cores", *facts, versions))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


def _processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
