"""How sessions end: the reason, the close code, what a client is told before. Knows no session."""

from dataclasses import dataclass
from typing import Final

from ovoad_client import protocol
from ovoad_server.keys.checking import KEY_REVOKED, revoked
from ovoad_server.refusals import RefusedError

REVOKED_GRACE_S: Final = 0.5  # from `goaway` to the end of a session whose key was revoked
REVOKED_SETTLE_S: Final = 0.5  # to answer frames under way then


@dataclass(frozen=True)
class End:
    """How a session ends: in order with `session.closed`, or by a fatal error.

    settle_s: how long frames under way are waited for before the error; those left are dropped.
    """

    reason: str
    close_code: int = protocol.CLOSE_NORMAL
    refusal: RefusedError | None = None
    settle_s: float = 0.0


def frame_too_large(found: int, most: int) -> End:
    """Return the end that a frame of `found` bytes brings."""
    refusal = RefusedError(
        "frame_too_large",
        f"frame has {found} bytes, expected at most {most}",
        close_code=protocol.CLOSE_TOO_LARGE,
    )
    return End("frame too large", refusal.close_code, refusal)


def too_many_bad(count: int) -> End:
    """Return the end that so many bad frames and messages in a row bring."""
    message = f"found {count} bad messages in a row, expected good frames"
    refusal = RefusedError("too_many_bad_frames", message)
    return End("bad frames", refusal.close_code, refusal)


def fault() -> End:
    """Return the end that a fault of the server's own brings."""
    refusal = RefusedError(
        "internal",
        "the server failed; its log says why",
        close_code=protocol.CLOSE_SERVER_FAULT,
    )
    return End("internal", refusal.close_code, refusal)


def key_revoked() -> End:
    """Return the end of a session whose key was revoked."""
    refusal = revoked()
    return End(KEY_REVOKED, refusal.close_code, refusal, REVOKED_SETTLE_S)
