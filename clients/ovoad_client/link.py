"""One connection to a server, from session.created to its end. Knows no other connection."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from ovoad_client.connection import explain_close, open_connection
from ovoad_client.errors import ClientError, RefusedError, SilenceError
from ovoad_client.opening import Tap, open_session
from ovoad_client.protocol import (
    Error,
    SessionClosed,
    SessionCreate,
    SessionCreated,
)

_LAST_CLOSE_S: Final = 2.0  # from session.closed to the close of the connection


@dataclass(frozen=True)
class Target:
    """Where to connect, and how long to wait for it and for each answer that is due."""

    url: str
    api_key: str | None
    open_timeout_s: float
    timeout_s: float
    tap: Tap | None


class Link:
    """A connection whose session is open, and how the server said that it ends."""

    def __init__(
        self, socket: ClientConnection, created: SessionCreated, *, key_given: bool
    ) -> None:
        self.socket = socket
        self.created = created
        self.opened_s = time.monotonic()
        self.proved = False  # it has brought something that was waited for
        self.fatal: Error | None = None
        self.closed: SessionClosed | None = None
        self._key_given = key_given

    async def receive(self, timeout_s: float, due: Callable[[], str | None]) -> str:
        """Return the next text message.

        due: names an answer that the server owes, if it does. Raises ConnectionClosed, and
        SilenceError where an answer is due and nothing comes.
        """
        while True:
            limit_s = timeout_s if self.closed is None else _LAST_CLOSE_S
            try:
                async with asyncio.timeout(limit_s):
                    return await self.socket.recv(decode=True)
            except TimeoutError:
                if self.closed is not None:
                    await self.socket.close()
                elif (what := due()) is not None:
                    raise SilenceError(f"waited {timeout_s:g} s for {what}") from None

    def explain(self, error: ConnectionClosed, *, detail: str) -> ClientError:
        """Say why the connection ended."""
        if self.fatal is not None:
            fatal = self.fatal
            return RefusedError(fatal.code, fatal.message, retry_after_ms=fatal.retry_after_ms)
        return explain_close(error, self.socket, key_given=self._key_given, detail=detail)

    def abort(self) -> None:
        """Drop a connection that no longer answers."""
        self.socket.transport.abort()


async def open_link(target: Target, create: SessionCreate) -> Link:
    """Connect and open the session.

    Raises UsageError, UnreachableError, UnauthorisedError, RefusedError, BrokenError, SilenceError.
    """
    socket = await open_connection(
        target.url, api_key=target.api_key, timeout_s=target.open_timeout_s
    )
    key_given = bool(target.api_key)
    try:
        created = await open_session(
            socket, create, target.timeout_s, target.tap, key_given=key_given
        )
    except (ClientError, asyncio.CancelledError):
        await socket.close()
        raise
    return Link(socket, created, key_given=key_given)
