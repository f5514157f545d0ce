"""What can go wrong in the model room. Every error carries its facts as attributes."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path


class ModelError(Exception):
    """Base of all errors that this package raises about other people's input."""


class UnknownEncoderError(ModelError):
    """No encoder has this name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        near = get_close_matches(name, known, n=3)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        super().__init__(f"found encoder {name!r}, expected one of {', '.join(known)}{hint}")
        self.name = name
        self.known = tuple(known)


class UnknownScorerError(ModelError):
    """No scorer at hand has this name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"found scorer {name!r}, expected one of {', '.join(known)}")
        self.name = name
        self.known = tuple(known)


class UnknownRuntimeError(ModelError):
    """Nothing of this name runs the encoder."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(f"found runtime {name!r}, expected one of {', '.join(known)}")
        self.name = name
        self.known = tuple(known)


class MissingRuntimeError(ModelError):
    """What should run the encoder is not installed."""

    def __init__(self, name: str) -> None:
        super().__init__(f"runtime {name} is not installed, expected: pip install {name}")
        self.name = name


class DamagedFileError(ModelError):
    """A model file is missing or not what it should be."""

    def __init__(self, path: Path, *, expected_sha256: str, found_sha256: str | None) -> None:
        found = "no such file" if found_sha256 is None else f"sha256 {found_sha256}"
        super().__init__(f"model file {path}: found {found}, expected sha256 {expected_sha256}")
        self.path = path
        self.expected_sha256 = expected_sha256
        self.found_sha256 = found_sha256


class MissingWeightsError(ModelError):
    """Scorer `ovoad` was asked for without trained weights."""

    def __init__(self) -> None:
        super().__init__(
            "found no weights for scorer ovoad, expected --weights: an untrained network is "
            "never served; train one with ovoad train"
        )
