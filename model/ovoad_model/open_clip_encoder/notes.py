"""What runtimes took on this machine, kept in CACHE/encoders/trials.json. Knows no torch.

One entry a machine and encoder: its name and the milliseconds of a frame by runtime.
"""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

LOGGER: Final = logging.getLogger(__name__)
FILE: Final = "trials.json"


@dataclass(frozen=True)
class Trial:
    """Measured times of one encoder on one machine."""

    encoder: str
    times_ms: Mapping[str, float]

    @property
    def fastest(self) -> str:
        """The runtime that took the least."""
        return min(self.times_ms, key=self.times_ms.__getitem__)


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
                str(entry["encoder"]), {str(n): float(ms) for n, ms in entry["times_ms"].items()}
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
        key: {"encoder": each.encoder, "times_ms": dict(each.times_ms)}
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
