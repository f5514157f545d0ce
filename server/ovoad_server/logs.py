"""How the server and its worker log: lines for people, or one JSON object a line for programs."""

import json
import logging
import time
from collections.abc import Sequence
from typing import Literal

from ovoad_server.keys.redacting import RedactingFilter

LogFormat = Literal["text", "json"]
_TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"


class JsonFormatter(logging.Formatter):
    """One JSON object a record: time (UTC, RFC 3339), level, logger, message, exception if any."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line."""
        whole_s = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry = {
            "time": f"{whole_s}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["exception"] = record.exc_text or self.formatException(record.exc_info)
        return json.dumps(entry)  # ASCII: whatever encoding standard error has


def configure_logs(log_format: str) -> None:
    """Send all records of level INFO and above, warnings too, to standard error in this format."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else logging.Formatter(_TEXT))
    handler.addFilter(RedactingFilter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    # Whatever level others set: below this one it prints handshakes and messages, keys and words.
    logging.getLogger("uvicorn.error").setLevel(logging.INFO)


def hide_in_logs(secrets: Sequence[str]) -> None:
    """Keep these texts out of all records from now on."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(RedactingFilter(secrets))
