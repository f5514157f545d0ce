"""Spans of batches and frames: what they say, and that a collector can never hold serving up."""

import builtins
import gzip
import random
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra otel is missing")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from ovoad_model.detector import Detector
from ovoad_server import tracing as tracing_module
from ovoad_server.__main__ import main
from ovoad_server.engine.batches import BatchRecord, FrameRecord
from ovoad_server.tracing import MissingTracingError, Tracing, open_exporter

from .bench import Bench
from .harness import WAIT_S, running

STAGES = ["queue", "decode", "encode", "score"]


def frame(**given: Any) -> FrameRecord:
    """Return a frame that was received at 100 s, taken at 101 s and answered at 102 s."""
    facts = {
        "scorer": "average",
        "received_s": 100.0,
        "taken_s": 101.0,
        "encoded_s": 101.5,
        "scored_s": 101.75,
        "answered_s": 102.0,
        "decode_ms": 50.0,
        "encode_ms": 250.0,
        "score_ms": 125.0,
        "code": None,
    }
    return FrameRecord(**{**facts, **given})


def traced(*records: BatchRecord) -> list[ReadableSpan]:
    """Return the spans that records give."""
    exporter = InMemorySpanExporter()
    tracing = Tracing(exporter, encoder="colours", share=1.0)
    for record in records:
        tracing.observe(record)
    tracing.close()
    return list(exporter.get_finished_spans())


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


def children(spans: Sequence[ReadableSpan], of: ReadableSpan) -> dict[str, float]:
    return {
        span.name: seconds(span)
        for span in spans
        if span.parent is not None and span.parent.span_id == of.context.span_id
    }


def test_batch_has_its_stages_and_each_frame_its_own_trace_that_points_to_it() -> None:
    spans = traced(BatchRecord([frame(), frame(received_s=100.5, scorer="frame")]))
    (batch,) = [span for span in spans if span.name == "batch"]
    frames = [span for span in spans if span.name == "frame"]
    assert dict(batch.attributes or {}) == {"ovoad.encoder": "colours", "ovoad.batch_size": 2}
    assert seconds(batch) == pytest.approx(1.0, abs=1e-6)
    stages = {"decode": 0.05, "encode": 0.25, "score": 0.125}
    assert children(spans, batch) == pytest.approx(stages, abs=1e-6)
    assert len(frames) == 2
    for span, queued_s, scorer in zip(frames, (1.0, 0.5), ("average", "frame"), strict=True):
        assert span.parent is None
        assert span.links[0].context.span_id == batch.context.span_id
        assert span.status.status_code is StatusCode.UNSET
        assert seconds(span) == pytest.approx(queued_s + 1.0, abs=1e-6)
        assert children(spans, span) == pytest.approx({"queue": queued_s, **stages}, abs=1e-6)
        assert dict(span.attributes or {}) == {
            "ovoad.encoder": "colours",
            "ovoad.batch_size": 2,
            "ovoad.scorer": scorer,
        }
    assert len({span.context.trace_id for span in (batch, *frames)}) == 3


def test_spans_have_the_time_of_the_wall() -> None:
    now_s = time.monotonic()
    spans = traced(BatchRecord([frame(taken_s=now_s, answered_s=now_s)]))
    (batch,) = [span for span in spans if span.name == "batch"]
    assert batch.end_time is not None
    assert abs(batch.end_time / 1e9 - time.time()) < 60


def test_frame_that_failed_says_with_which_code_and_has_the_stages_it_reached() -> None:
    failed = frame(code="bad_image", scored_s=None)
    lost = frame(code="internal", encoded_s=None, scored_s=None)
    spans = traced(BatchRecord([failed, lost]))
    first, second = [span for span in spans if span.name == "frame"]
    assert first.status.status_code is second.status.status_code is StatusCode.ERROR
    assert (first.attributes or {})["ovoad.error"] == "bad_image"
    assert list(children(spans, first)) == ["queue", "decode", "encode"]
    assert list(children(spans, second)) == ["queue"]


def test_share_of_the_batches_is_traced() -> None:
    exporter = InMemorySpanExporter()
    tracing = Tracing(exporter, encoder="colours", share=0.25)
    random.seed(7)
    for _ in range(200):
        tracing.observe(BatchRecord([frame()]))
    tracing.close()
    batches = [span for span in exporter.get_finished_spans() if span.name == "batch"]
    assert 30 < len(batches) < 70
    none = Tracing(exporter, encoder="colours", share=0.0)
    none.observe(BatchRecord([frame()]))
    assert none._waiting.empty()
    none.close()


async def test_engine_s_frames_are_traced_and_name_no_session_and_no_label(
    detector: Detector,
) -> None:
    exporter = InMemorySpanExporter()
    tracing = Tracing(exporter, encoder="colours", share=1.0)
    bench = Bench(detector, max_batch=4, observe=tracing.observe)
    async with running(bench.engine):
        desk = bench.open("secret-session", scorer="average", labels=("red", "secret label"))
        desk.submit(0, 1)
        desk.submit(2, image=b"no image")
        await desk.answers(3)
    tracing.close()
    bench.worker.close()
    spans = exporter.get_finished_spans()
    frames = [span for span in spans if span.name == "frame"]
    assert len(frames) == 3
    assert all((span.attributes or {})["ovoad.scorer"] == "average" for span in frames)
    assert [(span.attributes or {}).get("ovoad.error") for span in frames] == [
        None,
        None,
        "bad_image",
    ]
    assert sorted(children(spans, frames[0])) == sorted(STAGES)
    timing = desk.scored()[0].timing
    assert children(spans, frames[0])["encode"] == pytest.approx(timing.encode / 1000, abs=1e-5)
    assert seconds(frames[0]) >= timing.total / 1000
    assert "secret" not in "".join(span.to_json() for span in spans)


# ---- collectors --------------------------------------------------------------------------------


class HeldExporter(SpanExporter):
    """Takes nothing until it may."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.entered = threading.Event()
        self.result = SpanExportResult.SUCCESS
        self.spans = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        self.may.wait(WAIT_S)
        self.spans += len(spans)
        return self.result

    def shutdown(self) -> None:
        self.may.set()


def test_collector_that_takes_nothing_holds_nobody_up(caplog: pytest.LogCaptureFixture) -> None:
    exporter = HeldExporter()
    tracing = Tracing(exporter, encoder="colours", share=1.0)
    record = BatchRecord([frame()])
    tracing.observe(record)
    assert exporter.entered.wait(WAIT_S)
    started_s = time.monotonic()
    for _ in range(20_000):
        tracing.observe(record)
    assert time.monotonic() - started_s < 1.0
    assert tracing._waiting.qsize() == tracing_module.MOST_WAITING
    exporter.may.set()
    tracing.close()
    assert not tracing._thread.is_alive()
    assert exporter.spans == 9 * (1 + tracing_module.MOST_WAITING)  # 4 of a batch, 5 of a frame
    lost = "traces do not arrive at the collector and are left out; serving goes on"
    assert caplog.text.count(lost) == 1


def test_close_does_not_wait_for_a_collector_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing_module, "CLOSE_TIMEOUT_S", 0.1)
    exporter = HeldExporter()
    tracing = Tracing(exporter, encoder="colours", share=1.0)
    for _ in range(1000):
        tracing.observe(BatchRecord([frame()]))
    started_s = time.monotonic()
    tracing.close()
    assert time.monotonic() - started_s < 1.0


def test_exporter_that_raises_or_refuses_is_told_once_and_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    exporter = HeldExporter()
    exporter.may.set()
    exporter.result = SpanExportResult.FAILURE
    tracing = Tracing(exporter, encoder="colours", share=1.0)
    for _ in range(3):
        tracing._export([])
    assert caplog.text.count("traces do not arrive") == 1
    exporter.result = SpanExportResult.SUCCESS
    tracing._export([])
    assert caplog.text.count("traces arrive at the collector again") == 1
    tracing.close()


class Receiver(ThreadingHTTPServer):
    """An OTLP receiver that keeps what it is sent."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, ExportTraceServiceRequest]] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.requests.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        return


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        serving = threading.Thread(target=receiver.serve_forever, args=(0.01,))
        serving.start()
        yield receiver
        receiver.shutdown()
        serving.join()


@pytest.mark.parametrize("path", ["", "/", "/v1/traces", "/otlp/v1/traces"])
def test_spans_arrive_at_a_collector(receiver: Receiver, path: str) -> None:
    exporter = open_exporter(f"http://127.0.0.1:{receiver.server_address[1]}{path}")
    tracing = Tracing(exporter, encoder="colours", share=1.0)
    tracing.observe(BatchRecord([frame()]))
    tracing.close()
    ((found, request),) = receiver.requests
    assert found == (path if len(path) > 1 else "/v1/traces")
    (resource,) = request.resource_spans
    names = {each.key: each.value.string_value for each in resource.resource.attributes}
    assert names["service.name"] == "ovoad"
    spans = [span.name for scope in resource.scope_spans for span in scope.spans]
    assert sorted(spans) == sorted(["batch", "frame", *STAGES, "decode", "encode", "score"])


def test_collector_that_is_down_costs_a_line_and_little_time_at_the_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing_module, "CLOSE_TIMEOUT_S", 0.5)
    tracing = Tracing(open_exporter("http://127.0.0.1:9"), encoder="colours", share=1.0)
    tracing.observe(BatchRecord([frame()]))
    started_s = time.monotonic()
    tracing.close()
    assert time.monotonic() - started_s < 2.0
    tracing._thread.join(WAIT_S)
    assert [r.getMessage() for r in caplog.records] == [
        "traces do not arrive at the collector and are left out; serving goes on"
    ]


# ---- the extra ---------------------------------------------------------------------------------


def test_missing_extra_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ModuleNotFoundError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr("ovoad_server.__main__.configure_logs", lambda log_format: None)
    monkeypatch.setenv("OVOAD_TRACES", "http://127.0.0.1:4318")
    with pytest.raises(MissingTracingError):
        open_exporter("http://127.0.0.1:4318")
    assert main(["--port", "0"]) == 1
    assert capsys.readouterr().err == (
        "ovoad serve: OVOAD_TRACES is set and OpenTelemetry is not installed, "
        "expected the extra: pip install 'ovoad[otel]'\n"
    )
