"""Every choice of a training run in one frozen record; the defaults are the paper's.

Knows no tensors. The schedule is a function of the step, so that it needs no state.
"""

import math
from dataclasses import dataclass
from typing import Literal

from ovoad_model.errors import ModelError

Precision = Literal["float32", "bfloat16", "float16"]
RepeatedTexts = Literal["negatives", "ignored"]


class TrainingError(ModelError):
    """A run that cannot start, go on or be resumed."""


@dataclass(frozen=True)
class TrainingSettings:
    """How to train (paper.md, Training).

    batch_size counts all processes' windows; chunk is how many one process sends through the
    network at once, None for all: fewer need less memory and give the same gradients.
    repeated_texts: windows whose text is the same sentence are each other's "negatives" as the
    paper's formula stands, or are "ignored".
    alpha and beta weigh L_current and L_mask.
    """

    epochs: int = 30
    warmup_epochs: int = 2
    batch_size: int = 256
    chunk: int | None = None
    learning_rate: float = 1.6e-4
    weight_decay: float = 0.05
    clip_norm: float = 5.0
    alpha: float = 0.1
    beta: float = 1.0
    repeated_texts: RepeatedTexts = "negatives"
    precision: Precision = "float32"
    seed: int = 0
    checkpoint_minutes: float = 10.0
    log_steps: int = 10

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "learning_rate", "clip_norm", "log_steps"):
            if not 0 < getattr(self, name) < math.inf:
                raise TrainingError(
                    f"found {name} {getattr(self, name)}, expected a number above 0"
                )
        for name in ("weight_decay", "alpha", "beta", "checkpoint_minutes"):
            if not 0 <= getattr(self, name) < math.inf:
                raise TrainingError(f"found {name} {getattr(self, name)}, expected 0 or more")
        if not 0 <= self.seed < 2**63:
            raise TrainingError(f"found seed {self.seed}, expected 0 to below 2**63")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise TrainingError(
                f"found {self.warmup_epochs} warm-up epochs, expected 0 to below {self.epochs}"
            )
        if self.chunk is not None and self.chunk < 1:
            raise TrainingError(f"found chunk {self.chunk}, expected 1 or more")


def learning_rate_at(step: int, settings: TrainingSettings, steps_per_epoch: int) -> float:
    """The rate of step 0, 1 …: linear from 0 over the warm-up, then half a cosine down to 0."""
    warmup = settings.warmup_epochs * steps_per_epoch
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / (settings.epochs * steps_per_epoch - warmup)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
