"""What an archive is scored with, and what tells whether earlier results still count."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from ovoad_model.archive.events import EventRule
from ovoad_model.build import build_detector
from ovoad_model.detector import Detector
from ovoad_model.kept import sha256_of
from ovoad_model.scorers import ScorerName
from ovoad_model.window import FPS

FORMAT: Final = 1
DIGITS: Final = 16

PerFrame = Literal["all", "probabilities", "none"]
"""Which numbers of each frame are kept: probabilities and similarities, the first alone, none."""


@dataclass(frozen=True)
class ArchiveSettings:
    """What to look for, and with what; templates, background and scorer: None for the default."""

    labels: tuple[str, ...]
    templates: tuple[str, ...] | None = None
    background: tuple[str, ...] | None = None
    scorer: ScorerName | None = None
    encoder: str = "embedded"
    weights: Path | None = None
    runtime: str = "auto"
    fps: float = FPS
    events: EventRule = field(default_factory=EventRule)
    per_frame: PerFrame = "all"

    def build_detector(self, cache: Path, *, frames: bool = True) -> Detector:
        """Load the model; raises ModelErrors."""
        return build_detector(
            encoder=self.encoder,
            scorer=self.scorer,
            weights=self.weights,
            runtime=self.runtime,
            cache=cache,
            frames=frames,
        )


@dataclass(frozen=True)
class Description:
    """All that results depend on, defaults resolved; two runs of one description go together."""

    text: str  # a JSON object

    @property
    def digest(self) -> str:
        """A short name of it."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:DIGITS]


def describe(settings: ArchiveSettings, detector: Detector) -> Description:
    """Resolve the defaults; weights are known by their content."""
    facts = detector.facts
    members: dict[str, Any] = {
        "format": FORMAT,
        "labels": settings.labels,
        "templates": settings.templates or facts.templates,
        "background": settings.background or facts.background,
        "encoder": facts.encoder,
        "fingerprint": facts.fingerprint,
        "scorer": facts.scorers[0],
        "weights": None if settings.weights is None else _weights_digest(settings.weights),
        "runtime": settings.runtime,
        "fps": settings.fps,
        "events": asdict(settings.events),
        "per_frame": settings.per_frame,
    }
    return Description(json.dumps(members, indent=2, ensure_ascii=False) + "\n")


def _weights_digest(weights: Path) -> str:
    file = weights / "model.safetensors" if weights.is_dir() else weights
    return sha256_of(file)[:DIGITS]
