"""An encoder replica: builds the model, then encodes, scores and embeds for all ingress replicas.

Keeps nothing that a session needs: any replica answers for any session. Knows no session and no Ray
but for the names of methods that Ray Serve calls.
"""

import asyncio
import hashlib
import logging
import pkgutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final

import cv2

from ovoad_server.detector import detector_setup
from ovoad_server.engine.inference import Inference
from ovoad_server.engine.interface import (
    Detector,
    EncodedBatch,
    ScoredBatch,
    ScoreStep,
    Vocabulary,
    WindowView,
    WordsRequest,
)
from ovoad_server.engine.worker_link import Ready, Setup, with_words
from ovoad_server.health import compare
from ovoad_server.logs import configure_logs
from ovoad_server.on_ray.cores import seeing_only
from ovoad_server.on_ray.merging import Merger
from ovoad_server.on_ray.messages import (
    AnotherModelError,
    EmbeddedWords,
    ScoreRequest,
    UnknownWords,
    pack,
    unpack,
)
from ovoad_server.on_ray.words import WordsCache
from ovoad_server.settings import Settings

log = logging.getLogger(__name__)
WORDS_BYTES: Final = 256 * 2**20
Item = tuple[bytes, ScoreStep | None]
Pair = tuple[WindowView, Vocabulary]


class EncoderReplica:
    """One model, its batches, and the words that it has seen lately.

    cores: how many it may take for granted; None: as many as the process sees. setup: what to
    build; None: what the settings name.
    """

    def __init__(self, *, cores: int | None = None, setup: Setup | None = None) -> None:
        settings = Settings()
        configure_logs(settings.log_format)
        cv2.setNumThreads(1)  # frames side by side use the cores better than parts of one frame
        setup = setup or detector_setup(settings)
        with seeing_only(cores):
            self._detector: Detector = pkgutil.resolve_name(setup.factory)(**setup.arguments)
        self._inference = Inference(
            self._detector, decode_threads=setup.decode_threads, max_pixels=setup.max_pixels
        )
        facts = self._detector.facts
        self._ready = Ready(facts, self._inference.probe(), self._inference.measure())
        self._embedding = ThreadPoolExecutor(1, "ovoad-text")
        self._words = WordsCache(WORDS_BYTES)
        self._encoding = Merger[Item, EncodedBatch](
            self._encode_items,
            _part_of_encoded,
            most=settings.max_batch,
            lanes=max(1, facts.lanes),
            name="ovoad-encode",
        )
        self._scoring = Merger[Pair, ScoredBatch](
            self._score_pairs, _part_of_scored, most=settings.max_batch, lanes=1, name="ovoad-score"
        )

    # ---- what Ray Serve calls -------------------------------------------------------------------

    async def check_health(self) -> None:
        """Raise where the golden images do not score as at the start: Serve starts another."""
        found = await asyncio.to_thread(self._inference.probe)
        readiness = compare(found, self._ready.golden)
        if not readiness.ready:
            raise RuntimeError(readiness.reason)

    # ---- what ingress replicas call -------------------------------------------------------------

    async def describe(self) -> bytes:
        """Return the model's facts, its golden answers, what batches took."""
        return pack(self._ready)

    async def beat(self, fingerprint: str) -> None:
        """Answer in turn, as a sign of life; raises AnotherModelError."""
        self._check_model(fingerprint)

    async def encode(self, fingerprint: str, images: list[bytes], packed_steps: bytes) -> bytes:
        """Decode and encode B images, score those whose words are at hand: a packed EncodedBatch.

        packed_steps: B times a SentStep or None.
        """
        self._check_model(fingerprint)
        steps = with_words(unpack(packed_steps), self._words.get)
        return pack(await self._encoding.do(list(zip(images, steps, strict=True))))

    async def score(self, packed_request: bytes) -> bytes:
        """Score B windows: a packed ScoredBatch, or UnknownWords where some are not at hand."""
        request: ScoreRequest = unpack(packed_request)
        self._check_model(request.fingerprint)
        words = {key: self._find_words(key, request) for key in set(request.keys)}
        unknown = frozenset(key for key, found in words.items() if found is None)
        if unknown:
            return pack(UnknownWords(unknown))
        pairs = [
            (view, found)
            for view, key in zip(request.views, request.keys, strict=True)
            if (found := words[key]) is not None
        ]
        return pack(await self._scoring.do(pairs))

    async def embed(self, fingerprint: str, words: WordsRequest) -> bytes:
        """Embed a user's words: packed EmbeddedWords."""
        self._check_model(fingerprint)
        loop = asyncio.get_running_loop()
        made, vocabulary = await loop.run_in_executor(self._embedding, self._embed, words)
        self._words.put(made.key, vocabulary, len(made.packed))
        return pack(made)

    async def probe(self) -> list[float]:
        """Score the golden images."""
        return await asyncio.to_thread(self._inference.probe)

    # ---- pieces ---------------------------------------------------------------------------------

    def _check_model(self, fingerprint: str) -> None:
        own = self._ready.facts.fingerprint
        if fingerprint != own:
            raise AnotherModelError(f"found a request for model {fingerprint}, expected {own}")

    def _find_words(self, key: str, request: ScoreRequest) -> Vocabulary | None:
        """Return words from the cache, or from the request; None where neither has them."""
        found = self._words.get(key)
        packed = request.packed.get(key)
        if found is None and packed is not None:
            found = unpack(packed)
            self._words.put(key, found, len(packed))
        return found

    def _embed(self, words: WordsRequest) -> tuple[EmbeddedWords, Vocabulary]:
        hits, misses = self._detector.text_counts
        vocabulary = self._inference.embed(words)
        hits_after, misses_after = self._detector.text_counts
        packed = pack(vocabulary)
        made = EmbeddedWords(
            hashlib.blake2b(packed, digest_size=16).hexdigest(),
            vocabulary.labels,
            vocabulary.warnings,
            vocabulary.scorer,
            packed,
            (hits_after - hits, misses_after - misses),
        )
        return made, vocabulary

    def _encode_items(self, items: Sequence[Item]) -> EncodedBatch:
        return self._inference.encode([image for image, _ in items], [step for _, step in items])

    def _score_pairs(self, pairs: Sequence[Pair]) -> ScoredBatch:
        return self._inference.score([view for view, _ in pairs], [words for _, words in pairs])


def _part_of_encoded(batch: EncodedBatch, rows: slice) -> EncodedBatch:
    return replace(
        batch,
        features=batch.features[rows],
        decode_ms=batch.decode_ms[rows],
        scores=batch.scores[rows],
    )


def _part_of_scored(batch: ScoredBatch, rows: slice) -> ScoredBatch:
    return replace(batch, scores=batch.scores[rows])
