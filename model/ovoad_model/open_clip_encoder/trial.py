"""`auto`: time the float32 runtimes on this machine and remember the fastest.

Trials are kept (notes.py) by machine, versions and encoder. Runtimes of less
precision are not candidates: they change scores (docs/encoders.md), so somebody is to ask for them.
"""

import logging
from collections.abc import Mapping
from functools import partial
from typing import Final

import torch

from ovoad_model.errors import ModelError
from ovoad_model.int8.network import DIGITS
from ovoad_model.open_clip_encoder.notes import Trial, read_trials, write_trial
from ovoad_model.open_clip_encoder.runtimes import Network, Workshop, load_runtime
from ovoad_model.trials import HOPELESS, machine, race

LOGGER: Final = logging.getLogger(__name__)
ON_CPU: Final = ("torch", "torch-channels-last", "onnxruntime", "openvino")
ON_CUDA: Final = ("torch", "torch-channels-last", "onnxruntime-cuda")
BATCH: Final = 8
BUDGET_S: Final = 3.0
"""Of single frames, and again of batches; large towers take longer, for four rounds at least."""


def find_fastest(shop: Workshop) -> tuple[str, Network]:
    """Return the fastest runtime's name and network, from the notes or by a trial."""
    cache = shop.exports.folder
    key = f"{this_machine()} | {shop.exports.fingerprint[:DIGITS]}"
    known = read_trials(cache).get(key)
    if known is not None:
        try:
            return known.fastest, load_runtime(known.fastest, shop)
        except (ModelError, OSError, ValueError, KeyError) as error:
            LOGGER.warning("runtime auto: the fastest of an earlier trial fails: %s", error)
    networks = _load_all(shop)
    trial = time_all(networks, shop)
    write_trial(cache, key, trial)
    return trial.fastest, networks[trial.fastest]


def time_all(networks: Mapping[str, Network], shop: Workshop) -> Trial:
    """Time single frames, then batches with those that are not far behind."""
    single = race(
        {n: partial(run, _noise(shop, 1)) for n, run in networks.items()}, budget_s=BUDGET_S
    )
    least = min(single.values())
    near = {name: networks[name] for name, ms in single.items() if ms <= HOPELESS * least}
    batch = _noise(shop, BATCH)
    batches = race({name: partial(run, batch) for name, run in near.items()}, budget_s=BUDGET_S)
    trial = Trial(
        shop.name,
        {name: round(ms, 3) for name, ms in single.items()},
        {name: round(ms / BATCH, 3) for name, ms in batches.items()},
    )
    for name, ms in trial.times_ms.items():
        LOGGER.info(
            "runtime %s: %.1f ms a frame, %s in batches of %d",
            name,
            ms,
            f"{trial.batch_ms[name]:.1f}" if name in trial.batch_ms else "–",
            BATCH,
        )
    return trial


def this_machine() -> str:
    """What a measured time depends on beside the model."""
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    threads = f"{torch.get_num_threads()} threads"
    return machine(("torch", "onnxruntime", "openvino"), threads, cuda)


def _noise(shop: Workshop, count: int) -> torch.Tensor:
    """Frames of noise, uint8 [count, H, W, 3]."""
    generator = torch.Generator().manual_seed(0)
    shape = (count, *shop.exports.size, 3)
    frames = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return frames.to(shop.device)


def _load_all(shop: Workshop) -> dict[str, Network]:
    """Load every candidate that can run here."""
    networks: dict[str, Network] = {}
    for name in ON_CUDA if shop.device.type == "cuda" else ON_CPU:
        try:
            networks[name] = load_runtime(name, shop)
        except ModelError as error:
            LOGGER.info("runtime auto: %s left out (%s)", name, error)
    return networks
