"""`auto`: time the float32 runtimes on this machine and remember the fastest.

Trials are kept (notes.py) by machine, versions and encoder. Runtimes of less
precision are not candidates: they change scores (docs/encoders.md), so somebody is to ask for them.
"""

import logging
import os
import platform
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import torch

from ovoad_model.errors import ModelError
from ovoad_model.open_clip_encoder.exports import DIGITS
from ovoad_model.open_clip_encoder.notes import Trial, read_trials, write_trial
from ovoad_model.open_clip_encoder.runtimes import Network, Workshop, load_runtime

LOGGER: Final = logging.getLogger(__name__)
ON_CPU: Final = ("torch", "torch-channels-last", "onnxruntime", "openvino")
ON_CUDA: Final = ("torch", "torch-channels-last", "onnxruntime-cuda")
ROUNDS: Final = 5


def find_fastest(shop: Workshop) -> tuple[str, Network]:
    """Return the fastest runtime's name and network, from the notes or by a trial."""
    cache = shop.exports.folder
    key = f"{machine()} | {shop.exports.fingerprint[:DIGITS]}"
    known = read_trials(cache).get(key)
    if known is not None:
        try:
            return known.fastest, load_runtime(known.fastest, shop)
        except (ModelError, OSError, ValueError, KeyError) as error:
            LOGGER.warning("runtime auto: the fastest of an earlier trial fails: %s", error)
    networks = _load_all(shop)
    times_ms = {name: round(time_ms, 2) for name, time_ms in time_all(networks, shop).items()}
    trial = Trial(shop.name, times_ms)
    write_trial(cache, key, trial)
    return trial.fastest, networks[trial.fastest]


def time_all(networks: Mapping[str, Network], shop: Workshop) -> dict[str, float]:
    """Milliseconds of one frame: the best of 5 rounds in which the ways take turns."""
    frame = torch.zeros((1, *shop.exports.size, 3), dtype=torch.uint8, device=shop.device)
    best = dict.fromkeys(networks, float("inf"))
    for run in networks.values():
        run(frame)
    for _ in range(ROUNDS):
        for name, run in networks.items():
            start = time.perf_counter()
            run(frame)
            best[name] = min(best[name], (time.perf_counter() - start) * 1000)
    for name, time_ms in best.items():
        LOGGER.info("runtime %s: %.1f ms a frame", name, time_ms)
    return best


def machine() -> str:
    """What a measured time depends on beside the model."""
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = " ".join(f"{name} {_version(name)}" for name in ("torch", "onnxruntime", "openvino"))
    return f"{_processor()}, {cores} cores, {torch.get_num_threads()} threads, {cuda}, {versions}"


def _load_all(shop: Workshop) -> dict[str, Network]:
    """Make every candidate that this machine can run; torch alone must not fail."""
    networks = {}
    for name in ON_CUDA if shop.device.type == "cuda" else ON_CPU:
        try:
            networks[name] = load_runtime(name, shop)
        except ModelError as error:
            LOGGER.info("runtime auto: %s left out (%s)", name, error)
    return networks


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
