"""What the engine needs of a model, as protocols. Knows none in particular."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
Float32Array = NDArray[np.float32]


class Vocabulary(Protocol):
    """Embedded words; opaque but for the labels, the warnings and the scorer they are for."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def warnings(self) -> tuple[str, ...]: ...

    @property
    def scorer(self) -> str: ...


class WindowState(Protocol):
    """Filled slots, milliseconds spanned, empty slots, still filling."""

    @property
    def frames(self) -> int: ...

    @property
    def span_ms(self) -> int: ...

    @property
    def gaps(self) -> int: ...

    @property
    def warming_up(self) -> bool: ...


class WindowView(Protocol):
    """A snapshot of a window; opaque but for its state."""

    @property
    def state(self) -> WindowState: ...


class Window(Protocol):
    """One session's ring buffer of features."""

    def clear(self) -> None: ...

    def push(self, timestamp_ms: int, feature: Float32Array) -> None: ...

    def view(self) -> WindowView: ...

    def view_after(self, timestamp_ms: int, feature: Float32Array) -> WindowView:
        """Return the view that this window would have after a push; the window stays as it is."""


class Scores(Protocol):
    """The answer for one window: probabilities [C] and background sum to 1."""

    @property
    def probabilities(self) -> Float32Array: ...

    @property
    def background(self) -> float: ...

    @property
    def similarities(self) -> Float32Array: ...

    @property
    def assignment(self) -> Float32Array | None: ...

    @property
    def foreground(self) -> Float32Array | None: ...


ScorerName = Literal["frame", "average", "cluster", "ovoad"]


class DetectorFacts(Protocol):
    """What a server tells of its model."""

    @property
    def encoder(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def scorers(self) -> tuple[ScorerName, ...]:
        """The default first."""

    @property
    def languages(self) -> tuple[str, ...]: ...

    @property
    def templates(self) -> tuple[str, ...]: ...

    @property
    def background(self) -> tuple[str, ...]: ...

    @property
    def feature_width(self) -> int: ...

    @property
    def lanes(self) -> int:
        """How many frames, each in a call of its own, may be encoded side by side at full speed."""

    @property
    def least_side(self) -> int:
        """Pixels that a frame's shorter side needs; larger ones may be decoded smaller."""

    @property
    def fps(self) -> float:
        """Of the window's grid."""

    @property
    def past(self) -> int: ...

    @property
    def neighbours(self) -> int: ...


class Detector(Protocol):
    """Frames to features, windows and words to scores. `score` takes what the others gave.

    Safe to use from several threads.
    """

    @property
    def facts(self) -> "DetectorFacts":
        """What it is."""

    @property
    def text_counts(self) -> tuple[int, int]:
        """Texts found in the cache and texts embedded anew, so far."""

    def vocabulary(
        self,
        labels: Sequence[str],
        *,
        templates: Sequence[str] | None = None,
        background: Sequence[str] | None = None,
        scorer: str | None = None,
        anew: bool = False,
    ) -> Vocabulary:
        """Embed words, `anew` past any cache."""

    def open_window(self) -> Window: ...

    def encode(self, frames: Sequence[Frame]) -> Float32Array: ...

    def score(self, views: Sequence[Any], vocabularies: Sequence[Any]) -> Sequence[Scores]: ...


# ---- the worker ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class WordsRequest:
    """What to look for, as a user asks for it."""

    labels: tuple[str, ...]
    templates: tuple[str, ...] | None = None
    background: tuple[str, ...] | None = None
    scorer: str | None = None


@dataclass(frozen=True)
class Failure:
    """Why one item of a batch has no result; `code` is the wire's error code."""

    code: str
    message: str


@dataclass(frozen=True)
class ScoreStep:
    """What it takes to score a frame in the call that encodes it: its window as it is before."""

    window: Window
    timestamp_ms: int
    vocabulary: Vocabulary


@dataclass(frozen=True)
class EncodedBatch:
    """A feature [F] or a failure for each of B images, and the milliseconds that they took.

    limit: the most frames that the device has room for at once, None if all fitted.
    scores: for each image; None where no step came with it, or the worker leaves it to `score`.
    waited_ms: before any of that, for the batches before it.
    """

    features: Sequence[Float32Array | Failure]
    decode_ms: Sequence[float]
    encode_ms: float
    scores: Sequence[Scores | Failure | None]
    score_ms: float = 0.0
    limit: int | None = None
    waited_ms: float = 0.0


@dataclass(frozen=True)
class ScoredBatch:
    """Scores or a failure for each of B windows, and the milliseconds that they took."""

    scores: Sequence[Scores | Failure]
    score_ms: float


class WorkerLostError(Exception):
    """The worker died or was stopped because it hung, before it answered."""


class Worker(Protocol):
    """Where the model runs. Every call raises WorkerLostError when the worker is lost meanwhile.

    Several batches may be asked for at once; scoring and embedding run beside that.
    """

    async def encode(
        self, images: Sequence[bytes], steps: Sequence[ScoreStep | None] = ()
    ) -> EncodedBatch:
        """Decode and encode B images; score those that come with a step, where that is possible."""

    async def score(
        self, views: Sequence[WindowView], vocabularies: Sequence[Vocabulary]
    ) -> ScoredBatch:
        """Score B windows, each against its own words, which `embed` gave."""

    async def embed(self, words: WordsRequest) -> Vocabulary:
        """Embed a user's words; raises RuntimeError for what the model raises."""

    async def probe(self) -> Sequence[float]:
        """Return the similarities of the golden images to the golden sentences."""

    async def until_ready(self) -> None:
        """Wait until calls are answered again."""

    @property
    def ready(self) -> bool:
        """Whether calls are answered now."""

    @property
    def text_counts(self) -> tuple[int, int]:
        """Texts found in the cache and texts embedded anew, as last told."""

    @property
    def heartbeat_age_s(self) -> float:
        """Seconds since the worker last showed that it lives and gets on."""
