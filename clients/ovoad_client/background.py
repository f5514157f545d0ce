"""Run an event loop in a thread of its own, for callers that have none. Knows no stream."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Final, TypeVar

from ovoad_client.errors import BrokenError, UsageError

Result = TypeVar("Result")
_CANCEL_S: Final = 5.0
_JOIN_S: Final = 15.0  # longer than the closing handshake of a connection may take


class BackgroundLoop:
    """While entered, runs coroutines for any thread but its own.

    A caller that is interrupted (Ctrl-C) cancels what it waited for. On leaving, whatever still
    runs is cancelled, and threads that wait for it get BrokenError. The thread is a daemon: a
    program that never leaves can still end.
    """

    def __init__(self) -> None:
        self._started = threading.Event()
        self._stopping: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure: Exception | None = None  # why there is no loop
        self._thread = threading.Thread(target=self._run, name="ovoad loop", daemon=True)

    def __enter__(self) -> "BackgroundLoop":
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            raise BrokenError(f"cannot start an event loop: {self._failure}") from self._failure
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        loop, stopping, self._loop = self._loop, self._stopping, None
        if loop is not None and stopping is not None:
            loop.call_soon_threadsafe(stopping.set)
        self._thread.join(_JOIN_S)

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine to its end and return its result; raises what it raises."""
        ended = threading.Event()
        try:
            future = self._submit(_ended_told(work, ended))
        except BaseException:
            work.close()
            raise
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise BrokenError("the session was left while this call waited") from None
        except BaseException:
            if future.cancel():  # the caller was interrupted, the coroutine is at work
                ended.wait(_CANCEL_S)
            raise

    def _submit(self, work: Coroutine[Any, Any, Result]) -> "concurrent.futures.Future[Result]":
        try:
            return self._checked_submit(work)
        except BaseException:
            work.close()
            raise

    def _checked_submit(
        self, work: Coroutine[Any, Any, Result]
    ) -> "concurrent.futures.Future[Result]":
        if threading.current_thread() is self._thread:
            raise UsageError(
                "found a blocking call inside a callback of the stream, expected it in a thread "
                "of the caller's own: it would wait for itself"
            )
        loop = self._loop
        if loop is None:
            raise BrokenError("the session has been left, expected an open one")
        try:
            return asyncio.run_coroutine_threadsafe(work, loop)
        except RuntimeError as error:  # the loop closed meanwhile
            raise BrokenError("the session has been left, expected an open one") from error

    def _run(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._serve())
        except Exception as error:
            if self._started.is_set():
                raise
            self._failure = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._started.set()
        await self._stopping.wait()


async def _ended_told(work: Coroutine[Any, Any, Result], ended: threading.Event) -> Result:
    try:
        return await work
    finally:
        ended.set()
