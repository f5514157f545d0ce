"""What can go wrong in the client, each with a text that a person can act on."""

from ovoad_client.protocol import ErrorCode


class ClientError(Exception):
    """Base of the client's errors; its text stands alone on one line."""


class UsageError(ClientError):
    """Something asked for in a way that cannot work, found before anything ran."""


class MissingExtraError(ClientError):
    """A third-party module that an optional part needs; `module` and `extra` name both."""

    def __init__(self, what: str, *, module: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the {extra} extra (found no module {module}): "
            f"pip install 'ovoad[{extra}]'"
        )
        self.module = module
        self.extra = extra


class UnreachableError(ClientError):
    """No WebSocket could be opened at `address`."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"cannot reach {address}: {reason}")
        self.address = address


class UnauthorisedError(ClientError):
    """The server asks for an API key that it knows."""

    def __init__(self, address: str, *, key_given: bool) -> None:
        found = "the API key is not the server's" if key_given else "no API key was given"
        super().__init__(
            f"{address} refused the connection: {found}; "
            "pass --api-key or set OVOAD_API_KEY to the server's key"
        )
        self.address = address


class RefusedError(ClientError):
    """The server answered with an error; `code` is the wire's, and so is `retry_after_ms`."""

    def __init__(self, code: ErrorCode, message: str, *, retry_after_ms: int | None = None) -> None:
        found = "server refused"
        if code == "superseded":
            found = "another client took the session over"
        super().__init__(f"{found}: {message} ({code})")
        self.code: ErrorCode = code
        self.retry_after_ms = retry_after_ms


class BrokenError(ClientError):
    """The connection ended with no session.closed; `close_code` is the WebSocket's, if any."""

    def __init__(self, text: str, *, close_code: int | None = None) -> None:
        super().__init__(text)
        self.close_code = close_code


class SilenceError(ClientError):
    """An answer was due and did not come in time."""


class FrameError(ClientError):
    """A frame that must not be sent: too large, or its time does not advance."""


class SourceError(ClientError):
    """A video source that cannot be opened or has stopped giving frames."""


class ServerStartError(ClientError):
    """The server process ended, or was not ready in time; the text ends with its log's tail."""


def os_reason(error: OSError) -> str:
    """Return what the system says of a failure, in lower case."""
    return (error.strerror or str(error)).lower()
