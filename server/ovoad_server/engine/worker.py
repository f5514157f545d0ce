"""The worker process seen from the server: started, asked, watched, and started anew when lost.

Knows no session and no model. A worker that dies, or owes an answer for too long, is lost: whoever
waits for it is told, and the next one is started.
"""

import asyncio
import contextlib
import itertools
import logging
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ovoad_server.engine.interface import (
    DetectorFacts,
    EncodedBatch,
    ScoredBatch,
    ScoreStep,
    Vocabulary,
    WindowView,
    WordsRequest,
    WorkerLostError,
)
from ovoad_server.engine.worker_life import Life, WorkerStartError
from ovoad_server.engine.worker_link import Embedded, Ready, SentStep, Setup

__all__ = ["WorkerProcess", "WorkerStartError"]
log = logging.getLogger(__name__)
HEARTBEAT_S: Final = 1.0  # an idle worker is asked this often whether it gets on
FIRST_DELAY_S: Final = 0.25  # before a worker that was lost soon is started anew; doubles
LONGEST_DELAY_S: Final = 4.0  # well below what frames wait for the next worker
LONGEST_FAILING_DELAY_S: Final = 30.0  # before a worker that cannot begin is tried again
SOON_S: Final = 60.0
SHORTEST_START_TIMEOUT_S: Final = 60.0
START_PATIENCE: Final = 5  # a worker may take this many times as long to begin as the first
PROMPT_TIMEOUT_S: Final = 0.5  # for each prompt to embed: ten times a large text model's on a CPU


@dataclass(frozen=True, eq=False)
class Words:
    """Words that the worker has embedded; the vectors stay there."""

    number: int
    labels: tuple[str, ...]
    warnings: tuple[str, ...]
    scorer: str
    request: WordsRequest


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
        self._setup = setup
        self._timeout_s = timeout_s
        self._log_format = log_format
        self._on_loss = on_loss
        self._life: Life | None = None
        self._facts: DetectorFacts | None = None  # of the first worker
        self._start_timeout_s: float | None = None
        self._ready = asyncio.Event()
        self._numbers = itertools.count()
        self._words: weakref.WeakValueDictionary[WordsRequest, Words] = (
            weakref.WeakValueDictionary()
        )
        self._unused: list[int] = []
        self._lost_s = time.monotonic()
        self._text_counts = (0, 0)  # of this worker
        self._text_counts_before = (0, 0)  # of those before it

    # ---- its life -------------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """The process under way."""
        return None if self._life is None else self._life.process.pid

    @property
    def ready(self) -> bool:
        """Whether a worker runs."""
        return self._life is not None and self._life.reason is None

    @property
    def heartbeat_age_s(self) -> float:
        """Seconds since the worker last answered in turn, or was lost."""
        return time.monotonic() - (self._life.last_sign_s if self._life else self._lost_s)

    @property
    def text_counts(self) -> tuple[int, int]:
        """Texts found in the cache and texts embedded anew, by all workers so far."""
        (hits, misses), (hits_before, misses_before) = self._text_counts, self._text_counts_before
        return hits + hits_before, misses + misses_before

    async def start(self) -> Ready:
        """Start a process and wait until its model is ready; raises WorkerStartError, OSError.

        All but the first must bring the same model: windows hold features of it.
        """
        began_s = time.monotonic()
        life = await Life.spawn(self._log_format)
        try:
            ready = await life.begin(self._setup, timeout_s=self._start_timeout_s)
            if self._facts is not None and ready.facts != self._facts:
                raise WorkerStartError(
                    f"found another model (fingerprint {ready.facts.fingerprint}), "
                    f"expected that of the start ({self._facts.fingerprint})"
                )
        except BaseException:
            await life.stop()
            raise
        if self._facts is None:
            self._facts = ready.facts
            took_s = time.monotonic() - began_s
            self._start_timeout_s = max(SHORTEST_START_TIMEOUT_S, START_PATIENCE * took_s)
        self._life = life
        self._ready.set()
        return ready

    async def run(self) -> None:
        """Watch the worker and start the next one when it is lost, until cancelled."""
        delay_s = 0.0
        try:
            while True:
                assert self._life is not None, "start() comes before run()"
                began_s = time.monotonic()
                await self._watch(self._life)
                soon = time.monotonic() - began_s < SOON_S
                delay_s = min(max(FIRST_DELAY_S, 2 * delay_s), LONGEST_DELAY_S) if soon else 0.0
                await self._bury(self._life)
                await self._start_again(delay_s)
        finally:
            if self._life is not None:
                await self._life.stop()

    async def until_ready(self) -> None:
        """Wait until a worker runs; one that is lost counts no more, buried or not."""
        while not self.ready:
            self._ready.clear()
            await self._ready.wait()

    async def _watch(self, life: Life) -> None:
        """Return once the worker is lost; an idle one is asked now and then whether it gets on."""
        while life.reason is None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(life.ended.wait(), HEARTBEAT_S)
            if life.reason is None and life.idle:
                with contextlib.suppress(WorkerLostError):
                    await life.call("beat", timeout_s=self._timeout_s)

    async def _bury(self, life: Life) -> None:
        self._life, self._lost_s = None, time.monotonic()
        self._text_counts_before, self._text_counts = self.text_counts, (0, 0)
        log.error("the worker %s; starting another", life.reason)
        self._on_loss(life.reason or "")
        await life.stop()

    async def _start_again(self, delay_s: float) -> None:
        """Start the next worker; one that cannot begin is tried again, ever more slowly."""
        while True:
            await asyncio.sleep(delay_s)
            try:
                await self.start()
            except (WorkerStartError, OSError) as error:
                log.error("the worker cannot start: %s", error)
                delay_s = min(max(FIRST_DELAY_S, 2 * delay_s), LONGEST_FAILING_DELAY_S)
            else:
                log.warning("the worker is back after %.1f s", time.monotonic() - self._lost_s)
                return

    # ---- calls ----------------------------------------------------------------------------------

    async def encode(
        self, images: Sequence[bytes], steps: Sequence[ScoreStep | None] = ()
    ) -> EncodedBatch:
        """Decode and encode B images, score those with a step whose words the process has."""
        life = self._alive()
        numbered = [None if step is None else _by_number(step) for step in steps]
        batch: EncodedBatch = await life.call(
            "encode", list(images), numbered, timeout_s=self._timeout_s
        )
        return batch

    async def score(
        self, views: Sequence[WindowView], vocabularies: Sequence[Vocabulary]
    ) -> ScoredBatch:
        """Score B windows; words that this process has not seen yet are embedded first.

        Windows whose words cannot be embedded any more fail alone.
        """
        life = self._alive()
        numbers = []
        for words in vocabularies:
            assert isinstance(words, Words), "embed() gave other words"
            if words.number not in life.known_words:
                with contextlib.suppress(RuntimeError):
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
        life = self._alive()
        await self._drop_unused(life)
        number = next(self._numbers)
        try:
            embedded = await self._embed(life, number, words)
        except BaseException:
            self._unused.append(number)  # the worker may come to hold them all the same
            raise
        made = Words(number, embedded.labels, embedded.warnings, embedded.scorer, words)
        weakref.finalize(made, self._unused.append, number)
        self._words[words] = made
        return made

    async def probe(self) -> Sequence[float]:
        """Score the golden images."""
        found: list[float] = await self._alive().call("probe", timeout_s=self._timeout_s)
        return found

    def _alive(self) -> Life:
        if self._life is None:
            raise WorkerLostError("the worker is being started anew")
        return self._life

    async def _embed(self, life: Life, number: int, words: WordsRequest) -> Embedded:
        prompts = len(words.labels) * len(words.templates or self._default_templates)
        life.prompts += prompts
        try:
            embedded: Embedded = await life.call(
                "embed",
                number,
                words,
                timeout_s=self._timeout_s + PROMPT_TIMEOUT_S * life.prompts,
            )
        finally:
            life.prompts -= prompts
        life.known_words.add(number)
        self._text_counts = embedded.text_counts
        return embedded

    @property
    def _default_templates(self) -> tuple[str, ...]:
        return () if self._facts is None else self._facts.templates

    async def _drop_unused(self, life: Life) -> None:
        if self._unused:
            numbers = self._unused.copy()
            del self._unused[: len(numbers)]
            await life.drop(numbers)


def _by_number(step: ScoreStep) -> SentStep[int]:
    words = step.vocabulary
    assert isinstance(words, Words), "embed() gave other words"
    return SentStep(step.window, step.timestamp_ms, words.number)
