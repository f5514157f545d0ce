"""Prometheus metrics of one server, in a registry of its own. No per-session label."""

from dataclasses import dataclass
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from ovoad_server.engine.batches import BatchRecord
from ovoad_server.engine.replies import Dropped, Failed, Reply, Scored

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
_FRAMES = (1, 2, 4, 8, 16, 32, 64)


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
                for stage in ("queue", "decode", "encode", "score", "total"):
                    self.stage.labels(stage).observe(getattr(timing, stage) / 1000)
            case Dropped():
                self.dropped.labels(reply.reason).inc()
            case Failed():
                self.failed.labels(reply.code).inc()
            case _:
                self.events.labels(reply.kind).inc()
