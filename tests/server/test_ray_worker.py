"""The engine's worker whose work is done by encoder replicas: parts, words, losses."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest

from ovoad_server.detector import open_window
from ovoad_server.engine.engine import Engine
from ovoad_server.engine.events import EventRule
from ovoad_server.engine.interface import Failure, Window, WordsRequest, WorkerLostError
from ovoad_server.engine.replies import Reply, Scored
from ovoad_server.engine.session import Session, Words
from ovoad_server.health import compare
from ovoad_server.on_ray.messages import AnotherModelError
from ovoad_server.on_ray.worker import PART_FRAMES, RemoteWorker

from .harness import until
from .ray_parts import LocalEncoders, make_replica
from .worker_bench import paint

RED, GREEN = WordsRequest(("red",)), WordsRequest(("green", "blue"))
COLOURS = ("red", "green", "blue")


@pytest.fixture
def encoders(monkeypatch: pytest.MonkeyPatch) -> LocalEncoders:
    """Return two replicas."""
    return LocalEncoders(make_replica(monkeypatch), make_replica(monkeypatch))


async def make_worker(
    encoders: LocalEncoders, *, timeout_s: float = 10.0
) -> tuple[RemoteWorker, list[str]]:
    losses: list[str] = []
    ready = await encoders.describe()
    encoders.calls.clear()
    return RemoteWorker(encoders, ready, timeout_s=timeout_s, on_loss=losses.append), losses


def window_of(feature: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Window:
    window = open_window(3)
    window.push(0, feature)
    return window


async def test_batch_is_shared_by_replicas_and_comes_back_in_order(encoders: LocalEncoders) -> None:
    worker, _ = await make_worker(encoders)
    names = [COLOURS[row % 3] for row in range(10)]
    batch = await worker.encode([paint(name) for name in names])
    assert encoders.sizes == [4, 4, 2]
    assert {number for _, number in encoders.calls} == {0, 1}
    features = [feature for feature in batch.features if not isinstance(feature, Failure)]
    assert [COLOURS[int(np.argmax(feature))] for feature in features] == names
    assert len(batch.decode_ms) == 10


async def test_bad_picture_fails_alone(encoders: LocalEncoders) -> None:
    worker, _ = await make_worker(encoders)
    batch = await worker.encode([paint("red"), b"no picture", paint("blue")])
    assert [isinstance(feature, Failure) for feature in batch.features] == [False, True, False]


async def test_words_go_along_to_a_replica_that_misses_them(encoders: LocalEncoders) -> None:
    worker, _ = await make_worker(encoders)
    red, green = await worker.embed(RED), await worker.embed(GREEN)  # one at each replica
    view = window_of(np.array([0.0, 255.0, 0.0], np.float32)).view()
    encoders.route = random.Random(3).randrange
    encoders.calls.clear()
    for _ in range(12):
        scored = await worker.score([view, view], [red, green])
        best = [score for score in scored.scores if not isinstance(score, Failure)]
        assert best[1].probabilities.argmax() == 0
        assert best[0].background > 0.5
    assert 12 < len(encoders.calls) < 18, "some calls came twice, until both replicas had all words"


async def test_same_words_are_embedded_once_while_they_are_used(encoders: LocalEncoders) -> None:
    worker, _ = await make_worker(encoders)
    words = await worker.embed(GREEN)
    assert await worker.embed(GREEN) is words
    assert (words.labels, words.scorer) == (("green", "blue"), "average")
    assert [method for method, _ in encoders.calls] == ["embed"]
    assert worker.text_counts == (0, 3)  # two labels and a background


async def test_what_the_model_raises_over_words_is_no_loss(encoders: LocalEncoders) -> None:
    worker, losses = await make_worker(encoders)
    with pytest.raises(RuntimeError, match=r"^RuntimeError$"):
        await worker.embed(WordsRequest(("hurt",)))
    assert worker.ready
    assert losses == []


async def test_lost_part_loses_the_batch_and_the_next_sign_of_life_ends_that(
    encoders: LocalEncoders,
) -> None:
    worker, losses = await make_worker(encoders)
    encoders.lost = {encoders.replicas[1]}
    with pytest.raises(WorkerLostError, match="the encoder replica died: ActorDiedError"):
        await worker.encode([paint("red")] * 8)
    assert losses == ["died: ActorDiedError"]
    await worker.until_ready()
    assert worker.ready


async def test_replica_that_hangs_is_told_as_such(encoders: LocalEncoders) -> None:
    worker, losses = await make_worker(encoders, timeout_s=0.02)
    encoders.hung = set(encoders.replicas)
    with pytest.raises(WorkerLostError, match=r"hung: no answer within 0\.02 s"):
        await worker.encode([paint("red")])
    assert losses == ["hung: no answer within 0.02 s"]
    assert not worker.ready


async def test_successor_with_another_model_is_not_mixed_in(encoders: LocalEncoders) -> None:
    ready = await encoders.describe()
    other = replace(ready, facts=replace(ready.facts, fingerprint="0ther"))  # type: ignore[type-var]
    worker = RemoteWorker(encoders, other, timeout_s=1.0)
    with pytest.raises(WorkerLostError, match="another model"):
        await worker.encode([paint("red")])
    with pytest.raises(AnotherModelError, match="found a request for model 0ther, expected c0102"):
        await encoders.replicas[0].beat("0ther")


async def test_heartbeat_goes_on_while_nothing_else_does(
    encoders: LocalEncoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ovoad_server.on_ray.worker.HEARTBEAT_S", 0.01)
    worker, _ = await make_worker(encoders)
    async with running(worker):
        await until(lambda: encoders.calls.count(("beat", 0)) > 1)
    assert worker.heartbeat_age_s < 5.0


async def test_golden_answers_are_those_of_the_start(encoders: LocalEncoders) -> None:
    worker, _ = await make_worker(encoders)
    ready = await encoders.describe()
    assert compare(await worker.probe(), ready.golden).ready
    await encoders.replicas[0].check_health()


async def test_lost_replica_breaks_no_session(encoders: LocalEncoders) -> None:
    """Every frame of a batch is scored, by the replicas that are left."""
    worker, losses = await make_worker(encoders)
    replies: list[Reply] = []
    engine = Engine(worker, open_window=lambda: open_window(3))
    vocabulary = await worker.embed(GREEN)
    sessions = [session(engine, Words(1, vocabulary), replies) for _ in range(PART_FRAMES + 1)]
    encoders.lost = {encoders.replicas[0]}
    encoders.route = lambda count: 0

    async def recover() -> None:
        await until(lambda: bool(losses))
        encoders.lost.clear()  # Ray Serve sends nothing to a replica that is known to be dead

    for each in sessions:
        engine.submit(each, 0, 0, paint("green"))
    async with running(worker), running(engine):
        await asyncio.gather(recover(), until(lambda: len(replies) == len(sessions)))
    assert [type(reply) for reply in replies] == [Scored] * len(sessions)
    assert losses[0] == "died: ActorDiedError"


def session(engine: Engine, words: Words, replies: list[Reply]) -> Session:
    made = Session(
        "s",
        policy="lossless",
        window=engine.open_window(),
        words=words,
        rule=EventRule(0.5, 0.3, 500),
        max_inflight=16,
        max_fps=60.0,
        reply=replies.append,
    )
    engine.add(made)
    return made


@contextlib.asynccontextmanager
async def running(part: RemoteWorker | Engine) -> AsyncIterator[None]:
    """Let the part run while the block does."""
    task = asyncio.create_task(part.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
