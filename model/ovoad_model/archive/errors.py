"""What can go wrong with an archive, and with one video of it."""

from typing import Literal

from ovoad_model.errors import ModelError

BadCode = Literal["not_a_video", "unreadable", "decoder_died", "too_slow", "worker_died", "failed"]
"""Why a video has no scores (docs/archives.md says more of each)."""


class ArchiveError(ModelError):
    """A run that cannot go on, or not begin."""


class BadVideoError(ModelError):
    """A video that cannot be scored; `code` is for programs, the text for people."""

    def __init__(self, code: BadCode, message: str) -> None:
        super().__init__(message)
        self.code: BadCode = code
