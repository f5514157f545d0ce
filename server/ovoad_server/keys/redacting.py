"""Take keys out of texts that are logged or told, whoever wrote them. Knows no server.

Our own code writes no key. Libraries may: at debug level they print handshakes and addresses.
"""

import logging
import re
from collections.abc import Sequence
from typing import Final

from ovoad_server.keys.secret import PREFIX

HIDDEN: Final = "[hidden]"
LEAST_SECRET: Final = 8  # characters; hiding shorter ones would tear words apart
_PATTERNS: Final = (
    re.compile(r"(?i)(\bbearer\s+)[^\s'\",\]]+"),
    re.compile(r"(?i)((?:authorization|cookie|sec-websocket-protocol)\b['\"]?[:,=]\s*).+"),
    re.compile(r"(\bovoad\.key\.)[A-Za-z0-9_\-=]+"),
    re.compile(r"(\b(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|WebSocket) [^\s?]*\?)[^\s'\"]+"),
    re.compile(rf"()\b{PREFIX}[A-Za-z0-9_-]{{32,}}"),
)


def redact(text: str) -> str:
    """Return a text without what looks like a key, a header that carries one, or a query."""
    for pattern in _PATTERNS:
        text = pattern.sub(rf"\1{HIDDEN}", text)
    return text


class RedactingFilter(logging.Filter):
    """Redacts every record of a handler; `secrets` are hidden wherever they stand."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        super().__init__()
        self._secrets = [secret for secret in secrets if len(secret) >= LEAST_SECRET]

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the record pass, its text redacted, and that of its exception."""
        try:
            text = record.getMessage()
        except (TypeError, ValueError):  # a library's mistake, which logging itself reports
            return True
        clean = self._clean(text)
        if clean != text:
            record.msg, record.args = clean, None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            record.exc_text = self._clean(record.exc_text)
        return True

    def _clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return redact(text)
