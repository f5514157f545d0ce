"""One row of an archive's results: a video, its scores or why there are none. Knows no files."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa

from ovoad_model.archive.decoder_link import Header
from ovoad_model.archive.errors import BadCode
from ovoad_model.archive.events import find_actions
from ovoad_model.archive.scoring import VideoScores
from ovoad_model.archive.settings import ArchiveSettings
from ovoad_model.archive.sources import Video
from ovoad_model.arrays import Float32Array
from ovoad_model.detector import DetectorFacts
from ovoad_model.vocabulary import Vocabulary

WHOLE: Final = 0.9  # of the header's length; a file with less of it was cut short

_ACTION: Final = pa.struct(
    [
        ("label", pa.string()),
        ("start_ms", pa.int64()),
        ("end_ms", pa.int64()),
        ("peak_probability", pa.float32()),
    ]
)
SCHEMA: Final = pa.schema(
    [
        ("path", pa.string()),
        ("bytes", pa.int64()),
        ("modified_ns", pa.int64()),
        ("status", pa.string()),  # ok, bad
        ("error_code", pa.string()),
        ("error", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("duration_ms", pa.int64()),
        ("complete", pa.bool_()),
        ("frames", pa.int32()),  # T
        ("labels", pa.list_(pa.string())),  # [C]
        ("timestamps_ms", pa.list_(pa.int64())),  # [T]
        ("probabilities", pa.list_(pa.list_(pa.float32()))),  # [T][C]
        ("background", pa.list_(pa.float32())),  # [T]
        ("similarities", pa.list_(pa.list_(pa.float32()))),  # [T][C]
        ("events", pa.list_(_ACTION)),
        ("warnings", pa.list_(pa.string())),
        ("encoder", pa.string()),
        ("scorer", pa.string()),
        ("fingerprint", pa.string()),
        ("settings", pa.string()),
        ("seconds", pa.float64()),
        ("scored_at", pa.timestamp("ms", tz="UTC")),
    ]
)
"""The columns of the results; docs/archives.md says what each holds."""


@dataclass(frozen=True)
class Maker:
    """Who makes the rows: settings, their digest, model and words."""

    settings: ArchiveSettings
    digest: str
    facts: DetectorFacts
    vocabulary: Vocabulary

    def scored(self, video: Video, header: Header, scores: VideoScores, took_s: float) -> pa.Table:
        """Make the row of a video with its scores."""
        settings = self.settings
        last_ms = scores.timestamps_ms[-1] + 1000 / settings.fps  # the last frame's own time ends
        complete = header.duration_ms is None or last_ms >= WHOLE * header.duration_ms
        cut = f"the file ends at {last_ms / 1000:.1f} s of {(header.duration_ms or 0) / 1000:.1f} s"
        keep = settings.per_frame
        times = pa.array([scores.timestamps_ms], pa.list_(pa.int64()))
        labels = self.vocabulary.labels
        actions = find_actions(scores.timestamps_ms, scores.probabilities, labels, settings.events)
        return self._row(
            video,
            took_s,
            status="ok",
            width=header.width,
            height=header.height,
            duration_ms=header.duration_ms,
            complete=complete,
            frames=len(scores.timestamps_ms),
            timestamps_ms=None if keep == "none" else times,
            probabilities=None if keep == "none" else _nested(scores.probabilities),
            background=None if keep == "none" else _flat(scores.background),
            similarities=_nested(scores.similarities) if keep == "all" else None,
            events=[asdict(action) for action in actions],
            warnings=[*self.vocabulary.warnings, *([] if complete else [cut])],
        )

    def bad(self, video: Video, code: BadCode, text: str, took_s: float) -> pa.Table:
        """Make the row of a video without scores."""
        return self._row(video, took_s, status="bad", error_code=code, error=text)

    def _row(self, video: Video, took_s: float, **members: Any) -> pa.Table:
        """Make a table of one row; members that are no arrays yet become one."""
        members |= {
            "path": video.path,
            "bytes": video.bytes,
            "modified_ns": video.modified_ns,
            "labels": list(self.vocabulary.labels),
            "encoder": self.facts.encoder,
            "scorer": self.vocabulary.scorer,
            "fingerprint": self.facts.fingerprint,
            "settings": self.digest,
            "seconds": took_s,
            "scored_at": datetime.now(UTC),
        }
        columns = []
        for column in SCHEMA:
            value = members.get(column.name)
            made = isinstance(value, pa.Array)
            columns.append(value if made else pa.array([value], column.type))
        return pa.Table.from_arrays(columns, schema=SCHEMA)


def _flat(values: Float32Array) -> pa.Array:
    """[T] as one list."""
    return pa.ListArray.from_arrays([0, len(values)], pa.array(values))


def _nested(values: Float32Array) -> pa.Array:
    """[T, C] as one list of T lists."""
    count, width = values.shape
    offsets = pa.array(np.arange(count + 1) * width, pa.int32())  # raises where they do not fit
    frames = pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1)))
    return pa.ListArray.from_arrays([0, count], frames)
