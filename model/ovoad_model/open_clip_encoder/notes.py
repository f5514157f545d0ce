"""What runtimes took on this machine, kept in CACHE/encoders/trials.json. Knows no torch.

One entry a machine and encoder: its name, and the milliseconds of a frame by runtime, one by one
and in batches.
"""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

LOGGER: Final = logging.getLogger(__name__)
FILE: Final = "trials.json"


@dataclass(frozen=True)
class Trial:
    """Measured times of one encoder on one machine, ms a frame.

    times_ms: of single frames; batch_ms: of a frame in a batch, for runtimes that had a chance.
    """

    encoder: str
    times_ms: Mapping[str, float]
    batch_ms: Mapping[str, float] = field(default_factory=dict)

    @property
    def fastest(self) -> str:
        """The runtime that is nowhere far behind: least in its worse ratio to the best."""
        return min(self.times_ms, key=self.behind)

    def behind(self, name: str) -> float:
        """Times the best one's time, single or in batches, whichever is worse."""
        ratio = self.times_ms[name] / min(self.times_ms.values())
        if not self.batch_ms:
            return ratio
        least = min(self.batch_ms.values())
        return max(ratio, self.batch_ms.get(name, float("inf")) / least)


def default_cache() -> Path:
    """The folder for caches where none is named: the server's setting, or its default."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("OVOAD_CACHE") or f"{caches}/ovoad").expanduser()


def read_trials(cache: Path) -> dict[str, Trial]:
    """Read all trials; damaged notes are none."""
    try:
        members: Any = json.loads((cache / "encoders" / FILE).read_text(encoding="utf-8"))
        return {
            str(key): Trial(
                str(entry["encoder"]),
                _times(entry["times_ms"]),
                _times(entry.get("batch_ms", {})),
            )
            for key, entry in members.items()
            if entry["times_ms"]
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def write_trial(cache: Path, key: str, trial: Trial) -> None:
    """Add a trial; where nothing can be written, the next start measures again."""
    entries = read_trials(cache) | {key: trial}
    members = {
        key: {
            "encoder": each.encoder,
            "times_ms": dict(each.times_ms),
            "batch_ms": dict(each.batch_ms),
        }
        for key, each in entries.items()
    }
    path = cache / "encoders" / FILE
    unfinished = path.with_suffix(f".{os.getpid()}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(members, indent=2) + "\n", encoding="utf-8")
        os.replace(unfinished, path)
    except OSError as error:
        LOGGER.warning("trial notes %s: cannot be written (%s)", path, error)


def _times(members: Any) -> dict[str, float]:
    times = {str(name): float(time_ms) for name, time_ms in members.items()}
    if not all(time_ms > 0 for time_ms in times.values()):
        raise ValueError("a time that is not above 0")
    return times
