"""A run's whole state in one file, written whole or not at all. Knows no data set."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ovoad_model.training.files import write_atomically
from ovoad_model.training.settings import TrainingError

FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """All that a run needs to go on as if it had never stopped.

    step: steps done. run: what the run is (settings, network, data), compared on resuming.
    network, optimizer and scaler: state dicts. random: each process's generator states, CPU and
    (empty where there is none) GPU.
    """

    step: int
    run: str
    network: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any]
    random: list[tuple[Tensor, Tensor]]

    def write(self, path: Path) -> None:
        """Write the file; whatever interrupts it, the old one or the new one is there whole."""
        content = {"format": FORMAT, **{name: getattr(self, name) for name in _MEMBERS}}
        write_atomically(path, lambda stream: torch.save(content, stream))

    @classmethod
    def read(cls, path: Path) -> "Checkpoint":
        """Read a file that `write` wrote; raises TrainingError for any other."""
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise TrainingError(f"{path}: found no checkpoint ({error})") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise TrainingError(f"{path}: found no checkpoint of format {FORMAT}")
        absent = [name for name in _MEMBERS if name not in content]
        if absent:
            raise TrainingError(f"{path}: found no {' and no '.join(absent)} in the checkpoint")
        return cls(**{name: content[name] for name in _MEMBERS})


_MEMBERS = ("step", "run", "network", "optimizer", "scaler", "random")


def name_not_finite(state: Any, name: str = "") -> str | None:
    """Name the first tensor with NaN or infinity among nested dicts, such as state dicts."""
    if isinstance(state, Tensor):
        return None if bool(state.isfinite().all()) else name
    members = state.items() if isinstance(state, Mapping) else ()
    found = (name_not_finite(value, f"{name}.{key}".lstrip(".")) for key, value in members)
    return next((spoilt for spoilt in found if spoilt is not None), None)


def random_state() -> tuple[Tensor, Tensor]:
    """This process's torch generators: CPU, and GPU or an empty tensor."""
    gpu = torch.cuda.get_rng_state() if torch.cuda.is_available() else torch.empty(0)
    return torch.get_rng_state(), gpu


def restore_random_state(state: tuple[Tensor, Tensor]) -> None:
    """Set this process's torch generators."""
    cpu, gpu = state
    torch.set_rng_state(cpu)
    if len(gpu) and torch.cuda.is_available():
        torch.cuda.set_rng_state(gpu)
