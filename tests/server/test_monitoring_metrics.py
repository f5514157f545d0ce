"""What Prometheus needs to alert on: readiness, bounds, faults, and series that begin at zero."""

import os

import httpx
import pytest

from ovoad_model.detector import Detector
from ovoad_server.app import create_app
from ovoad_server.health import Health
from ovoad_server.metrics import Metrics
from ovoad_server.settings import Settings

from .harness import WAIT_S, ColourEncoder, Serve, Server, make_hub

CREATE = {"type": "session.create", "vocabulary": {"labels": ["red"]}}


async def scrape(server: Server) -> list[str]:
    async with httpx.AsyncClient(timeout=WAIT_S, trust_env=False) as client:
        return (await client.get(f"{server.url}/metrics")).text.splitlines()


async def test_scrape_tells_whether_the_model_answers_right(
    serve: Serve, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ovoad_server.health.CHECK_EVERY_S", -1.0)
    async with serve() as server:
        assert "ovoad_ready 1.0" in await scrape(server)
        encoder.constant = True
        assert "ovoad_ready 0.0" in await scrape(server)
        encoder.constant = False
        assert "ovoad_ready 1.0" in await scrape(server)
        server.hub.draining = True
        assert "ovoad_ready 0.0" in await scrape(server)
        server.hub.draining = False


async def test_bounds_and_promises_are_those_of_the_settings(serve: Serve) -> None:
    async with serve(max_sessions=3, promised_fps=2.5, latency_budget_ms=750) as server:
        lines = await scrape(server)
    assert "ovoad_sessions_limit 3.0" in lines
    assert "ovoad_promised_frames_per_second 2.5" in lines
    assert "ovoad_latency_budget_seconds 0.75" in lines


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("ovoad_sessions_rejected_total", {"reason": "capacity"}),
        ("ovoad_sessions_ended_total", {"reason": "internal"}),
        ("ovoad_frames_dropped_total", {"reason": "busy"}),
        ("ovoad_frames_failed_total", {"code": "internal"}),
        ("ovoad_events_total", {"kind": "start"}),
        ("ovoad_worker_lost_total", {"how": "hung"}),
        ("ovoad_faults_total", {"where": "stream"}),
        ("ovoad_stage_seconds_count", {"stage": "total"}),
    ],
)
def test_series_that_alerts_go_by_begin_at_zero(name: str, labels: dict[str, str]) -> None:
    assert Metrics().registry.get_sample_value(name, labels) == 0.0


async def test_fault_of_a_route_is_counted(detector: Detector) -> None:
    hub = make_hub(detector, Settings())
    app = create_app(hub, Health([0.0, 1.0]))

    @app.get("/fault")
    async def fault() -> None:
        raise RuntimeError("a fault")

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/fault")).status_code == 500
        assert (await client.get("/nowhere")).status_code == 404
    assert hub.metrics.registry.get_sample_value("ovoad_faults_total", {"where": "http"}) == 1.0


async def test_fault_of_a_connection_is_counted(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a fault")

    async with serve() as server:
        monkeypatch.setattr(server.hub, "check_vocabulary", fail)
        async with server.connect() as client:
            await client.send(CREATE)
            await client.rest()
        assert server.metric("ovoad_faults_total", where="stream") == 1.0


def test_processes_are_watched_and_a_worker_that_is_gone_is_left_out() -> None:
    metrics = Metrics()
    worker: list[int | None] = [os.getpid()]
    metrics.watch_processes(lambda: worker[0])
    value = metrics.registry.get_sample_value
    own = value("process_resident_memory_bytes")
    assert own is not None
    assert value("ovoad_worker_process_resident_memory_bytes") == pytest.approx(own, rel=0.2)
    worker[0] = None
    assert value("ovoad_worker_process_resident_memory_bytes") is None
    assert value("process_cpu_seconds_total") is not None
