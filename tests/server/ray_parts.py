"""Parts of the tests of what runs on Ray, without Ray: replicas in this process, some lost."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ovoad_server.engine.interface import EncodedBatch, ScoredBatch, WordsRequest, WorkerLostError
from ovoad_server.engine.worker_link import Ready, SentStep, Setup
from ovoad_server.on_ray.encoder import EncoderReplica
from ovoad_server.on_ray.messages import (
    AnotherModelError,
    EmbeddedWords,
    ScoreRequest,
    UnknownWords,
    pack,
    unpack,
)


class LocalEncoders:
    """Encoder replicas of this process; calls go to them in turn.

    A test puts replicas into `lost`, whose calls are lost, or into `hung`, which never answer.
    """

    def __init__(self, *replicas: EncoderReplica) -> None:
        self.replicas = list(replicas)
        self.lost: set[EncoderReplica] = set()
        self.hung: set[EncoderReplica] = set()
        self.calls: list[tuple[str, int]] = []  # method, which replica
        self.sizes: list[int] = []  # images in each call
        self.route = _in_turn()  # a test may draw lots instead

    async def describe(self) -> Ready:
        ready: Ready = unpack(await self._call("describe"))
        return ready

    async def beat(self, fingerprint: str) -> None:
        await self._call("beat", fingerprint)

    async def encode(
        self, fingerprint: str, images: Sequence[bytes], steps: Sequence[SentStep[str] | None]
    ) -> EncodedBatch:
        self.sizes.append(len(images))
        batch: EncodedBatch = unpack(
            await self._call("encode", fingerprint, list(images), pack(list(steps)))
        )
        return batch

    async def score(self, request: ScoreRequest) -> ScoredBatch | UnknownWords:
        answer: ScoredBatch | UnknownWords = unpack(await self._call("score", pack(request)))
        return answer

    async def embed(self, fingerprint: str, words: WordsRequest) -> EmbeddedWords:
        embedded: EmbeddedWords = unpack(await self._call("embed", fingerprint, words))
        return embedded

    async def probe(self) -> Sequence[float]:
        found: Sequence[float] = await self._call("probe")
        return found

    async def _call(self, method: str, *arguments: object) -> Any:
        number = self.route(len(self.replicas))
        self.calls.append((method, number))
        replica = self.replicas[number]
        if replica in self.hung:
            await asyncio.Event().wait()
        if replica in self.lost:
            raise WorkerLostError("died: ActorDiedError")
        try:
            return await getattr(replica, method)(*arguments)
        except AnotherModelError as error:
            raise WorkerLostError("died: its successor has another model") from error
        except WorkerLostError:
            raise
        except Exception as error:
            raise RuntimeError(type(error).__name__) from error


def _in_turn() -> Callable[[int], int]:
    turns = itertools.count()
    return lambda count: next(turns) % count


def make_replica(monkeypatch: pytest.MonkeyPatch, **arguments: object) -> EncoderReplica:
    """Build an encoder replica around a model of worker_models."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setattr("ovoad_server.on_ray.encoder.configure_logs", lambda log_format: None)
    return EncoderReplica(setup=Setup("worker_models:build", {"cached": True, **arguments}))
