"""What a bench found, as records that turn into JSON. Knows no connection."""

import json
import math
import os
import platform
from dataclasses import asdict, dataclass, field
from statistics import mean, median
from typing import Any

from ovoad_client.bench.answers import Tally
from ovoad_client.bench.samples import MODEL_STAGES
from ovoad_client.bench.statistics import Percentiles
from ovoad_client.protocol import Policy


@dataclass(frozen=True)
class Row:
    """One load: so many sessions at fps frames/s each (0: as fast as answers come).

    frames_per_s counts predictions; stages_ms has the server's queue, decode, encode, score and
    total, and "end to end" as the client saw it, from the time a frame was due. opened may be less
    than sessions: refused says by which error code. generator_cpu is the processor time of the
    generator over the time (1 = one core); late_ms_p99 how late it sent. server_cpu_ms is the
    processor time of the server per prediction, None where the server is not the bench's own.
    bare_fps, bare_ms: of the bare model before the load and after it, where it was measured: its
    best frames/s, the median of one frame.
    """

    sessions: int
    fps: float
    policy: Policy
    inflight: int | None
    seconds: float
    opened: int
    refused: dict[str, int]
    predictions: int
    frames_per_s: float
    stages_ms: dict[str, Percentiles]
    dropped: dict[str, int]
    errors: dict[str, int]
    generator_cpu: float
    late_ms_p99: float
    server_cpu_ms: float | None
    tally: Tally
    bare_fps: tuple[float, ...] = ()
    bare_ms: tuple[float, ...] = ()

    @property
    def end_to_end(self) -> Percentiles:
        """Milliseconds from the time a frame was due to its prediction at the client."""
        return self.stages_ms["end to end"]

    @property
    def asked(self) -> str:
        """The load in words: 8 sessions x 4 frames/s, realtime."""
        pace = f"{self.fps:g} frames/s" if self.fps else "as fast as answers come"
        return f"{self.sessions} sessions x {pace}, {self.policy}"


@dataclass(frozen=True)
class Baseline:
    """The bare model in one process, as `python -m ovoad_model.baseline` tells it.

    encode_score_fps and decode_encode_score_fps: frames/s by batch size. bare_ms: median
    milliseconds of one frame at batch 1: decode, encode, score, total. reencode_fps: predictions/s
    where each encodes its last N frames again.
    """

    encode_score_fps: dict[int, float]
    decode_encode_score_fps: dict[int, float]
    bare_ms: dict[str, float]
    reencode_fps: dict[int, float]

    @property
    def best_batch(self) -> int:
        """The batch size with the most frames/s."""
        return max(self.encode_score_fps, key=lambda batch: self.encode_score_fps[batch])

    @property
    def best_fps(self) -> float:
        """Frames/s of encoder and scorer at the best batch size."""
        return self.encode_score_fps[self.best_batch]


@dataclass(frozen=True)
class Capacity:
    """The most sessions that stay inside the budget, and the loads that were tried."""

    sessions: int
    fps: float
    policy: Policy
    budget_ms: float
    reason: str  # why one step more was too much


@dataclass
class Report:
    """All that a run of the bench found."""

    title: str
    rows: list[Row] = field(default_factory=list)
    baselines: list[Baseline] = field(default_factory=list)
    one_at_a_time: list[Row] = field(default_factory=list)  # one session, one frame in flight
    capacities: list[Capacity] = field(default_factory=list)
    interrupted: bool = False

    def tally(self) -> Tally:
        """Every frame of all rows."""
        tally = Tally()
        for row in [*self.rows, *self.one_at_a_time]:
            tally.merge(row.tally)
        return tally

    @property
    def added_ms(self) -> float | None:
        """Median end to end of one frame at a time less the bare one's before and after it.

        The median over the turns.
        """
        turns = [
            row.end_to_end.p50 - mean(row.bare_ms) for row in self.one_at_a_time if row.bare_ms
        ]
        return median(turns) if turns else None

    @property
    def beside_ms(self) -> float | None:
        """Of one frame at a time, what is not its own decoding, encoding and scoring: medians.

        The median over the turns. A machine that is slower while it serves does not show in it.
        """
        turns = [
            row.end_to_end.p50 - sum(row.stages_ms[stage].p50 for stage in MODEL_STAGES)
            for row in self.one_at_a_time
        ]
        return median(turns) if turns else None

    def to_json(self) -> str:
        """Return everything as JSON; what could not be measured is null."""
        found: dict[str, Any] = {"machine": describe_machine(), **asdict(self)}
        found["added_ms"] = self.added_ms
        found["beside_ms"] = self.beside_ms
        found["every_frame_answered_once"] = not self.tally().complaints
        return json.dumps(_without_nan(found), indent=1) + "\n"


def describe_machine() -> str:
    """Return what the figures were measured on: processor, cores, system, Python."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            models = [line.partition(":")[2].strip() for line in file if "model name" in line]
        name = models[0] if models else name
    except OSError:
        pass
    return (
        f"{name}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    )


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: null stands for what could not be measured."""
    if isinstance(value, dict):
        return {str(key): _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
