"""Encoder replicas behind a handle of Ray Serve: calls go out, Ray's errors become the engine's."""

import asyncio
from collections.abc import Sequence
from typing import Any

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException

from ovoad_server.engine.interface import EncodedBatch, ScoredBatch, WordsRequest, WorkerLostError
from ovoad_server.engine.worker_link import Ready, SentStep
from ovoad_server.on_ray.messages import (
    AnotherModelError,
    EmbeddedWords,
    ScoreRequest,
    UnknownWords,
    pack,
    unpack,
)


class EncoderHandle:
    """What `Encoders` asks for, by calls to the deployment that a handle leads to."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._methods: dict[str, Any] = {}

    async def describe(self) -> Ready:
        """Return the model's facts, golden answers and costs."""
        ready: Ready = unpack(await self._call("describe"))
        return ready

    async def beat(self, fingerprint: str) -> None:
        """Return once a replica has answered."""
        await self._call("beat", fingerprint)

    async def encode(
        self, fingerprint: str, images: Sequence[bytes], steps: Sequence[SentStep[str] | None]
    ) -> EncodedBatch:
        """Decode and encode images, score those with a step whose words the replica has."""
        batch: EncodedBatch = unpack(
            await self._call("encode", fingerprint, list(images), pack(list(steps)))
        )
        return batch

    async def score(self, request: ScoreRequest) -> ScoredBatch | UnknownWords:
        """Score windows."""
        answer: ScoredBatch | UnknownWords = unpack(await self._call("score", pack(request)))
        return answer

    async def embed(self, fingerprint: str, words: WordsRequest) -> EmbeddedWords:
        """Embed a user's words."""
        embedded: EmbeddedWords = unpack(await self._call("embed", fingerprint, words))
        return embedded

    async def probe(self) -> Sequence[float]:
        """Score the golden images."""
        found: Sequence[float] = await self._call("probe")
        return found

    async def _call(self, method: str, *arguments: object) -> Any:
        """Ask one replica; raises WorkerLostError, and RuntimeError for what the model raised."""
        if method not in self._methods:
            self._methods[method] = getattr(self._handle, method)  # makes a handle each time
        response = self._methods[method].remote(*arguments)
        try:
            return await response
        except asyncio.CancelledError:  # it took too long: the replica need not go on
            response.cancel()
            raise
        except Exception as error:
            raise _as_the_engine_knows_it(error) from error


def _as_the_engine_knows_it(error: Exception) -> WorkerLostError | RuntimeError:
    """Tell a replica that is gone, or is another, from a fault that a replica told of."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, AnotherModelError):
        return WorkerLostError("died: its successor has another model")
    if cause is error and isinstance(error, RayError | RayServeException):
        return WorkerLostError(f"died: {type(error).__name__}")
    return RuntimeError(type(cause).__name__)
