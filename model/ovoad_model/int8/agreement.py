"""How far an int8 network agrees with the float32 one that it was made from; kept beside it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ovoad_model.arrays import Float32Array

FILE: Final = "agreement.json"


@dataclass(frozen=True)
class ClipPrecision:
    """Mean average precision by scorer on labelled clips, 0 to 1, in float32 and in int8."""

    folder: str
    clips: int
    float32: Mapping[str, float]
    int8: Mapping[str, float]


@dataclass(frozen=True)
class Agreement:
    """Cosine of embeddings with float32's, on pictures that were not calibrated on.

    pictures: where they come from; calibrated, judged: how many; clips: None where not measured.
    """

    pictures: str
    calibrated: int
    judged: int
    mean: float
    least: float
    clips: ClipPrecision | None = None

    def __str__(self) -> str:
        """Tell it in a line."""
        cosines = (
            f"cosine to float32 mean {self.mean:.5f}, least {self.least:.5f} on {self.judged} "
            f"frames of {self.pictures} ({self.calibrated} others calibrated it)"
        )
        if self.clips is None:
            return f"{cosines}; change in clip mAP not measured (--clips FOLDER)"
        changes = ", ".join(
            f"{scorer} {self.clips.float32[scorer]:.3f} to {precision:.3f}"
            for scorer, precision in self.clips.int8.items()
        )
        return f"{cosines}; mAP of {self.clips.clips} clips in {self.clips.folder}: {changes}"


def cosines(left: Float32Array, right: Float32Array) -> Float32Array:
    """Return the cosine of each row with its counterpart: [B]."""
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    rows: Float32Array = np.einsum("bd,bd->b", left, right) / np.maximum(lengths, 1e-12)
    return rows


def write_agreement(folder: Path, agreement: Agreement) -> None:
    """Put it beside the network."""
    content = json.dumps(asdict(agreement), indent=2) + "\n"
    (folder / FILE).write_text(content, encoding="utf-8")


def read_agreement(folder: Path) -> Agreement:
    """Read it; raises OSError, ValueError, TypeError or KeyError where it is none."""
    members: Any = json.loads((folder / FILE).read_text(encoding="utf-8"))
    clips = members.pop("clips")
    return Agreement(**members, clips=None if clips is None else ClipPrecision(**clips))
