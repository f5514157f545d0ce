"""uvicorn's server, ended in two steps: sessions first, the listener after them."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from types import FrameType

import uvicorn


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
