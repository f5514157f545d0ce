"""The worker process seen from the server: started, asked, watched, and started anew when lost.

Knows no session and no model. A worker that dies, or owes an answer for too long, is lost: whoever
waits for it is told, and the next one is started.
"""

import asyncio
import contextlib
import itertools
import logging
import pickle
import socket
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ovoad_server.engine.interface import (
    EncodedBatch,
    ScoredBatch,
    Vocabulary,
    WindowView,
    WordsRequest,
    WorkerLostError,
)
from ovoad_server.engine.worker_link import (
    LENGTH,
    Call,
    Embedded,
    Method,
    Ready,
    Result,
    Setup,
    StartFailed,
    pack,
)

log = logging.getLogger(__name__)
HEARTBEAT_S: Final = 1.0  # an idle worker is asked this often whether it gets on
FIRST_DELAY_S: Final = 0.25  # before a worker that was lost again soon is started anew; doubles
LONGEST_DELAY_S: Final = 30.0
SOON_S: Final = 60.0
STOP_TIMEOUT_S: Final = 5.0
READ_AHEAD_BYTES: Final = 4 * 2**20


class WorkerStartError(Exception):
    """A worker that cannot begin; the text says why."""


@dataclass(frozen=True, eq=False)
class Words:
    """Words that the worker has embedded; the vectors stay there."""

    number: int
    labels: tuple[str, ...]
    warnings: tuple[str, ...]
    request: WordsRequest


class _Life:
    """One process from start to end: calls go out, results come back to whoever waits."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.process = process
        self.known_words: set[int] = set()
        self.reason: str | None = None  # why it is lost
        self.ended = asyncio.Event()
        self.last_sign_s = time.monotonic()
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Result]] = {}
        self._inferring: dict[int, float] = {}  # calls in turn -> since when
        self._reading: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Whether no call that is answered in turn is under way."""
        return not self._inferring

    async def begin(self, setup: Setup) -> Ready:
        """Send the first message and return the answer; raises WorkerStartError."""
        self._writer.write(pack(setup))
        try:
            first = await self._receive()
        except (asyncio.IncompleteReadError, OSError):
            status = await self.process.wait()
            raise WorkerStartError(f"the worker ended with status {status} at its start") from None
        if isinstance(first, StartFailed):
            raise WorkerStartError(first.reason)
        assert isinstance(first, Ready)
        self._reading = asyncio.create_task(self._read(), name="ovoad worker reader")
        return first

    async def call(self, method: Method, *arguments: Any, timeout_s: float | None = None) -> Any:
        """Ask and wait; raises WorkerLostError, and RuntimeError for what the model raised."""
        number = next(self._numbers)
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        if timeout_s is not None:
            self._inferring[number] = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                await self._send(Call(number, method, arguments))
                result = await answer
        except TimeoutError:
            self.lose(f"hung: no answer to {method} within {timeout_s:g} s")
            raise WorkerLostError(f"the worker {self.reason}") from None
        finally:
            self._waiting.pop(number, None)
            self._inferring.pop(number, None)
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
        self.ended.set()

    async def stop(self) -> None:
        """End the process and wait until it is gone."""
        self.lose("was stopped")
        self._writer.close()
        if self._reading is not None:
            self._reading.cancel()
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await self.process.wait()

    async def _send(self, call: Call) -> None:
        if self.reason is not None:
            raise WorkerLostError(f"the worker {self.reason}")
        try:
            self._writer.write(pack(call))
            await self._writer.drain()
        except OSError:
            self.lose("died")
            raise WorkerLostError(f"the worker {self.reason}") from None

    async def _receive(self) -> Any:
        (length,) = LENGTH.unpack(await self._reader.readexactly(LENGTH.size))
        return pickle.loads(await self._reader.readexactly(length))

    async def _read(self) -> None:
        try:
            while True:
                result = await self._receive()
                if result.number in self._inferring:
                    self.last_sign_s = time.monotonic()
                answer = self._waiting.get(result.number)
                if answer is not None and not answer.done():
                    answer.set_result(result)
        except (asyncio.IncompleteReadError, OSError):
            status = await self.process.wait()
            self.lose(f"died with status {status}")


class WorkerProcess:
    """The one worker of an engine, whichever process it is at the moment.

    timeout_s: the longest wait for one batch before the worker counts as hung.
    on_loss: told why each worker was lost.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        timeout_s: float,
        log_format: str = "text",
        on_loss: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.text_counts = (0, 0)
        self._setup = setup
        self._timeout_s = timeout_s
        self._log_format = log_format
        self._on_loss = on_loss
        self._life: _Life | None = None
        self._ready = asyncio.Event()
        self._numbers = itertools.count()
        self._words: weakref.WeakValueDictionary[WordsRequest, Words] = (
            weakref.WeakValueDictionary()
        )
        self._unused: list[int] = []
        self._lost_s = time.monotonic()

    # ---- its life -------------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """The process under way."""
        return None if self._life is None else self._life.process.pid

    @property
    def heartbeat_age_s(self) -> float:
        """Seconds since the worker last answered in turn, or was lost."""
        return time.monotonic() - (self._life.last_sign_s if self._life else self._lost_s)

    async def start(self) -> Ready:
        """Start a process and wait until its model is ready; raises WorkerStartError."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "ovoad_server.engine.worker_process",
                str(theirs.fileno()),
                self._log_format,
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
            )
        reader, writer = await asyncio.open_connection(sock=ours, limit=READ_AHEAD_BYTES)
        life = _Life(process, reader, writer)
        try:
            ready = await life.begin(self._setup)
        except BaseException:
            await life.stop()
            raise
        self._life = life
        self._ready.set()
        return ready

    async def run(self) -> None:
        """Watch the worker and start the next one when it is lost, until cancelled."""
        try:
            while True:
                assert self._life is not None, "start() comes before run()"
                began_s = time.monotonic()
                await self._watch(self._life)
                self._ready.clear()
                log.error("the worker %s; starting another", self._life.reason)
                self._on_loss(self._life.reason or "")
                await self._bury(self._life)
                await self._start_again(short=time.monotonic() - began_s < SOON_S)
        finally:
            if self._life is not None:
                await self._life.stop()

    async def until_ready(self) -> None:
        """Wait until a worker runs."""
        await self._ready.wait()

    async def _watch(self, life: _Life) -> None:
        """Return once the worker is lost; an idle one is asked now and then whether it gets on."""
        while life.reason is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(life.ended.wait(), HEARTBEAT_S)
            if life.reason is None and life.idle:
                with contextlib.suppress(WorkerLostError):
                    await life.call("beat", timeout_s=self._timeout_s)

    async def _bury(self, life: _Life) -> None:
        self._life, self._lost_s = None, time.monotonic()
        with contextlib.suppress(TimeoutError):
            await life.stop()

    async def _start_again(self, *, short: bool) -> None:
        """Start the next worker; one that cannot begin is tried again, ever more slowly."""
        delay_s = FIRST_DELAY_S if short else 0.0
        while True:
            await asyncio.sleep(delay_s)
            try:
                await self.start()
            except (WorkerStartError, OSError) as error:
                log.error("the worker cannot start: %s", error)
                delay_s = min(max(FIRST_DELAY_S, 2 * delay_s), LONGEST_DELAY_S)
            else:
                log.warning("the worker is back after %.1f s", time.monotonic() - self._lost_s)
                return

    # ---- calls ----------------------------------------------------------------------------------

    async def encode(self, images: Sequence[bytes]) -> EncodedBatch:
        """Decode and encode B images."""
        batch: EncodedBatch = await self._alive().call(
            "encode", list(images), timeout_s=self._timeout_s
        )
        return batch

    async def score(
        self, views: Sequence[WindowView], vocabularies: Sequence[Vocabulary]
    ) -> ScoredBatch:
        """Score B windows; words that this process has not seen yet are embedded first."""
        life = self._alive()
        numbers = []
        for words in vocabularies:
            assert isinstance(words, Words), "embed() gave other words"
            if words.number not in life.known_words:
                await self._embed(life, words.number, words.request)
            numbers.append(words.number)
        await self._drop_unused(life)
        batch: ScoredBatch = await life.call(
            "score", list(views), numbers, timeout_s=self._timeout_s
        )
        return batch

    async def embed(self, words: WordsRequest) -> Words:
        """Embed words, or find them where a session uses the same ones."""
        found = self._words.get(words)
        if found is not None:
            return found
        number = next(self._numbers)
        embedded = await self._embed(self._alive(), number, words)
        made = Words(number, embedded.labels, embedded.warnings, words)
        weakref.finalize(made, self._unused.append, number)
        self._words[words] = made
        return made

    async def probe(self) -> Sequence[float]:
        """Score the golden images."""
        found: list[float] = await self._alive().call("probe", timeout_s=self._timeout_s)
        return found

    def _alive(self) -> _Life:
        if self._life is None:
            raise WorkerLostError("the worker is being started anew")
        return self._life

    async def _embed(self, life: _Life, number: int, words: WordsRequest) -> Embedded:
        embedded: Embedded = await life.call("embed", number, words)
        life.known_words.add(number)
        self.text_counts = embedded.text_counts
        return embedded

    async def _drop_unused(self, life: _Life) -> None:
        if self._unused:
            numbers = self._unused.copy()
            del self._unused[: len(numbers)]
            await life.drop(numbers)
