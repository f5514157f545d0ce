"""uvicorn's server, ended in two steps: sessions first, the listener after them.

It also ends connections that uvicorn would bear for ever: those that take too long to say what they
want, and those that ask for pongs (of WebSocket itself) and read none.
"""

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any, Final

import uvicorn

log = logging.getLogger(__name__)

HEAD_TIMEOUT_S: Final = 10.0  # for a request's headers
MOST_UNSENT_BYTES: Final = 4 * 2**20  # sessions write far less ahead of their clients
CLOSE_TIMEOUT_S: Final = 0.5  # for a client to take the last words when the server ends


class DrainingServer(uvicorn.Server):
    """On the first SIGTERM drains for `grace_s`, on SIGINT (Ctrl-C) at once; the second ends it."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        drain: Callable[[float], Awaitable[None]],
        grace_s: float,
    ) -> None:
        super().__init__(config)
        self._drain = drain
        self._grace_s = grace_s
        self._draining: asyncio.Task[None] | None = None
        self._since_s: dict[Any, float] = {}  # when connections began to say what they want

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal; uvicorn calls this on the event loop's thread."""
        if self._draining is not None:
            super().handle_exit(sig, frame)
            return
        grace_s = self._grace_s if sig == signal.SIGTERM else 0.0
        loop = asyncio.get_running_loop()
        self._draining = loop.create_task(self._drain_then_exit(grace_s, sig, frame))
        loop.call_soon_threadsafe(lambda: None)  # wakes a loop that a signal finds asleep

    async def _drain_then_exit(self, grace_s: float, sig: int, frame: FrameType | None) -> None:
        try:
            await self._drain(grace_s)
        finally:
            super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        """Look after connections once a second; uvicorn calls this ten times as often."""
        if counter % 10 == 0:
            self._end_slow_requests(time.monotonic())
            self._cut_those_that_read_nothing()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close all connections; those whose clients take nothing any more are cut."""
        cutting = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, self._cut)
        await super().shutdown(sockets)
        cutting.cancel()

    def _cut(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def _cut_those_that_read_nothing(self) -> None:
        for connection in list(self.server_state.connections):
            if connection.transport.get_write_buffer_size() > MOST_UNSENT_BYTES:
                log.warning("a client was cut off that sends and reads nothing")
                connection.transport.abort()

    def _end_slow_requests(self, now_s: float) -> None:
        """Close HTTP connections without a request under way for HEAD_TIMEOUT_S.

        One that sends its headers byte by byte is such a connection, and so is a silent one. A
        WebSocket is none any more once it is open.
        """
        waiting = {
            connection: self._since_s.get(connection, now_s)
            for connection in self.server_state.connections
            if _awaits_request(connection)
        }
        self._since_s = waiting
        for connection, since_s in waiting.items():
            if now_s - since_s > HEAD_TIMEOUT_S:
                connection.transport.close()


def _awaits_request(connection: Any) -> bool:
    """Tell whether a connection has no whole request that waits for its answer, or is a WebSocket.

    A WebSocket whose handshake has not ended is none yet.
    """
    if not hasattr(connection, "cycle"):
        return not connection.handshake_initiated
    return connection.cycle is None or bool(connection.cycle.response_complete)
