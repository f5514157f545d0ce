"""Turn Ctrl-C and SIGTERM into an orderly end. Knows nothing of what is ended."""

import asyncio
import contextlib
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Final

EXIT_INTERRUPTED: Final = 130
_SIGNALS: Final = ("SIGINT", "SIGTERM", "SIGHUP")


class Interrupts:
    """While entered, the first signal calls `stop` where it is set; any other cancels the task."""

    def __init__(self) -> None:
        self.stop: Callable[[], None] | None = None
        self.interrupted = False
        self._task: asyncio.Task[object] | None = None

    def __enter__(self) -> "Interrupts":
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for name in _SIGNALS:
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError, AttributeError):
                number = getattr(signal, name)
                if name == "SIGHUP" and signal.getsignal(number) is signal.SIG_IGN:
                    continue  # started by nohup
                loop.add_signal_handler(number, self.interrupt)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        for name in _SIGNALS:
            with contextlib.suppress(NotImplementedError, RuntimeError, ValueError, AttributeError):
                loop.remove_signal_handler(getattr(signal, name))

    def interrupt(self) -> None:
        """Stop in order the first time, at once the second."""
        first = not self.interrupted
        self.interrupted = True
        if first and self.stop is not None:
            self.stop()
        elif self._task is not None:
            self._task.cancel()
