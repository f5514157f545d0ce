"""What can go wrong with an open_clip encoder. Each error says what to do about it."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from ovoad_model.errors import ModelError, UnknownEncoderError

NAMED: Final = 5
"""How many names an error text lists of each kind."""


class OpenClipNameError(UnknownEncoderError):
    """A name begins with open_clip: and names no encoder."""

    def __init__(self, name: str, message: str, known: Sequence[str]) -> None:
        ModelError.__init__(self, f"found encoder {name!r}: {message}")
        self.name = name
        self.known = tuple(known)


class WeightsFileError(ModelError):
    """A file of weights is absent or damaged, or does not belong to the model."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(f"weights {path}: {message}")
        self.path = path


class WrongCheckpointError(WeightsFileError):
    """A file's tensors are not those of the model; missing, extra and misshapen name them."""

    def __init__(
        self,
        path: Path,
        model: str,
        *,
        missing: Sequence[str] = (),
        extra: Sequence[str] = (),
        misshapen: Sequence[str] = (),
    ) -> None:
        parts = [
            f"{len(names)} {what} ({some(names)})"
            for what, names in (
                ("missing", missing),
                ("that the model has not", extra),
                ("of another shape", misshapen),
            )
            if names
        ]
        super().__init__(
            path,
            f"found tensors that are not those of {model}: {'; '.join(parts)}; "
            f"expected a checkpoint of {model}",
        )
        self.missing, self.extra = tuple(missing), tuple(extra)
        self.misshapen = tuple(misshapen)


class UnfetchedError(ModelError):
    """A file from the network is not at hand and could not be fetched."""

    def __init__(self, what: str, reason: str, remedy: str) -> None:
        super().__init__(f"{what}: could not be fetched ({reason}); {remedy}")
        self.what = what
        self.reason = reason
        self.remedy = remedy


class NoSpaceError(ModelError):
    """The disk is full; path is the folder that was written to."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"found no space left in {path} for {what}, expected more")
        self.path = path


def some(names: Sequence[str]) -> str:
    """List the first few names."""
    more = ", …" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def nearest(name: str, known: Sequence[str]) -> str:
    """Say which known names are like this one, case aside."""
    by_lower = {each.lower(): each for each in known}
    near = get_close_matches(name.lower(), list(by_lower), n=3, cutoff=0.5)
    return f"nearest: {', '.join(by_lower[each] for each in near)}" if near else "none is like it"
