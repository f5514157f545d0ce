"""Why a clip is not scored: the HTTP status and the error that the client sees."""

from collections.abc import Mapping
from typing import Final

from ovoad_server.keys.checking import revoked
from ovoad_server.refusals import SHORTEST_RETRY_MS, RefusedError

BUSY_RETRY_MS: Final = 5000  # a clip takes seconds at least
_STATUS: Final[Mapping[str, int]] = {"capacity": 503, "restarting": 503, "unauthorised": 401}
"""Of what sessions of any kind are refused for; the rest are mistakes in the request: 422."""


class ClipRefusedError(Exception):
    """A reason not to score a clip; `status` is HTTP's, `code` is stable."""

    def __init__(
        self, status: int, code: str, message: str, *, retry_after_ms: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_after_ms = retry_after_ms

    @classmethod
    def from_session(cls, refusal: RefusedError) -> "ClipRefusedError":
        """Return what HTTP says where a session is refused."""
        status = _STATUS.get(refusal.code, 422)
        return cls(status, refusal.code, str(refusal), retry_after_ms=refusal.retry_after_ms)

    @property
    def retry_after_s(self) -> int | None:
        """Whole seconds, as HTTP's header wants them."""
        return None if self.retry_after_ms is None else -(-self.retry_after_ms // 1000)


def restarting() -> ClipRefusedError:
    """Return why a clip ends when the server does."""
    return ClipRefusedError(
        503,
        "restarting",
        "the server is about to restart, expected the clip again afterwards",
        retry_after_ms=SHORTEST_RETRY_MS,
    )


def busy(message: str, *, status: int) -> ClipRefusedError:
    """Return why a clip must wait."""
    return ClipRefusedError(status, "capacity", message, retry_after_ms=BUSY_RETRY_MS)


def key_revoked() -> ClipRefusedError:
    """Return why a clip ends when its key does."""
    return ClipRefusedError.from_session(revoked())
