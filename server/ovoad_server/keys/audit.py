"""One line for each session that has ended, clips too: who, when, how much, why; no content.

The logger `ovoad_server.audit` has them at level INFO, as name=value with JSON's quotes where a
value has blanks. No label, no frame, no key.
"""

import json
import logging
import time
from dataclasses import dataclass, field
from typing import Literal

from ovoad_client import protocol
from ovoad_server.engine.session import Counts
from ovoad_server.keys.checking import Caller

log = logging.getLogger("ovoad_server.audit")


@dataclass(frozen=True)
class AuditEntry:
    """What is known of a session when it begins; times are the machine's clock, UTC."""

    kind: Literal["stream", "clip"]
    session_id: str
    model: protocol.ModelInfo
    policy: protocol.Policy
    began_s: float = field(default_factory=time.time)
    began_monotonic_s: float = field(default_factory=time.monotonic)

    def write(self, caller: Caller, counts: Counts, reason: str) -> None:
        """Log the session's one line."""
        whole_s = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.began_s))
        facts: dict[str, str | int] = {
            "kind": self.kind,
            "key": caller.key_name or "-",
            "session_id": self.session_id,
            "address": caller.address,
            "encoder": self.model.encoder,
            "scorer": self.model.scorer,
            "policy": self.policy,
            "start": f"{whole_s}.{int(self.began_s % 1 * 1000):03d}Z",
            "duration_s": f"{time.monotonic() - self.began_monotonic_s:.3f}",
            "received": counts.received,
            "predicted": counts.predicted,
            **{f"dropped_{why}": count for why, count in counts.dropped.items()},
            "errors": counts.errors,
            "reason": reason,
        }
        log.info("%s", " ".join(f"{name}={_value(value)}" for name, value in facts.items()))


def _value(value: str | int) -> str:
    text = str(value)
    plain = text and all("!" <= character <= "~" and character not in '"=' for character in text)
    return text if plain else json.dumps(text)
