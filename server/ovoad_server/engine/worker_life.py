"""One worker process from start to end: calls go out, results come back to whoever waits.

Knows no session and no model, nor that another process follows.
"""

import asyncio
import contextlib
import itertools
import json
import logging
import os
import pickle
import socket
import sys
import time
from typing import Any, Final

from ovoad_server.engine.interface import WorkerLostError
from ovoad_server.engine.worker_link import (
    LENGTH,
    Call,
    Method,
    Ready,
    Result,
    Setup,
    StartFailed,
    pack,
)

log = logging.getLogger(__name__)
SECRETS: Final = ("API_KEY", "WEBHOOK_URL", "WEBHOOK_SECRET", "MQTT_PASSWORD")  # OVOAD_*
STOP_TIMEOUT_S: Final = 5.0
STATUS_TIMEOUT_S: Final = 1.0  # for the exit status of a process whose socket is closed
READ_AHEAD_BYTES: Final = 4 * 2**20
LONGEST_LINE_BYTES: Final = 2**20


class WorkerStartError(Exception):
    """A worker that cannot begin; the text says why."""


class Life:
    """The process, the calls that it owes an answer, and the words that it knows."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        log_format: str,
    ) -> None:
        self.process = process
        self.known_words: set[int] = set()
        self.prompts = 0  # being embedded
        self.reason: str | None = None  # why it is lost
        self.ended = asyncio.Event()
        self.last_sign_s = time.monotonic()
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Result]] = {}
        self._in_turn: set[int] = set()  # calls that are answered one after the other
        self._reading: asyncio.Task[None] | None = None
        self._relaying = asyncio.create_task(self._relay(as_json=log_format == "json"))

    @classmethod
    async def spawn(cls, log_format: str) -> "Life":
        """Start the process; raises OSError."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-u",  # what libraries print is passed on when they print it
                    "-m",
                    "ovoad_server.engine.worker_process",
                    str(theirs.fileno()),
                    str(os.getpid()),
                    log_format,
                    pass_fds=[theirs.fileno()],
                    env=_environment(),
                    process_group=0,  # what a terminal sends to the server's group is not for it
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                    limit=LONGEST_LINE_BYTES,
                )
            reader, writer = await asyncio.open_connection(sock=ours, limit=READ_AHEAD_BYTES)
        except BaseException:
            ours.close()
            raise
        return cls(process, reader, writer, log_format=log_format)

    @property
    def idle(self) -> bool:
        """Whether no call that is answered in turn is under way."""
        return not self._in_turn

    async def begin(self, setup: Setup, *, timeout_s: float | None) -> Ready:
        """Send the first message and return the answer; raises WorkerStartError."""
        self._writer.write(pack(setup))
        try:
            async with asyncio.timeout(timeout_s):
                first = await self._receive()
        except TimeoutError:
            raise WorkerStartError(f"the worker was not ready within {timeout_s:g} s") from None
        except (asyncio.IncompleteReadError, OSError):
            status = await self._status()
            raise WorkerStartError(f"the worker ended with status {status} at its start") from None
        except Exception as error:
            raise WorkerStartError("the worker's first message cannot be read") from error
        if isinstance(first, StartFailed):
            raise WorkerStartError(first.reason)
        assert isinstance(first, Ready)
        self.last_sign_s = time.monotonic()
        self._reading = asyncio.create_task(self._read(), name="ovoad worker reader")
        return first

    async def call(self, method: Method, *arguments: Any, timeout_s: float) -> Any:
        """Ask and wait; raises WorkerLostError, and RuntimeError for what the model raised."""
        number = next(self._numbers)
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        if method != "embed":
            self._in_turn.add(number)
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(Call(number, method, arguments))
                result = await answer
        except TimeoutError:
            self.lose(f"hung: no answer to {method} within {timeout_s:g} s")
            raise WorkerLostError(f"the worker {self.reason}") from None
        finally:
            self._waiting.pop(number, None)
            self._in_turn.discard(number)
        if result.fault is not None:
            raise RuntimeError(result.fault)
        return result.value

    async def drop(self, numbers: list[int]) -> None:
        """Let words go that nobody uses any more."""
        self.known_words.difference_update(numbers)
        await self._send(Call(-1, "drop", (numbers,)))

    def lose(self, reason: str) -> None:
        """Give the process up: kill it, tell everybody who waits."""
        if self.reason is not None:
            return
        self.reason = reason
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(WorkerLostError(f"the worker {reason}"))
                answer.exception()  # seen: who still sends learns it from the connection
        self.ended.set()

    async def stop(self) -> None:
        """End the process and wait until it is gone."""
        self.lose("was stopped")
        self._writer.close()
        if self._reading is not None:
            self._reading.cancel()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self.process.wait()
                await self._relaying  # its last words
        except TimeoutError:
            log.error("process %d of a worker is still there", self.process.pid)
        finally:
            self._relaying.cancel()

    async def _send(self, call: Call) -> None:
        if self.reason is not None:
            raise WorkerLostError(f"the worker {self.reason}")
        try:
            self._writer.write(pack(call))
            await self._writer.drain()
        except OSError:
            self.lose(f"died with status {await self._status()}")
            raise WorkerLostError(f"the worker {self.reason}") from None

    async def _receive(self) -> Any:
        (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
        return pickle.loads(await self._reader.readexactly(length))

    async def _read(self) -> None:
        try:
            while True:
                self._take(await self._receive())
        except (asyncio.IncompleteReadError, OSError):
            self.lose(f"died with status {await self._status()}")
        except Exception:
            log.exception("found no message from the worker that can be read")
            self.lose("died: it sent what cannot be read")

    def _take(self, result: Result) -> None:
        if result.number in self._in_turn:
            self.last_sign_s = time.monotonic()
        answer = self._waiting.get(result.number)
        if answer is not None and not answer.done():
            answer.set_result(result)

    async def _status(self) -> int | None:
        """Return the exit status, None while the process is still there."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STATUS_TIMEOUT_S):
                return await self.process.wait()
        return self.process.returncode

    async def _relay(self, *, as_json: bool) -> None:
        """Pass on what the process writes; what its libraries print becomes a record of its own."""
        written = self.process.stdout
        assert written is not None
        while True:
            try:
                line = (await written.readline()).decode(errors="replace")
            except ValueError:  # a line beyond all measure: its rest is no better
                continue
            if not line:
                return
            if as_json and not _is_record(line):
                log.warning("the worker printed: %s", line.rstrip())
            else:
                print(line, end="", file=sys.stderr, flush=True)


def _is_record(line: str) -> bool:
    """Tell whether a line is a log record in JSON."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _environment() -> dict[str, str]:
    """Return our environment without our secrets: none of them is the model's business."""
    hidden = {f"OVOAD_{name}" for name in SECRETS}
    return {name: value for name, value in os.environ.items() if name not in hidden}
