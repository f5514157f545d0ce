"""What the answers of a stretch of time told. Knows no connection."""

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

STAGES: Final = ("queue", "decode", "encode", "score", "total", "end to end")
SERVER_STAGES: Final = STAGES[:5]
MODEL_STAGES: Final = STAGES[1:4]


def _empty() -> dict[str, "array[float]"]:
    return {stage: array("d") for stage in STAGES}


@dataclass
class Samples:
    """Answers of all sessions in a stretch of time.

    times_ms: the server's stages and the client's end to end, one number a prediction;
    late_ms: how long after its time each frame went out (the generator's own delay).
    """

    times_ms: dict[str, "array[float]"] = field(default_factory=_empty)
    late_ms: "array[float]" = field(default_factory=lambda: array("d"))
    dropped: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def predictions(self) -> int:
        """Frames that were predicted."""
        return len(self.times_ms["total"])


class Recorder:
    """Where the sessions of a run put what they see."""

    def __init__(self) -> None:
        self.samples = Samples()

    def take(self) -> Samples:
        """Return what came since the last call, and start anew."""
        taken, self.samples = self.samples, Samples()
        return taken
