"""Prometheus metrics of one server, in a registry of its own. No per-session label."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
)

from ovoad_server.engine.batches import BatchRecord
from ovoad_server.engine.replies import Dropped, DropReason, Failed, Reply, Scored

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_FRAMES = (1, 2, 4, 8, 16, 32, 64)
_STAGES: Final = ("queue", "decode", "encode", "score", "total")
_REFUSALS: Final = ("capacity", "unauthorised", "origin", "restarting", "bad_vocabulary")
_ENDS: Final = ("closed by client", "lost", "idle", "expired", "restart", "internal")
_FAILURES: Final = ("internal", "bad_frame", "bad_image", "image_too_large", "out_of_order")


@dataclass(frozen=True)
class ServerState:
    """What a scrape finds outside the counters."""

    active: int
    parked: int
    slots: int
    slots_used: int
    waiting: int
    capacity_fps: float
    batch_limit: int
    heartbeat_age_s: float
    text_hits: int
    text_misses: int


class Metrics:
    """Counts what the server does; read at /metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self.model = Info("ovoad_model", "what answers", registry=self.registry)

        self.sessions = counter("ovoad_sessions", "sessions opened")
        self.rejected = counter("ovoad_sessions_rejected", "connections refused", ["reason"])
        self.ended = counter("ovoad_sessions_ended", "sessions ended", ["reason"])
        self.resumed = counter("ovoad_sessions_resumed", "sessions gone on with")
        self.sessions_active = gauge("ovoad_sessions_active", "open sessions")
        self.parked = gauge(
            "ovoad_sessions_parked", "sessions whose connection broke and that can be resumed"
        )

        self.received = counter("ovoad_frames_received", "frames received")
        self.predicted = counter("ovoad_frames_predicted", "frames answered by scores")
        self.dropped = counter("ovoad_frames_dropped", "frames dropped", ["reason"])
        self.failed = counter("ovoad_frames_failed", "frames answered by errors", ["code"])
        self.waiting = gauge("ovoad_frames_waiting", "frames in all mailboxes")
        self.events = counter("ovoad_events", "events sent", ["kind"])
        self.stage = histogram(
            "ovoad_stage_seconds", "time of a frame by stage", ["stage"], buckets=_SECONDS
        )
        self.batch = histogram("ovoad_batch_frames", "frames in a batch", buckets=_FRAMES)

        self.slots = gauge(
            "ovoad_slots", "sessions that there may be, by the settings and the measured cost"
        )
        self.slots_used = gauge("ovoad_slots_used", "slots taken")
        self.capacity = gauge(
            "ovoad_capacity_frames_per_second",
            "frames a second, by what batches were seen to cost",
        )
        self.batch_limit = gauge("ovoad_batch_limit_frames", "the most frames in a batch now")
        self.worker_lost = counter("ovoad_worker_lost", "workers that died or hung", ["how"])
        self.heartbeat = gauge(
            "ovoad_worker_heartbeat_age_seconds",
            "time since the worker last showed that it gets on",
        )
        self.text_hits = gauge("ovoad_text_cache_hits", "texts found in the cache")
        self.text_misses = gauge("ovoad_text_cache_misses", "texts embedded anew")
        self.clips = gauge("ovoad_clips_active", "clips under way, those being uploaded too")
        self.clip_bytes = gauge("ovoad_clip_spool_bytes", "bytes on disk of clips under way")

        self.ready = gauge("ovoad_ready", "1 while the model answers right, as /readyz tells")
        self.faults = counter(
            "ovoad_faults", "connections and requests that a fault of the server ended", ["where"]
        )
        self.sessions_limit = gauge("ovoad_sessions_limit", "sessions that the settings allow")
        self.promised = gauge(
            "ovoad_promised_frames_per_second",
            "frames a second that each session can count on, 0 for no promise",
        )
        self.latency_budget = gauge(
            "ovoad_latency_budget_seconds", "time that a frame may take under load"
        )
        self.keys = gauge("ovoad_keys", "API keys that are valid")
        self.key_failures = counter(
            "ovoad_key_failures", "connections and requests without a valid API key", ["reason"]
        )
        self.key_answers_waiting = gauge(
            "ovoad_key_answers_waiting", "answers to wrong API keys that are held back"
        )
        self.keys_file_errors = counter(
            "ovoad_keys_file_errors", "times that the keys file could not be read anew"
        )
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Export what is known beforehand: a series that begins at 1 has no increase to alert on.

        Other values of these labels begin when they come.
        """
        for counter, values in (
            (self.rejected, _REFUSALS),
            (self.ended, _ENDS),
            (self.dropped, get_args(DropReason)),
            (self.failed, _FAILURES),
            (self.events, ("start", "end")),
            (self.worker_lost, ("died", "hung")),
            (self.faults, ("stream", "http")),
            (self.key_failures, ("missing", "malformed", "unknown")),
        ):
            for value in values:
                counter.labels(value)
        for stage in _STAGES:
            self.stage.labels(stage)

    def watch_processes(self, worker_pid: Callable[[], int | None]) -> None:
        """Export memory, processor time and open files: process_* and ovoad_worker_process_*.

        Those of the worker are left out while there is none. Linux alone has them.
        """
        ProcessCollector(registry=self.registry)
        ProcessCollector("ovoad_worker", pid=lambda: worker_pid() or 0, registry=self.registry)

    def refresh(self, state: "ServerState") -> None:
        """Take what is counted elsewhere, before a scrape."""
        self.sessions_active.set(state.active)
        self.parked.set(state.parked)
        self.slots.set(state.slots)
        self.slots_used.set(state.slots_used)
        self.waiting.set(state.waiting)
        self.capacity.set(state.capacity_fps)
        self.batch_limit.set(state.batch_limit)
        self.heartbeat.set(state.heartbeat_age_s)
        self.text_hits.set(state.text_hits)
        self.text_misses.set(state.text_misses)

    def observe_loss(self, reason: str) -> None:
        """Count a worker that was lost."""
        self.worker_lost.labels("hung" if reason.startswith("hung") else "died").inc()

    def observe_batch(self, record: BatchRecord) -> None:
        """Note the size of a batch."""
        self.batch.observe(record.size)

    def observe_reply(self, reply: Reply) -> None:
        """Count one answer or event."""
        match reply:
            case Scored():
                self.predicted.inc()
                timing = reply.timing
                for stage in _STAGES:
                    self.stage.labels(stage).observe(getattr(timing, stage) / 1000)
            case Dropped():
                self.dropped.labels(reply.reason).inc()
            case Failed():
                self.failed.labels(reply.code).inc()
            case _:
                self.events.labels(reply.kind).inc()
