"""`auto` of encoder `embedded`: OpenVINO where it is installed and measurably faster here.

The trial takes about three seconds, once: it is kept with those of other encoders.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np

from ovoad_model.arrays import Frame
from ovoad_model.embedded.frames import FrameNetwork
from ovoad_model.embedded.shipped import Shipped
from ovoad_model.open_clip_encoder.notes import Trial, read_trials, write_trial
from ovoad_model.trials import machine, race

LOGGER: Final = logging.getLogger(__name__)
BATCH: Final = 8
BUDGET_S: Final = 1.0
MARGIN: Final = 1.03
"""How many times as fast OpenVINO must be: the two are nearly level, and answers differ by 1e-5."""

Exact = Literal["onnxruntime", "openvino"]
NAMES: Final[tuple[Exact, ...]] = get_args(Exact)


def choose_runtime(shipped: Shipped, *, size: int, cache: Path) -> Exact:
    """Choose what runs the image net [B, size, size, 3], by the notes or a trial."""
    if find_spec("openvino") is None:
        return "onnxruntime"
    key = f"{machine(NAMES)} | {shipped.fingerprint[:24]}"
    trial = read_trials(cache).get(key)
    if trial is None or set(trial.times_ms) != set(NAMES):
        trial = _measure(shipped.path("image.onnx"), size)
        write_trial(cache, key, trial)
    chosen = choose(trial)
    LOGGER.info("runtime auto: %s", chosen)
    return chosen


def choose(trial: Trial) -> Exact:
    """OpenVINO where ONNX Runtime is more than the margin behind it."""
    faster = trial.behind("onnxruntime") > MARGIN * trial.behind("openvino")
    return "openvino" if faster else "onnxruntime"


def _measure(path: Path, size: int) -> Trial:
    frames = list(np.random.default_rng(0).integers(0, 256, (BATCH, size, size, 3), dtype=np.uint8))
    nets = {name: FrameNetwork(path, size=size, runtime=name, threads=0) for name in NAMES}
    single = race(_ways(nets, frames[:1]), budget_s=BUDGET_S)
    batches = race(_ways(nets, frames), budget_s=BUDGET_S)
    return Trial(
        "embedded",
        {name: round(ms, 3) for name, ms in single.items()},
        {name: round(ms / BATCH, 3) for name, ms in batches.items()},
    )


def _ways(
    nets: dict[Exact, FrameNetwork], frames: Sequence[Frame]
) -> dict[str, Callable[[], object]]:
    return {name: partial(net, frames) for name, net in nets.items()}
