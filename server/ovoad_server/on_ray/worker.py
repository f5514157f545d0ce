"""The engine's worker, where the work is done by encoder replicas elsewhere. Knows no Ray.

A batch goes out in parts, so that several replicas share it; each replica merges the parts that it
gets. A replica that dies or hangs loses its part: the engine is told and tries those frames again.
"""

import asyncio
import contextlib
import logging
import time
import weakref
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from ovoad_server.engine.interface import (
    EncodedBatch,
    Failure,
    ScoredBatch,
    Scores,
    ScoreStep,
    Vocabulary,
    WindowView,
    WordsRequest,
    WorkerLostError,
)
from ovoad_server.engine.worker import PROMPT_TIMEOUT_S
from ovoad_server.engine.worker_link import Ready, SentStep
from ovoad_server.on_ray.messages import EmbeddedWords, ScoreRequest, UnknownWords

log = logging.getLogger(__name__)
PART_FRAMES: Final = 4  # of a batch; below, the calls cost more than the replicas gain
HEARTBEAT_S: Final = 1.0
BEAT_TIMEOUT_S: Final = 5.0
RETRY_S: Final = 0.1
Value = TypeVar("Value")
Item = TypeVar("Item")


class Encoders(Protocol):
    """The encoder replicas as a whole; each call is answered by any of them.

    Every call raises WorkerLostError where the replica is lost meanwhile or has another model, and
    RuntimeError for what the model raises.
    """

    async def describe(self) -> Ready:
        """Return the model's facts, golden answers and costs."""

    async def beat(self, fingerprint: str) -> None:
        """Return once a replica has answered."""

    async def encode(
        self, fingerprint: str, images: Sequence[bytes], steps: Sequence[SentStep[str] | None]
    ) -> EncodedBatch:
        """Decode and encode images, score those with a step whose words the replica has."""

    async def score(self, request: ScoreRequest) -> ScoredBatch | UnknownWords:
        """Score windows."""

    async def embed(self, fingerprint: str, words: WordsRequest) -> EmbeddedWords:
        """Embed a user's words."""

    async def probe(self) -> Sequence[float]:
        """Score the golden images."""


@dataclass(frozen=True, eq=False)
class RemoteWords:
    """Words whose vectors are kept here, packed, for replicas that do not have them."""

    embedded: EmbeddedWords

    @property
    def labels(self) -> tuple[str, ...]:
        """As the user wrote them."""
        return self.embedded.labels

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the encoder cannot do with some of them."""
        return self.embedded.warnings

    @property
    def scorer(self) -> str:
        """Whose space they are in."""
        return self.embedded.scorer


class RemoteWorker:
    """Encoder replicas behind the calls that an engine makes.

    ready: what one of them said of its model. timeout_s: the longest wait for one part of a batch.
    on_loss: told why each call was lost.
    """

    def __init__(
        self,
        encoders: Encoders,
        ready: Ready,
        *,
        timeout_s: float,
        on_loss: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._encoders = encoders
        self._facts = ready.facts
        self._timeout_s = timeout_s
        self._on_loss = on_loss
        self._up = True
        self._last_sign_s = time.monotonic()
        self._texts = (0, 0)
        self._words: weakref.WeakValueDictionary[WordsRequest, RemoteWords] = (
            weakref.WeakValueDictionary()
        )

    # ---- signs of life --------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether the last call was answered."""
        return self._up

    @property
    def heartbeat_age_s(self) -> float:
        """Seconds since a replica last answered."""
        return time.monotonic() - self._last_sign_s

    @property
    def text_counts(self) -> tuple[int, int]:
        """Texts found in the replicas' caches and embedded anew, for sessions of this ingress."""
        return self._texts

    async def run(self) -> None:
        """Ask for a sign of life while there is no other, until cancelled."""
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if self.heartbeat_age_s >= HEARTBEAT_S or not self._up:
                await self._beats()

    async def until_ready(self) -> None:
        """Wait until some replica answers."""
        while not await self._beats():
            await asyncio.sleep(RETRY_S)

    async def _beats(self) -> bool:
        fingerprint = self._facts.fingerprint
        with contextlib.suppress(WorkerLostError, RuntimeError):
            await self._ask(self._encoders.beat(fingerprint), BEAT_TIMEOUT_S)
            return True
        return False

    # ---- calls ----------------------------------------------------------------------------------

    async def encode(
        self, images: Sequence[bytes], steps: Sequence[ScoreStep | None] = ()
    ) -> EncodedBatch:
        """Decode and encode B images, in parts; score those whose words the replica has."""
        keyed = [None if step is None else _by_key(step) for step in steps or [None] * len(images)]
        parts = await _all_of(
            self._ask(
                self._encoders.encode(
                    self._facts.fingerprint,
                    [image for image, _ in part],
                    [step for _, step in part],
                ),
                self._timeout_s,
            )
            for part in _parts(list(zip(images, keyed, strict=True)))
        )
        return EncodedBatch(
            [feature for part in parts for feature in part.features],
            [ms for part in parts for ms in part.decode_ms],
            max((part.encode_ms for part in parts), default=0.0),
            [scores for part in parts for scores in part.scores],
            max((part.score_ms for part in parts), default=0.0),
        )  # no limit: what finds no memory at a replica, it cuts by itself

    async def score(
        self, views: Sequence[WindowView], vocabularies: Sequence[Vocabulary]
    ) -> ScoredBatch:
        """Score B windows, in parts, each against its own words."""
        pairs = list(zip(views, vocabularies, strict=True))
        parts = await _all_of(self._score_part(part) for part in _parts(pairs))
        scores: list[Scores | Failure] = [score for part in parts for score in part.scores]
        return ScoredBatch(scores, max((part.score_ms for part in parts), default=0.0))

    async def embed(self, words: WordsRequest) -> RemoteWords:
        """Embed words, or find them where a session uses the same ones."""
        found = self._words.get(words)
        if found is not None:
            return found
        prompts = len(words.labels) * len(words.templates or self._facts.templates)
        embedded = await self._ask(
            self._encoders.embed(self._facts.fingerprint, words),
            self._timeout_s + PROMPT_TIMEOUT_S * prompts,
        )
        (hits, misses), (more_hits, more_misses) = self._texts, embedded.texts
        self._texts = hits + more_hits, misses + more_misses
        made = RemoteWords(embedded)
        self._words[words] = made
        return made

    async def probe(self) -> Sequence[float]:
        """Score the golden images on some replica."""
        return await self._ask(self._encoders.probe(), self._timeout_s)

    async def _score_part(self, pairs: Sequence[tuple[WindowView, Vocabulary]]) -> ScoredBatch:
        """Score windows on one replica; all their words go along if it misses any."""
        words: dict[str, bytes] = {}
        keys = []
        for _, vocabulary in pairs:
            assert isinstance(vocabulary, RemoteWords), "embed() gave other words"
            keys.append(vocabulary.embedded.key)
            words[vocabulary.embedded.key] = vocabulary.embedded.packed
        views = [view for view, _ in pairs]
        request = ScoreRequest(self._facts.fingerprint, views, keys)
        answer = await self._ask(self._encoders.score(request), self._timeout_s)
        if isinstance(answer, UnknownWords):
            request = ScoreRequest(self._facts.fingerprint, views, keys, words)
            answer = await self._ask(self._encoders.score(request), self._timeout_s)
        assert not isinstance(answer, UnknownWords), "all words went along"
        return answer

    async def _ask(self, call: Awaitable[Value], timeout_s: float) -> Value:
        """Wait for a replica's answer; raises WorkerLostError."""
        try:
            async with asyncio.timeout(timeout_s):
                value = await call
        except TimeoutError:
            raise self._lost(f"hung: no answer within {timeout_s:g} s") from None
        except WorkerLostError as error:
            raise self._lost(str(error)) from error
        self._up = True
        self._last_sign_s = time.monotonic()
        return value

    def _lost(self, reason: str) -> WorkerLostError:
        if self._up:
            log.warning("an encoder replica was lost (%s)", reason)
        self._up = False
        self._on_loss(reason)
        return WorkerLostError(f"the encoder replica {reason}")


def _by_key(step: ScoreStep) -> SentStep[str]:
    words = step.vocabulary
    assert isinstance(words, RemoteWords), "embed() gave other words"
    return SentStep(step.window, step.timestamp_ms, words.embedded.key)


def _parts(items: Sequence[Item]) -> list[Sequence[Item]]:
    """Cut a batch into parts of at most PART_FRAMES."""
    return [items[start : start + PART_FRAMES] for start in range(0, len(items), PART_FRAMES)]


async def _all_of(calls: Iterable[Awaitable[Value]]) -> list[Value]:
    """Wait for all calls, also where one of them fails; raises the first failure."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
