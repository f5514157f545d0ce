"""What the engine needs of a model, as protocols. Knows none in particular."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]
Float32Array = NDArray[np.float32]


class Vocabulary(Protocol):
    """Embedded words; opaque but for the labels and the warnings."""

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def warnings(self) -> tuple[str, ...]: ...


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


class Detector(Protocol):
    """Frames to features, windows and words to scores. `score` takes what the others gave."""

    def vocabulary(
        self,
        labels: Sequence[str],
        *,
        templates: Sequence[str] | None = None,
        background: Sequence[str] | None = None,
        scorer: str | None = None,
    ) -> Vocabulary: ...

    def open_window(self) -> Window: ...

    def encode(self, frames: Sequence[Frame]) -> Float32Array: ...

    def score(self, views: Sequence[Any], vocabularies: Sequence[Any]) -> Sequence[Scores]: ...
