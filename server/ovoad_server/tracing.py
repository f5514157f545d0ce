"""Spans of batches and frames for an OpenTelemetry collector, where one is named.

The one file that knows OpenTelemetry, which is an extra. Spans carry times, sizes and names of
encoder, scorer and stage: no session, no label, no image.
"""

import logging
import queue
import random
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

from ovoad_server.engine.batches import BatchRecord, FrameRecord

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

log = logging.getLogger(__name__)
MOST_WAITING: Final = 256  # batches; beyond it they are left out
BATCHES_AT_ONCE: Final = 32
EXPORT_TIMEOUT_S: Final = 5.0
CLOSE_TIMEOUT_S: Final = 2.0


class MissingTracingError(Exception):
    """Traces are asked for and OpenTelemetry is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "OVOAD_TRACES is set and OpenTelemetry is not installed, expected the extra: "
            "pip install 'ovoad[otel]'"
        )


class Tracing:
    """Makes spans of a share of all batches and exports them in a thread of its own.

    Whatever the collector does, `observe` returns at once: what finds no room is left out.
    """

    def __init__(self, exporter: "SpanExporter", *, encoder: str, share: float) -> None:
        """Take what sends spans away, and the share of batches to trace."""
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        class Gatherer(SpanProcessor):
            """Keeps the spans that ended."""

            def __init__(self) -> None:
                self.spans: list[ReadableSpan] = []

            def on_end(self, span: "ReadableSpan") -> None:
                self.spans.append(span)

        self._gatherer = Gatherer()
        provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource.create({"service.name": "ovoad"}),
            shutdown_on_exit=False,
        )
        provider.add_span_processor(self._gatherer)
        self._tracer = provider.get_tracer("ovoad_server")
        self._exporter = exporter
        self._encoder = encoder
        self._share = share
        self._epoch_s = 0.0  # of time.monotonic: spans have wall time
        self._waiting: queue.Queue[BatchRecord | None] = queue.Queue(MOST_WAITING)
        self._arrives = True
        self._thread = threading.Thread(target=self._run, name="ovoad-traces", daemon=True)
        self._thread.start()

    def observe(self, record: BatchRecord) -> None:
        """Take note of a batch, or let it pass."""
        if random.random() >= self._share:
            return
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            self._tell(arrives=False)

    def close(self) -> None:
        """Export what waits, as far as that is quick."""
        try:
            self._waiting.put(None, timeout=CLOSE_TIMEOUT_S / 2)
        except queue.Full:
            log.info("traces are left behind: the collector does not take them")
        self._thread.join(CLOSE_TIMEOUT_S / 2)
        self._exporter.shutdown()  # ends an export that tries again and again
        self._thread.join(CLOSE_TIMEOUT_S / 2)

    def _run(self) -> None:
        while (record := self._waiting.get()) is not None:
            records, last = self._more(record)
            for each in records:
                self._make_spans(each)
            spans, self._gatherer.spans = self._gatherer.spans, []
            self._export(spans)
            if last:
                return

    def _more(self, first: BatchRecord) -> tuple[list[BatchRecord], bool]:
        """Return this record and those behind it, and whether the end is among them."""
        records = [first]
        while len(records) < BATCHES_AT_ONCE:
            try:
                record = self._waiting.get_nowait()
            except queue.Empty:
                break
            if record is None:
                return records, True
            records.append(record)
        return records, False

    def _export(self, spans: "Sequence[ReadableSpan]") -> None:
        try:
            result = self._exporter.export(spans)
        except Exception:  # whatever an exporter raises concerns the traces alone
            log.exception("an export of traces failed")
            self._tell(arrives=False)
        else:
            self._tell(arrives=result.name == "SUCCESS")

    def _tell(self, *, arrives: bool) -> None:
        """Log when the collector is lost and when it is back."""
        if arrives == self._arrives:
            return
        self._arrives = arrives
        if arrives:
            log.info("traces arrive at the collector again")
        else:
            log.warning("traces do not arrive at the collector and are left out; serving goes on")

    # ---- spans ----------------------------------------------------------------------------------

    def _make_spans(self, record: BatchRecord) -> None:
        """Make the span of a batch with its stages, and a trace of each frame that points to it."""
        from opentelemetry.trace import Link

        self._epoch_s = time.time() - time.monotonic()
        first = max(record.frames, key=lambda frame: frame.encoded_s or 0.0)
        facts: dict[str, str | int] = {
            "ovoad.encoder": self._encoder,
            "ovoad.batch_size": record.size,
        }
        batch = self._start("batch", first.taken_s, facts)
        self._make_stages(batch, first)
        batch.end(self._ns(first.answered_s))
        links = [Link(batch.get_span_context())]
        for frame in record.frames:
            self._make_frame(frame, facts, links)

    def _make_frame(self, frame: FrameRecord, facts: dict[str, str | int], links: Any) -> None:
        from opentelemetry.trace import StatusCode

        span = self._start(
            "frame", frame.received_s, {**facts, "ovoad.scorer": frame.scorer}, links=links
        )
        if frame.code is not None:
            span.set_attribute("ovoad.error", frame.code)
            span.set_status(StatusCode.ERROR)
        self._make_stage(span, "queue", frame.received_s, frame.taken_s)
        self._make_stages(span, frame)
        span.end(self._ns(frame.answered_s))

    def _make_stages(self, parent: "Span", frame: FrameRecord) -> None:
        for name, began_s, ended_s in _stages(frame):
            self._make_stage(parent, name, began_s, ended_s)

    def _make_stage(self, parent: "Span", name: str, began_s: float, ended_s: float) -> None:
        self._start(name, began_s, {}, parent=parent).end(self._ns(ended_s))

    def _start(
        self,
        name: str,
        began_s: float,
        facts: dict[str, str | int],
        *,
        parent: "Span | None" = None,
        links: Any = (),
    ) -> "Span":
        from opentelemetry.context import Context
        from opentelemetry.trace import set_span_in_context

        context = Context() if parent is None else set_span_in_context(parent, Context())
        return self._tracer.start_span(
            name, context, attributes=facts, links=links, start_time=self._ns(began_s)
        )

    def _ns(self, at_s: float) -> int:
        return int((self._epoch_s + at_s) * 1e9)


def _stages(frame: FrameRecord) -> Iterator[tuple[str, float, float]]:
    """Return name, begin and end of each stage that a frame went through.

    Decoding and encoding end where their batch came back; scoring likewise. What lies between is
    the way to the worker and waiting there.
    """
    if frame.encoded_s is None:
        return
    encode_s = frame.encoded_s - frame.encode_ms / 1000
    yield "decode", encode_s - frame.decode_ms / 1000, encode_s
    yield "encode", encode_s, frame.encoded_s
    if frame.scored_s is not None:
        yield "score", frame.scored_s - frame.score_ms / 1000, frame.scored_s


def open_exporter(endpoint: str) -> "SpanExporter":
    """Make what sends spans by OTLP over HTTP; raises MissingTracingError.

    An address without a path gets the usual one. OpenTelemetry's own variables, such as
    OTEL_EXPORTER_OTLP_HEADERS, hold too.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise MissingTracingError from error
    parts = urlsplit(endpoint)
    if parts.path in ("", "/"):
        endpoint = urlunsplit(parts._replace(path="/v1/traces"))
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # we say so, once
    return OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_TIMEOUT_S)
