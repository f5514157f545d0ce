"""What the engine answers: one reply a frame, and events between them. Knows no wire format."""

from dataclasses import dataclass
from typing import Literal

from ovoad_server.engine.events import ActionEvent
from ovoad_server.engine.interface import Scores, Vocabulary, WindowState

DropReason = Literal["busy", "rate", "stale"]


@dataclass(frozen=True)
class Timing:
    """Milliseconds by stage; total runs from receipt to the finished score."""

    queue: float
    decode: float
    encode: float
    score: float
    total: float


@dataclass(frozen=True)
class Scored:
    """A frame's scores, with the words that were in force for it."""

    seq: int
    timestamp_ms: int
    vocabulary_version: int
    vocabulary: Vocabulary
    scores: Scores
    window: WindowState
    timing: Timing
    backlog: int


@dataclass(frozen=True)
class Dropped:
    """A frame that gets no scores, and why."""

    seq: int
    timestamp_ms: int
    reason: DropReason


@dataclass(frozen=True)
class Failed:
    """A frame that could not be scored; `code` is the wire's error code."""

    seq: int | None
    code: str
    message: str


Reply = Scored | Dropped | Failed | ActionEvent
