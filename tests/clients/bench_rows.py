"""Made-up rows of a bench, for tests."""

from typing import Any

from ovoad_client.bench.answers import Tally
from ovoad_client.bench.result import Row
from ovoad_client.bench.samples import STAGES
from ovoad_client.bench.statistics import Percentiles


def make_row(sessions: int = 1, *, p99_ms: float = 30.0, **changes: Any) -> Row:
    """Return a plausible row."""
    times = Percentiles(10.0, 20.0, p99_ms)
    fields: dict[str, Any] = {
        "sessions": sessions,
        "fps": 4.0,
        "policy": "realtime",
        "inflight": None,
        "seconds": 10.0,
        "opened": sessions,
        "refused": {},
        "predictions": 40 * sessions,
        "frames_per_s": 4.0 * sessions,
        "stages_ms": {stage: times for stage in STAGES},
        "dropped": {},
        "errors": {},
        "generator_cpu": 0.02,
        "late_ms_p99": 0.5,
        "server_cpu_ms": None,
        "tally": Tally(sessions=sessions, sent=40 * sessions, answered=40 * sessions),
    }
    return Row(**{**fields, **changes})
