"""Log lines: for people, or one JSON object each."""

import json
import logging
import subprocess
import sys

import pytest

from ovoad_server.logs import JsonFormatter

SCRIPT = """
import logging, warnings
from ovoad_server.logs import configure_logs
configure_logs({log_format!r})
log = logging.getLogger("ovoad_server.part")
log.debug("not told")
log.info("two\\nlines of %s", "text")
warnings.warn("a library is old")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("it failed")
"""


def logged(log_format: str) -> list[str]:
    """Return the lines that a process logs to standard error."""
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(log_format=log_format)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert result.stdout == ""
    return result.stderr.splitlines()


def test_every_line_is_one_json_object() -> None:
    first, second, third = (json.loads(line) for line in logged("json"))
    assert (first["level"], first["logger"]) == ("info", "ovoad_server.part")
    assert first["message"] == "two\nlines of text"
    assert "exception" not in first
    assert (second["level"], second["logger"]) == ("warning", "py.warnings")
    assert "a library is old" in second["message"]
    assert (third["level"], third["message"]) == ("error", "it failed")
    assert third["exception"].endswith("ZeroDivisionError: division by zero")


def test_lines_for_people_have_time_level_and_logger() -> None:
    lines = logged("text")
    assert lines[0].endswith(" INFO ovoad_server.part two")
    assert lines[-1] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize("text", ["umlaut ü", 'quote "', "tab\t", "\x00", "\ud800"])
def test_whatever_is_logged_is_json_and_can_be_encoded(text: str) -> None:
    record = logging.LogRecord("a", logging.INFO, "", 0, "%s", (text,), None)
    line = JsonFormatter().format(record)
    assert json.loads(line)["message"] == text
    assert "\n" not in line
    line.encode()


def test_time_is_utc_in_milliseconds() -> None:
    record = logging.LogRecord("a", logging.INFO, "", 0, "", (), None)
    record.created, record.msecs = 1_795_425_563.108, 108.9
    assert json.loads(JsonFormatter().format(record))["time"] == "2026-11-23T09:19:23.108Z"
