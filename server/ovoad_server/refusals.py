"""Why a connection is ended: the error that the client sees and the close code."""

from typing import Final

from ovoad_client import protocol

SHORTEST_RETRY_MS: Final = 1000


class RefusedError(Exception):
    """A reason to end a connection: the error that the client sees and the close code."""

    def __init__(
        self,
        code: protocol.ErrorCode,
        message: str,
        *,
        close_code: int = protocol.CLOSE_PROTOCOL,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code: protocol.ErrorCode = code
        self.close_code = close_code
        self.retry_after_ms = retry_after_ms

    def to_message(self) -> protocol.Error:
        """Return the fatal error that precedes the close."""
        return protocol.Error(
            code=self.code,
            message=str(self),
            fatal=True,
            transient=self.retry_after_ms is not None,
            retry_after_ms=self.retry_after_ms,
        )
