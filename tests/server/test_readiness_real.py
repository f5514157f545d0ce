"""/readyz over real encoders and real worker processes: red when the answer is not right."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from ovoad_model.build import build_detector
from ovoad_model.detector import Detector
from ovoad_model.scorers import average_scorer
from ovoad_model.window import Window
from ovoad_server import health as health_module
from ovoad_server.app import create_app
from ovoad_server.engine import worker as worker_module
from ovoad_server.engine.engine import Engine
from ovoad_server.engine.worker import WorkerProcess
from ovoad_server.health import Health
from ovoad_server.hub import Hub
from ovoad_server.metrics import Metrics
from ovoad_server.settings import Settings

from .harness import running, serving, until
from .worker_bench import FOLDER, pid_of, setup, watched

GREEN = "golden images score as at the start"


@pytest.fixture(autouse=True)
def asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the model at each request; let what is lost be noticed and replaced soon."""
    monkeypatch.setenv("PYTHONPATH", str(FOLDER))
    monkeypatch.setattr(health_module, "CHECK_EVERY_S", 0.0)
    monkeypatch.setattr(worker_module, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(worker_module, "FIRST_DELAY_S", 0.01)


class Prober:
    """What a load balancer sees of a server over a worker process."""

    def __init__(self, hub: Hub, health: Health, worker: WorkerProcess, losses: list[str]) -> None:
        self.hub = hub
        self.worker = worker
        self.losses = losses
        self._client = httpx.AsyncClient(
            transport=httpx.ASGITransport(create_app(hub, health)), base_url="http://test"
        )

    async def ask(self) -> tuple[int, str]:
        """Return status and reason of /readyz."""
        answer = await self._client.get("/readyz")
        assert answer.json()["ready"] == (answer.status_code == 200)
        return answer.status_code, answer.json()["reason"]

    async def turns(self, status: int) -> str:
        """Wait until /readyz has this status; return its reason."""
        async with asyncio.timeout(10):
            while True:
                found, reason = await self.ask()
                if found == status:
                    return reason
                await asyncio.sleep(0.01)

    async def metrics(self) -> str:
        """Return /metrics."""
        return (await self._client.get("/metrics")).text


@contextlib.asynccontextmanager
async def probing(folder: Path, *, timeout_s: float = 20.0) -> AsyncIterator[Prober]:
    """Run engine, health and application over a real worker process."""
    settings, metrics, losses = Settings(), Metrics(), list[str]()

    def lose(reason: str) -> None:
        losses.append(reason)
        metrics.observe_loss(reason)

    worker = WorkerProcess(setup(folder=folder), timeout_s=timeout_s, on_loss=lose)
    ready = await worker.start()
    async with watched(worker, started=True):
        engine = Engine(worker, open_window=lambda: Window(3))
        async with running(engine):
            await asyncio.sleep(0)
            hub = Hub(settings, engine, ready.facts, metrics)
            yield Prober(hub, Health(ready.golden), worker, losses)


# ---- the real encoder --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def embedded() -> Detector:
    return build_detector()


async def ask(address: str) -> tuple[int, str]:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"http://{address}/readyz", timeout=10)
    return answer.status_code, answer.json()["reason"]


async def test_readyz_turns_red_when_weights_are_corrupted_in_memory(embedded: Detector) -> None:
    joint = embedded.encoder.joint  # type: ignore[attr-defined]
    arrays = {name: each for name, each in vars(joint).items() if hasattr(each, "setflags")}
    tables = {name: each for name, each in arrays.items() if each.dtype == np.float32}
    assert len(tables) > 2
    async with serving(embedded) as server:
        assert await ask(server.address) == (200, GREEN)
        for name, weights in tables.items():
            kept = weights.copy()
            weights.setflags(write=True)
            weights.flat[::3] *= -3
            status, reason = await ask(server.address)
            weights[:] = kept
            assert (name, status) == (name, 503)
            assert reason.startswith(("golden similarities moved by", "the encoder gives"))
            assert await ask(server.address) == (200, GREEN)


async def test_readyz_turns_red_when_the_real_encoder_returns_a_constant(
    embedded: Detector,
) -> None:
    encoder = embedded.encoder
    network = encoder.image_net  # type: ignore[attr-defined]
    faults = {"now": False}

    def image_net(batch: object) -> object:
        logits = network(batch)
        return logits[:1].repeat(len(logits), axis=0) if faults["now"] else logits

    image_net.cores = network.cores  # type: ignore[attr-defined]
    stuck = replace(encoder, image_net=image_net)  # type: ignore[type-var]
    async with serving(Detector(stuck, (average_scorer(stuck),))) as server:
        assert await ask(server.address) == (200, GREEN)
        faults["now"] = True
        assert await ask(server.address) == (
            503,
            "the encoder gives different images the same answer",
        )


# ---- real worker processes ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("corrupt", "golden similarities moved by "),
        ("constant", "the encoder gives different images the same answer"),
    ],
)
async def test_readyz_turns_red_when_the_model_in_the_process_goes_wrong(
    tmp_path: Path, fault: str, reason: str
) -> None:
    async with probing(tmp_path) as prober:
        assert await prober.ask() == (200, GREEN)
        (tmp_path / fault).touch()
        status, found = await prober.ask()
        assert status == 503
        assert found.startswith(reason)


async def test_readyz_is_red_while_the_worker_is_dead_and_green_once_it_is_back(
    tmp_path: Path,
) -> None:
    async with probing(tmp_path) as prober:
        assert await prober.ask() == (200, GREEN)
        (tmp_path / "broken").touch()
        os.kill(pid_of(prober.worker), signal.SIGKILL)
        await until(lambda: not prober.worker.ready)
        for _ in range(3):
            assert await prober.ask() == (503, "the worker was lost and is being started anew")
        assert "ovoad_worker_heartbeat_age_seconds" in await prober.metrics()
        (tmp_path / "broken").unlink()
        assert await prober.turns(200) == GREEN
        assert 'ovoad_worker_lost_total{how="died"} 1.0' in await prober.metrics()


async def test_readyz_turns_red_when_the_worker_stalls_and_green_with_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "WORKER_TIMEOUT_S", 0.1)
    async with probing(tmp_path, timeout_s=0.5) as prober:
        assert await prober.ask() == (200, GREEN)
        os.kill(pid_of(prober.worker), signal.SIGSTOP)
        assert await prober.ask() == (503, "the worker did not answer within 0.1 s")
        await until(lambda: len(prober.losses) == 1)
        assert await prober.turns(200) == GREEN
        assert 'ovoad_worker_lost_total{how="hung"} 1.0' in await prober.metrics()


async def test_readyz_is_red_when_the_heartbeat_is_old_though_the_last_answer_was_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "CHECK_EVERY_S", 60.0)
    monkeypatch.setattr(health_module, "HEARTBEAT_TIMEOUT_S", 0.3)
    async with probing(tmp_path) as prober:
        assert await prober.ask() == (200, GREEN)
        os.kill(pid_of(prober.worker), signal.SIGSTOP)
        await until(lambda: prober.worker.heartbeat_age_s > 0.3)
        assert await prober.ask() == (503, "the worker has shown no sign of life for 0 s")
        os.kill(pid_of(prober.worker), signal.SIGCONT)
        assert await prober.turns(200) == GREEN
