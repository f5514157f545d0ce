"""Worker processes: calls and results, starts that fail, words that come and go."""

import asyncio
import gc
import logging
import os
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from ovoad_server.engine.interface import Failure, WordsRequest, WorkerLostError
from ovoad_server.engine.worker import WorkerProcess, WorkerStartError
from ovoad_server.engine.worker_link import Setup

from .harness import until
from .worker_bench import (
    FOLDER,
    children,
    features_of,
    large_picture,
    make_worker,
    paint,
    pid_of,
    setup,
    views_of,
    watched,
)


@pytest.fixture(autouse=True)
def the_process_finds_its_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(FOLDER))


@pytest.fixture
async def worker() -> AsyncIterator[WorkerProcess]:
    made, _ = make_worker()
    async with watched(made) as worker:
        yield worker


# ---- calls -------------------------------------------------------------------------------------


async def test_images_become_features_and_windows_scores(worker: WorkerProcess) -> None:
    images = [paint("red"), b"no image", paint("blue"), paint("hurtful"), paint("nameless")]
    batch = await worker.encode(images)
    first, bad, last, hurt, nameless = batch.features
    assert np.array_equal(features_of([first, last]), [[255, 0, 0], [0, 0, 255]])
    assert isinstance(bad, Failure)
    assert bad.code == "bad_image"
    assert hurt == Failure("internal", "the model failed (RuntimeError)")
    assert nameless == Failure("internal", "the model failed (ValueError)")
    assert len(batch.decode_ms) == 5
    assert batch.encode_ms > 0
    red = await worker.embed(WordsRequest(("red",), scorer="frame"))
    both = await worker.embed(WordsRequest(("red", "blue"), scorer="frame"))
    assert (both.labels, both.warnings, both.scorer) == (("red", "blue"), (), "frame")
    scored = await worker.score(views_of([first, last]), [red, both])
    one, other = scored.scores
    assert not isinstance(one, Failure)
    assert not isinstance(other, Failure)
    assert one.similarities == pytest.approx([1.0], abs=1e-6)
    assert other.similarities == pytest.approx([0.0, 1.0], abs=1e-6)
    assert scored.score_ms > 0


async def test_start_brings_facts_golden_answers_and_costs() -> None:
    worker, losses = make_worker()
    assert (worker.ready, worker.pid) == (False, None)
    ready = await worker.start()
    try:
        assert ready.facts.encoder == "mean colours"
        assert [size for size, _ in ready.costs] == [1, 4]
        watching = asyncio.create_task(worker.run())
        assert await worker.probe() == ready.golden
        assert worker.ready
        assert worker.heartbeat_age_s < 5
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    await until(lambda: not children())
    assert losses == []


async def test_words_that_hurt_the_model_raise_and_the_log_does_not_quote_them(
    worker: WorkerProcess, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError, match=r"^RuntimeError$"):
        await worker.embed(WordsRequest(("hurt",)))
    assert (await worker.embed(WordsRequest(("red",)))).labels == ("red",)
    logged = capfd.readouterr().err
    assert "embed failed with RuntimeError at" in logged
    assert "cannot bear hurt" not in logged


async def test_batches_tell_how_long_they_waited_for_those_before_them(
    worker: WorkerProcess,
) -> None:
    calls = [worker.encode([large_picture(2**18)] * 8) for _ in range(8)]
    batches = await asyncio.gather(*calls)
    assert batches[0].waited_ms >= 0
    assert batches[-1].waited_ms > batches[0].waited_ms + batches[1].encode_ms


async def test_large_payloads_pass_both_ways(worker: WorkerProcess) -> None:
    images = [large_picture(2**20) for _ in range(16)]
    batch = await worker.encode(images)
    assert np.array_equal(features_of(batch.features), [[255, 0, 0]] * 16)
    labels = tuple(f"label {number} of many red" for number in range(10_000))
    words = await worker.embed(WordsRequest(labels))
    (scores,) = (await worker.score(views_of(batch.features[:1]), [words])).scores
    assert not isinstance(scores, Failure)
    assert scores.probabilities.shape == (10_000,)


async def test_words_are_embedded_beside_a_batch(worker: WorkerProcess) -> None:
    hanging = asyncio.create_task(worker.encode([paint("endless")]))
    assert (await worker.embed(WordsRequest(("red",)))).labels == ("red",)
    assert not hanging.done()
    hanging.cancel()


async def test_worker_that_is_not_started_yet_is_lost() -> None:
    worker, _ = make_worker()
    with pytest.raises(WorkerLostError, match=r"^the worker is being started anew$"):
        await worker.encode([])


# ---- words -------------------------------------------------------------------------------------


async def test_same_words_are_embedded_once_while_they_are_in_use() -> None:
    made, _ = make_worker(cached=True)
    async with watched(made) as worker:
        first = await worker.embed(WordsRequest(("red",)))
        assert await worker.embed(WordsRequest(("red",))) is first
        misses = worker.text_counts[1]
        await worker.embed(WordsRequest(("red", "green")))
        hits_after, misses_after = worker.text_counts
        assert (hits_after > 0, misses_after) == (True, misses + 1)


async def test_words_nobody_uses_are_dropped_in_the_process(worker: WorkerProcess) -> None:
    kept = await worker.embed(WordsRequest(("red",)))
    life = worker._life
    assert life is not None
    for number in range(1000):
        await worker.embed(WordsRequest((f"word {number}",)))
    gc.collect()
    await worker.embed(WordsRequest(("last",)))
    assert len(life.known_words) <= 4
    assert len(worker._words) <= 2
    batch = await worker.encode([paint("red")])
    (scores,) = (await worker.score(views_of(batch.features), [kept])).scores
    assert not isinstance(scores, Failure)


async def test_worker_does_not_grow_over_a_thousand_large_vocabularies(
    worker: WorkerProcess,
) -> None:
    def resident_mib() -> float:
        status = Path(f"/proc/{pid_of(worker)}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) / 1024

    async def embed_many(count: int) -> None:
        for number in range(count):
            labels = tuple(f"{number} of {each}" for each in range(500))
            await worker.embed(WordsRequest(labels))

    await embed_many(50)
    before = resident_mib()
    await embed_many(1000)  # 500 labels take about 60 KiB: 60 MiB if all were kept
    assert resident_mib() - before < 15


async def test_words_whose_user_left_before_they_were_embedded_are_dropped(
    worker: WorkerProcess,
) -> None:
    for number in range(20):
        leaving = asyncio.create_task(worker.embed(WordsRequest((f"word {number}",))))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
    assert worker._unused == [19]
    kept = await worker.embed(WordsRequest(("red",)))
    assert (kept.labels, worker._unused) == (("red",), [])


# ---- starts that fail --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factory", "file", "message"),
    [
        ("build", "broken", "found no weights in the folder, expected some"),
        ("build", "gone", "the worker ended with status 3 at its start"),
        (
            "raise_import_error",
            None,
            "the model could not be built (ModuleNotFoundError: "
            "No module named 'a_package_that_nobody_has')",
        ),
        (
            "no_such_function",
            None,
            "the model could not be built (AttributeError: "
            "module 'worker_models' has no attribute 'no_such_function')",
        ),
    ],
)
async def test_model_that_cannot_be_built_is_told_in_one_line(
    tmp_path: Path, factory: str, file: str | None, message: str
) -> None:
    if file is not None:
        (tmp_path / file).touch()
    if factory == "build":
        worker, losses = make_worker(factory, folder=tmp_path)
    else:
        worker, losses = make_worker(factory)
    with pytest.raises(WorkerStartError) as failed:
        await worker.start()
    assert str(failed.value) == message
    assert losses == []
    await until(lambda: not children())


async def test_module_that_does_not_exist_is_told_in_one_line() -> None:
    worker = WorkerProcess(Setup("no_such_module:build", {}), timeout_s=5)
    with pytest.raises(WorkerStartError, match=r"^the model could not be built \(ModuleNotFound"):
        await worker.start()


async def test_program_that_cannot_be_run_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.executable", "/no/such/python")
    worker = WorkerProcess(setup(), timeout_s=5)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="No such file"):
        await worker.start()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_start_that_is_given_up_leaves_no_process(tmp_path: Path) -> None:
    (tmp_path / "slow").touch()
    worker, _ = make_worker(folder=tmp_path)
    starting = asyncio.create_task(worker.start())
    await until(lambda: (tmp_path / "builds").exists())
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await until(lambda: not children())


# ---- what the process writes -------------------------------------------------------------------


async def test_what_libraries_print_is_passed_on(capfd: pytest.CaptureFixture[str]) -> None:
    worker, _ = make_worker("build_loud")
    async with watched(worker):
        pass
    output, errors = capfd.readouterr()
    assert output == ""
    for text in ("a library says hello", "Corrupt JPEG data", '{"half": '):
        assert text in errors


async def test_what_libraries_print_becomes_a_record_where_logs_are_json(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    worker = WorkerProcess(setup("build_loud"), timeout_s=20, log_format="json")
    async with watched(worker):
        pass
    printed = [record.getMessage() for record in caplog.records]
    for text in (
        "a library says hello",
        "Corrupt JPEG data: premature end of data segment",
        '{"half":',
    ):
        assert f"the worker printed: {text}" in printed


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signals_to_the_whole_group_are_the_server_s_alone(
    worker: WorkerProcess, number: signal.Signals
) -> None:
    pid = pid_of(worker)
    os.kill(pid, number)
    await worker.encode([paint("red")])
    assert worker.pid == pid
