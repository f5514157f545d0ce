"""Workers that die, hang and cannot start: noticed, told, started anew; only the culprit fails."""

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from ovoad_model.window import Window
from ovoad_server.engine import worker as worker_module
from ovoad_server.engine import worker_life
from ovoad_server.engine.batches import BatchRecord
from ovoad_server.engine.engine import Engine
from ovoad_server.engine.interface import (
    EncodedBatch,
    Failure,
    ScoredBatch,
    ScoreStep,
    Vocabulary,
    WindowView,
    WordsRequest,
    WorkerLostError,
)
from ovoad_server.engine.replies import Failed
from ovoad_server.engine.worker import WorkerProcess

from .harness import WAIT_S, running, until
from .worker_bench import (
    FOLDER,
    Camera,
    children,
    is_gone,
    large_picture,
    make_worker,
    open_descriptors,
    paint,
    pid_of,
    views_of,
    watched,
)

RED = WordsRequest(("red", "blue"), scorer="frame")


@pytest.fixture(autouse=True)
def quick_and_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process find its models, and what is lost be noticed and replaced soon."""
    monkeypatch.setenv("PYTHONPATH", str(FOLDER))
    monkeypatch.setattr(worker_module, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(worker_module, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(worker_module, "LONGEST_DELAY_S", 0.05)


def make_engine(worker: WorkerProcess, *, max_batch: int = 16) -> Engine:
    return Engine(worker, open_window=lambda: Window(3), max_batch=max_batch, latency_budget_ms=1e9)


async def another_than(worker: WorkerProcess, pid: int) -> None:
    """Wait until another process works, and the one before is gone."""
    await until(lambda: worker.ready and worker.pid != pid)
    await is_gone(pid)


# ---- noticed and replaced ----------------------------------------------------------------------


async def test_worker_killed_while_idle_is_replaced_and_knows_its_words_again() -> None:
    worker, losses = make_worker()
    async with watched(worker):
        words = await worker.embed(RED)
        features = (await worker.encode([paint("red")])).features
        pid = pid_of(worker)
        os.kill(pid, signal.SIGKILL)
        await another_than(worker, pid)
        assert losses == ["died with status -9"]
        assert await worker.embed(RED) is words
        (scores,) = (await worker.score(views_of(features), [words])).scores
        assert not isinstance(scores, Failure)
        assert scores.similarities == pytest.approx([1.0, 0.0], abs=1e-6)


@pytest.mark.parametrize("busy_with", ["encode", "embed"])
async def test_call_under_way_is_told_when_the_worker_is_killed(busy_with: str) -> None:
    worker, losses = make_worker()
    async with watched(worker):
        work = (
            worker.encode([paint("endless")])
            if busy_with == "encode"
            else worker.embed(WordsRequest(("hang",)))
        )
        calling = asyncio.create_task(work)
        await asyncio.sleep(0.05)
        assert not calling.done()
        pid = pid_of(worker)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerLostError, match=r"^the worker died with status -9$"):
            await asyncio.wait_for(calling, WAIT_S)
        assert not worker.ready
        await asyncio.wait_for(worker.until_ready(), WAIT_S)
        assert await worker.probe()
        assert losses == ["died with status -9"]


async def test_worker_that_owes_a_batch_for_too_long_is_killed_and_replaced() -> None:
    worker, losses = make_worker(timeout_s=0.3)
    async with watched(worker):
        pid = pid_of(worker)
        with pytest.raises(WorkerLostError, match=r"hung: no answer to encode within 0\.3 s"):
            await worker.encode([paint("endless")])
        await another_than(worker, pid)
        assert losses == ["hung: no answer to encode within 0.3 s"]


async def test_worker_that_is_stopped_while_idle_is_killed_and_replaced() -> None:
    worker, losses = make_worker(timeout_s=0.3)
    async with watched(worker):
        pid = pid_of(worker)
        os.kill(pid, signal.SIGSTOP)
        await another_than(worker, pid)
        assert losses == ["hung: no answer to beat within 0.3 s"]


async def test_worker_that_is_stopped_while_a_large_batch_is_sent_is_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker, losses = make_worker(timeout_s=0.3)
    async with watched(worker):
        pid = pid_of(worker)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(WorkerLostError, match="hung"):
            await worker.encode([large_picture(2**20)] * 32)
        await another_than(worker, pid)
        assert len(losses) == 1
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_text_side_that_hangs_is_noticed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "PROMPT_TIMEOUT_S", 0.05)
    worker, losses = make_worker(timeout_s=0.3)
    async with watched(worker):
        with pytest.raises(WorkerLostError, match=r"hung: no answer to embed within 0\.35 s"):
            await worker.embed(WordsRequest(("hang",)))
        await asyncio.wait_for(worker.until_ready(), WAIT_S)
        assert len(losses) == 1


async def test_words_waiting_behind_many_others_have_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "PROMPT_TIMEOUT_S", 10.0)
    worker, losses = make_worker(timeout_s=5.0)
    async with watched(worker):
        asked = [WordsRequest((f"word {number}",)) for number in range(50)]
        words = await asyncio.gather(*(worker.embed(each) for each in asked))
        assert [each.labels for each in words] == [each.labels for each in asked]
        assert losses == []


async def test_worker_that_cannot_start_again_is_tried_until_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker, losses = make_worker(folder=tmp_path)
    async with watched(worker):
        (tmp_path / "broken").touch()
        os.kill(pid_of(worker), signal.SIGKILL)
        await until(lambda: caplog.text.count("the worker cannot start: found no weights") >= 2)
        assert not worker.ready
        with pytest.raises(WorkerLostError, match="is being started anew"):
            await worker.probe()
        (tmp_path / "broken").unlink()
        await asyncio.wait_for(worker.until_ready(), WAIT_S)
        assert await worker.probe()
        assert len(losses) == 1


async def test_worker_that_hangs_at_its_start_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "SHORTEST_START_TIMEOUT_S", 1.0)
    monkeypatch.setattr(worker_module, "START_PATIENCE", 0)
    worker, _ = make_worker(folder=tmp_path)
    async with watched(worker):
        (tmp_path / "slow").touch()
        os.kill(pid_of(worker), signal.SIGKILL)
        await until(lambda: "the worker was not ready within 1 s" in caplog.text)
        (tmp_path / "slow").unlink()
        await asyncio.wait_for(worker.until_ready(), WAIT_S)


async def test_another_model_is_not_taken_for_the_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    worker, _ = make_worker(folder=tmp_path)
    async with watched(worker):
        (tmp_path / "other").touch()
        os.kill(pid_of(worker), signal.SIGKILL)
        await until(
            lambda: (
                "found another model (fingerprint 0ther), expected that of the start (c0102)"
                in caplog.text
            )
        )
        assert not worker.ready


async def test_text_counts_go_on_over_a_restart() -> None:
    worker, _ = make_worker(cached=True)
    async with watched(worker):
        await worker.embed(RED)
        hits, misses = worker.text_counts
        pid = pid_of(worker)
        os.kill(pid, signal.SIGKILL)
        await another_than(worker, pid)
        assert worker.text_counts == (hits, misses)
        await worker.embed(WordsRequest(("green",)))
        assert worker.text_counts >= (hits, misses + 1)


async def test_many_restarts_leave_nothing_behind() -> None:
    worker, losses = make_worker()
    async with watched(worker):
        descriptors, threads = 0, 0
        for round_number in range(8):
            pid = pid_of(worker)
            os.kill(pid, signal.SIGKILL)
            await another_than(worker, pid)
            gc.collect()
            if round_number == 1:
                descriptors, threads = open_descriptors(), threading.active_count()
        assert len(losses) == 8
        assert len(children()) == 1
        await until(lambda: open_descriptors() <= descriptors)
        await until(lambda: threading.active_count() <= threads)


# ---- sessions over it --------------------------------------------------------------------------


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    worker, _ = make_worker(timeout_s=1.0)
    async with watched(worker):
        engine = make_engine(worker)
        async with running(engine):
            yield engine


@pytest.mark.parametrize(
    ("poison", "said"),
    [
        ("deadly", "the worker died with status -9 over this frame; another is started"),
        (
            "endless",
            "the worker hung: no answer to encode within 1 s over this frame; another is started",
        ),
    ],
)
async def test_frame_that_takes_the_worker_down_fails_alone(
    engine: Engine, poison: str, said: str
) -> None:
    words = await engine.embed(RED)
    cameras = [Camera(engine, words) for _ in range(4)]
    for camera in cameras:
        camera.show("red", "blue")
    for camera in cameras:
        await camera.answered()
    cameras[1].show(poison)
    for camera in cameras:
        camera.show("red", "red")
    for camera in cameras:
        await camera.answered()
    assert cameras[1].failed() == [Failed(2, "internal", said)]
    for camera in cameras:
        assert camera.session.counts.unanswered == 0
        assert [reply.seq for reply in camera.scored()] == (
            [0, 1, 3, 4] if camera is cameras[1] else [0, 1, 2, 3]
        )
        assert camera.scored()[-1].window.frames == 4
        assert camera.scored()[-1].scores.similarities == pytest.approx([1.0, 0.0], abs=1e-6)


async def test_worker_killed_from_outside_costs_no_frame(engine: Engine) -> None:
    words = await engine.embed(RED)
    cameras = [Camera(engine, words) for _ in range(4)]
    for _ in range(3):
        for camera in cameras:
            camera.show(*["red"] * 8)
        assert isinstance(engine.worker, WorkerProcess)
        os.kill(pid_of(engine.worker), signal.SIGKILL)
        for camera in cameras:
            await camera.answered()
    for camera in cameras:
        assert camera.failed() == []
        assert [reply.seq for reply in camera.scored()] == list(range(24))
        assert camera.scored()[-1].window.frames == 24


async def test_words_are_asked_for_again_when_the_worker_is_killed_over_them(
    engine: Engine,
) -> None:
    with pytest.raises(WorkerLostError):
        await engine.embed(WordsRequest(("kill",)))
    await asyncio.wait_for(engine.worker.until_ready(), WAIT_S)
    assert (await engine.embed(RED)).labels == ("red", "blue")


async def test_session_whose_words_hurt_after_a_restart_fails_alone(engine: Engine) -> None:
    """Words that were embedded once may fail the next time."""
    worker = engine.worker
    assert isinstance(worker, WorkerProcess)
    good = Camera(engine, await engine.embed(RED))
    words = await worker.embed(WordsRequest(("green",), scorer="frame"))
    object.__setattr__(words, "request", WordsRequest(("hurt",)))
    pid = pid_of(worker)
    os.kill(pid, signal.SIGKILL)
    await another_than(worker, pid)
    bad = Camera(engine, words)
    for camera in (good, bad):
        camera.show("red")
    await good.answered()
    await bad.answered()
    assert len(good.scored()) == 1
    assert bad.failed() == [Failed(0, "internal", "the words could not be embedded")]


async def test_frames_fail_when_no_worker_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ovoad_server.engine.engine.RESTART_WAIT_S", 0.2)
    worker, _ = make_worker(folder=tmp_path)
    async with watched(worker):
        engine = make_engine(worker)
        camera = Camera(engine, await engine.embed(RED))
        async with running(engine):
            (tmp_path / "broken").touch()
            os.kill(pid_of(worker), signal.SIGKILL)
            await until(lambda: not worker.ready)
            camera.show("red", "red")
            await camera.answered()
            (tmp_path / "broken").unlink()
            await asyncio.wait_for(worker.until_ready(), WAIT_S)
            camera.show("red")
            await camera.answered()
    message = "the worker was lost and is not back yet"
    assert camera.failed() == [Failed(seq, "internal", message) for seq in (0, 1)]
    assert [reply.seq for reply in camera.scored()] == [2]


# ---- the engine's side of it, with a worker that only notes what it is asked -------------------


class NotingWorker:
    """Answers at once, with as many features and scores as asked; tells a limit of frames."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.limit: int | None = None
        self.ready = True
        self.text_counts = (0, 0)
        self.heartbeat_age_s = 0.0
        self._turn = asyncio.Lock()

    async def encode(self, images: list[bytes], steps: list[ScoreStep | None]) -> EncodedBatch:
        self.asked.append(f"encode {len(images)}")
        async with self._turn:
            await asyncio.sleep(0.01)
        feature = np.array([255, 0, 0], np.float32)
        count = len(images)
        scores = [None] * count  # all are left to score()
        return EncodedBatch([feature] * count, [0.0] * count, 10.0, scores, limit=self.limit)

    async def score(self, views: list[WindowView], vocabularies: list[Vocabulary]) -> ScoredBatch:
        self.asked.append(f"score {len(views)}")
        async with self._turn:
            await asyncio.sleep(0)
        return ScoredBatch([Failure("internal", "none")] * len(views), 0.0)


class RedWords:
    labels = ("red",)
    warnings = ()
    scorer = "frame"


async def test_batch_is_scored_before_the_next_one_is_encoded() -> None:
    worker = NotingWorker()
    engine = make_engine(worker, max_batch=2)  # type: ignore[arg-type]
    camera = Camera(engine, RedWords())
    camera.show(*["red"] * 6)
    async with running(engine):
        await camera.answered()
    assert worker.asked == ["encode 2", "score 2"] * 3


async def test_batches_shrink_to_what_the_device_has_room_for() -> None:
    worker = NotingWorker()
    worker.limit = 3
    engine = make_engine(worker, max_batch=8)  # type: ignore[arg-type]
    records: list[BatchRecord] = []
    engine._observe = records.append
    camera = Camera(engine, RedWords())
    camera.show(*["red"] * 12)
    async with running(engine):
        await camera.answered()
    assert [record.size for record in records] == [8, 3, 1]
    assert engine.largest_batch == 3


# ---- the server is gone ------------------------------------------------------------------------

PARENT = """
import asyncio, sys
from ovoad_server.engine.worker import WorkerProcess
from tests_worker_parts import paint, setup

async def main():
    worker = WorkerProcess(setup({arguments}), timeout_s=60)
    starting = asyncio.create_task(worker.start())
    while not starting.done() and worker.pid is None and {starting!r}:
        await asyncio.sleep(0.01)
    if not {starting!r}:
        await starting
        print(worker.pid, flush=True)
    if {hangs!r}:
        await worker.encode([paint("endless")])
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("case", ["idle", "hangs", "stopped", "starting"])
def test_server_that_is_killed_leaves_no_worker(tmp_path: Path, case: str) -> None:
    folder = f"folder={str(tmp_path)!r}"
    (tmp_path / "tests_worker_parts.py").write_text(
        "import numpy, cv2\n"
        "from pathlib import Path\n"
        "from ovoad_server.engine.worker_link import Setup\n"
        "def setup(folder):\n"
        "    return Setup('worker_models:build', {'folder': Path(folder)})\n"
        "def paint(name):\n"
        "    pixels = numpy.full((16, 16, 3), (250, 250, 0), numpy.uint8)\n"
        "    return bytes(cv2.imencode('.png', pixels)[1])\n"
    )
    if case == "starting":
        (tmp_path / "slow").touch()
    script = PARENT.format(arguments=folder, hangs=case == "hangs", starting=case == "starting")
    environment = {**os.environ, "PYTHONPATH": f"{FOLDER}:{tmp_path}"}
    server = subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        asyncio.run(asyncio.wait_for(until((tmp_path / "builds").exists), WAIT_S))
        assert server.stdout is not None
        if case != "starting":
            server.stdout.readline()
        pid = int((tmp_path / "builds").read_text())
        if case == "stopped":
            os.kill(pid, signal.SIGSTOP)
    finally:
        server.kill()
        server.communicate()
    asyncio.run(is_gone(pid))


async def test_worker_that_is_stopped_for_good_is_logged_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(worker_life, "STOP_TIMEOUT_S", 0.05)
    worker, _ = make_worker()
    await worker.start()
    life = worker._life
    assert life is not None
    with monkeypatch.context() as patched:
        patched.setattr(type(life.process), "kill", lambda process: None)
        with caplog.at_level(logging.ERROR):
            os.kill(life.process.pid, signal.SIGSTOP)
            await life.stop()
    assert f"process {life.process.pid} of a worker is still there" in caplog.text
    life.process.kill()
    await life.process.wait()
