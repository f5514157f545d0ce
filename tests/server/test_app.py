"""HTTP routes: health, readiness, metrics, configuration, documents, and the shape of errors."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator

import httpx
import pytest

from ovoad_client import protocol
from ovoad_model.detector import Detector
from ovoad_server import health
from ovoad_server.app import create_app
from ovoad_server.health import Health, Readiness, compare
from ovoad_server.settings import Settings

from .harness import WAIT_S, ColourEncoder, Serve, Server, make_hub, occurs, picture

KEY = "correct-horse"
METRICS = {
    "ovoad_sessions_active": "gauge",
    "ovoad_sessions": "counter",
    "ovoad_sessions_rejected": "counter",
    "ovoad_frames_received": "counter",
    "ovoad_frames_predicted": "counter",
    "ovoad_frames_dropped": "counter",
    "ovoad_frames_failed": "counter",
    "ovoad_events": "counter",
    "ovoad_stage_seconds": "histogram",
    "ovoad_batch_frames": "histogram",
    "ovoad_frames_waiting": "gauge",
    "ovoad_text_cache_hits": "gauge",
    "ovoad_text_cache_misses": "gauge",
}


@pytest.fixture
async def server(serve: Serve) -> AsyncIterator[Server]:
    async with serve() as server:
        yield server


@pytest.fixture
async def guarded(serve: Serve) -> AsyncIterator[Server]:
    async with serve(api_key=KEY) as server:
        yield server


async def get(server: Server, path: str, *, method: str = "GET", key: str = "") -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(base_url=server.url, timeout=WAIT_S, trust_env=False) as client:
        return await client.request(method, path, headers=headers)


# ---- health ------------------------------------------------------------------------------------


async def test_healthz_tells_that_the_process_runs(server: Server) -> None:
    answer = await get(server, "/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


async def test_readyz_is_green_while_the_model_answers_as_at_the_start(server: Server) -> None:
    answer = await get(server, "/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"ready": True, "reason": "golden images score as at the start"}


async def test_readyz_is_red_once_the_encoder_returns_a_constant(
    server: Server, encoder: ColourEncoder
) -> None:
    encoder.constant = True
    answer = await get(server, "/readyz")
    assert answer.status_code == 503
    assert answer.json() == {
        "ready": False,
        "reason": "the encoder gives different images the same answer",
    }


async def test_readyz_is_red_while_the_worker_stalls(
    serve: Serve, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "WORKER_TIMEOUT_S", 0.05)
    monkeypatch.setattr(health, "CHECK_EVERY_S", 0.0)
    async with serve() as server, server.session() as client:
        encoder.entered.clear()
        encoder.hold.clear()
        await client.frame(0)
        await occurs(encoder.entered)
        answer = await get(server, "/readyz")
        assert answer.status_code == 503
        assert answer.json()["reason"] == "the worker did not answer within 0.05 s"
        assert (await get(server, "/healthz")).status_code == 200
        encoder.hold.set()
        await client.expect(protocol.Prediction)
        assert (await get(server, "/readyz")).status_code == 200


async def test_readyz_is_red_when_the_model_fails(server: Server, encoder: ColourEncoder) -> None:
    encoder.fail_on = encoder.batches[-1][0]  # a colour of the golden images
    answer = await get(server, "/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"ready": False, "reason": "the model failed (RuntimeError)"}


async def test_readyz_asks_the_model_only_now_and_then(
    server: Server, encoder: ColourEncoder
) -> None:
    await get(server, "/readyz")
    asked = len(encoder.batches)
    await get(server, "/readyz")
    assert len(encoder.batches) == asked


@pytest.mark.parametrize(
    ("found", "readiness"),
    [
        ([0.1, 0.9], Readiness(ready=True, reason="golden images score as at the start")),
        (
            [0.1, 0.8],
            Readiness(
                ready=False, reason="golden similarities moved by 0.1, expected at most 0.001"
            ),
        ),
        (
            [0.5, 0.5],
            Readiness(ready=False, reason="the encoder gives different images the same answer"),
        ),
    ],
)
def test_readiness_compares_with_the_start(found: list[float], readiness: Readiness) -> None:
    assert compare(found, [0.1, 0.9]) == readiness


def test_similarity_that_is_no_number_is_not_ready() -> None:
    assert not compare([float("nan"), 0.9], [0.1, 0.9]).ready


# ---- metrics -----------------------------------------------------------------------------------


async def test_metrics_have_their_names_and_kinds(server: Server) -> None:
    answer = await get(server, "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    for name, kind in METRICS.items():
        total = "_total" if kind == "counter" else ""
        assert f"# TYPE {name}{total} {kind}" in lines
    assert 'ovoad_model_info{encoder="colours",fingerprint="c0105"} 1.0' in lines


async def test_metrics_count_what_happened(server: Server) -> None:
    async with server.session(["green"]) as client:
        for seq in range(3):
            await client.frame(seq)
            await client.expect(protocol.Prediction)
        await client.frame(3, b"no image")
        await client.expect(protocol.Error)
        lines = (await get(server, "/metrics")).text.splitlines()
    assert "ovoad_sessions_active 1.0" in lines
    assert "ovoad_sessions_total 1.0" in lines
    assert "ovoad_frames_received_total 4.0" in lines
    assert "ovoad_frames_predicted_total 3.0" in lines
    assert 'ovoad_frames_failed_total{code="bad_image"} 1.0' in lines
    assert 'ovoad_stage_seconds_count{stage="total"} 3.0' in lines
    assert "ovoad_batch_frames_sum 4.0" in lines


async def test_metrics_and_logs_carry_no_label_no_session_and_no_key(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with serve(api_key=KEY) as server:
        headers = {"Authorization": f"Bearer {KEY}"}
        async with server.connect(additional_headers=headers) as client:
            created = await client.create(["secretly dancing red"])
            await client.frame(0)
            await client.receive()
            await client.frame(1, b"no image")
            await client.receive()
            text = (await get(server, "/metrics", key=KEY)).text
    logs = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("ovoad"))
    for secret in ("secretly", created.resume_token, KEY):
        assert secret not in text
        assert secret not in logs
    assert created.session_id not in text


# ---- configuration and documents ---------------------------------------------------------------


async def test_config_is_what_a_session_is_granted(serve: Serve) -> None:
    async with serve(max_labels=7, max_fps=12.5) as server, server.connect() as client:
        answer = await get(server, "/v1/config")
        config = protocol.ServerConfig.model_validate_json(answer.text)
        created = await client.create()
    assert config.limits == created.limits
    assert config.limits.max_labels == 7
    assert config.model == created.model
    assert config.window == created.window == protocol.WindowShape(fps=4, past=24, neighbours=8)
    assert config.scorers == ["average", "frame", "cluster"]
    assert (config.templates, config.background) == (["{}"], ["grey"])
    assert config.events == protocol.EventSettings()


async def test_documents_answer(server: Server) -> None:
    assert "swagger" in (await get(server, "/docs")).text.lower()
    document = (await get(server, "/openapi.json")).json()
    assert {"/healthz", "/readyz", "/v1/config", "/metrics"} <= set(document["paths"])


# ---- the page ----------------------------------------------------------------------------------


async def test_page_is_served_under_a_strict_policy(server: Server) -> None:
    answer = await get(server, "/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.text.lstrip().lower().startswith("<!doctype html>")
    policy = answer.headers["content-security-policy"].split("; ")
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "style-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert f"connect-src 'self' ws://{server.address} wss://{server.address}" in policy
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_page_s_own_files_are_served_under_the_policy_too(server: Server) -> None:
    page = (await get(server, "/")).text
    names = re.findall(r'(?:src|href)="([^"#:]+)"', page)
    assert [name for name in names if name.endswith(".js")]
    for name in names:
        answer = await get(server, f"/{name.removeprefix('./')}")
        assert answer.status_code == 200, name
        assert "default-src 'none'" in answer.headers["content-security-policy"], name


async def test_page_needs_no_key_and_tells_that_one_is_needed(
    guarded: Server, server: Server
) -> None:
    answer = await get(guarded, "/")
    assert answer.status_code == 200
    assert KEY not in answer.text
    told = await get(guarded, "/page.json")
    assert told.json()["key_required"] is True
    assert KEY not in told.text
    assert (await get(server, "/page.json")).json()["key_required"] is False


# ---- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/config", "/metrics"])
@pytest.mark.parametrize("key", ["", "wrong"])
async def test_key_is_asked_for(guarded: Server, path: str, key: str) -> None:
    answer = await get(guarded, path, key=key)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json() == {
        "error": {
            "code": "unauthorised",
            "message": "found no valid API key, expected the header Authorization: Bearer KEY",
        }
    }
    assert (await get(guarded, path, key=KEY)).status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_health_needs_no_key(guarded: Server, path: str) -> None:
    assert (await get(guarded, path)).status_code == 200


async def test_unknown_path_is_told_in_json(server: Server) -> None:
    answer = await get(server, "/v2/nothing")
    assert answer.status_code == 404
    assert answer.json() == {"error": {"code": "not_found", "message": "Not Found"}}


async def test_wrong_method_is_told_in_json(server: Server) -> None:
    answer = await get(server, "/healthz", method="DELETE")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET"
    assert answer.json() == {
        "error": {"code": "method_not_allowed", "message": "Method Not Allowed"}
    }


async def test_stream_asked_for_over_plain_http_is_told_in_json(server: Server) -> None:
    answer = await get(server, "/v1/stream")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_bad_parameter_and_fault_are_told_in_json(detector: Detector) -> None:
    app = create_app(make_hub(detector, Settings()), Health([0.0, 1.0]))

    @app.get("/half/{number}")
    async def half(number: int) -> int:
        return 1 // (number - 1)

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        refused, failed = await client.get("/half/x"), await client.get("/half/1")
    assert refused.status_code == 422
    message = "path.number: Input should be a valid integer, unable to parse string as an integer"
    assert refused.json() == {"error": {"code": "bad_request", "message": message}}
    assert failed.status_code == 500
    assert failed.json() == {
        "error": {"code": "internal", "message": "the server failed; its log says why"}
    }


async def test_picture_is_still_scored_after_bad_requests(server: Server) -> None:
    for path in (
        "/%00",
        "/v1/stream?x=%ff",
        "/v2//",
        "/%2e%2e/%2e%2e/pyproject.toml",
        "/" + "a" * 5000,
    ):
        assert (await get(server, path)).status_code == 404
    async with server.session() as client:
        await client.frame(0, picture("blue"))
        prediction = await client.expect(protocol.Prediction)
        assert prediction.similarities == [0.0, 1.0]


def test_a_scheduler_that_stopped_or_hangs_is_not_ready(detector: Detector) -> None:
    async def check() -> tuple[str, str]:
        engine = make_hub(detector, Settings()).engine
        stopped = await Health([0.0, 1.0]).check(engine)
        running = asyncio.create_task(engine.run())
        await asyncio.sleep(0)
        engine._begin([]).started_s -= 11
        hanging = await Health([0.0, 1.0]).check(engine)
        running.cancel()
        assert not stopped.ready
        assert not hanging.ready
        return stopped.reason, hanging.reason

    assert asyncio.run(check()) == (
        "the scheduler has stopped",
        "a batch has been running for 11 s",
    )
