"""Keys from files: what the settings take, and that no key is told in an error or a log."""

import io
import logging
from pathlib import Path

import pytest
from pydantic import ValidationError

from ovoad_server import logs
from ovoad_server.keys.redacting import HIDDEN, RedactingFilter, redact
from ovoad_server.keys.secret import generate_key
from ovoad_server.settings import Settings

from .key_parts import key, keys_file


def reason(**fields: object) -> str:
    """Return why settings are refused."""
    with pytest.raises(ValidationError) as refused:
        Settings(**fields)  # type: ignore[arg-type]
    return str(refused.value.errors(include_url=False)[0]["msg"])


def test_one_key_may_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "api_key"
    secret.write_text("correct-horse\n")
    monkeypatch.setenv("OVOAD_API_KEY_FILE", str(secret))
    settings = Settings(host="0.0.0.0")
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "correct-horse"
    monkeypatch.setenv("OVOAD_API_KEY", "another")
    assert reason() == (
        "Value error, found OVOAD_API_KEY and OVOAD_API_KEY_FILE, expected one of them"
    )


@pytest.mark.parametrize("content", ["", "\n", "two words\n", "two\nlines\n"])
def test_file_that_holds_no_key_is_told(tmp_path: Path, content: str) -> None:
    secret = tmp_path / "api_key"
    secret.write_text(content)
    assert reason(api_key_file=secret) == (
        "Value error, found an API key that is empty or has blanks, expected printable ASCII "
        "without any"
    )
    assert reason(api_key_file=tmp_path / "nothing") == (
        f"Value error, cannot read {tmp_path / 'nothing'}: no such file or directory"
    )


def test_file_of_keys_lets_a_server_bind_beyond_loopback(tmp_path: Path) -> None:
    assert reason(host="0.0.0.0").startswith("Value error, found host 0.0.0.0 without an API key")
    path = keys_file(tmp_path, key("door", "a"))
    assert Settings(host="0.0.0.0", keys_file=path).host == "0.0.0.0"


# ---- what is logged ------------------------------------------------------------------------------

SECRET = generate_key()


@pytest.mark.parametrize(
    "text",
    [
        f"< Authorization: Bearer {SECRET}",
        "< authorization: Basic b3ZvYWQ6c2VjcmV0",
        f"< GET /v1/stream?api_key={SECRET}&x=1 HTTP/1.1",
        "< GET /v1/stream?token=made-elsewhere HTTP/1.1",
        "< Sec-WebSocket-Protocol: ovoad.v1, ovoad.key.Y29ycmVjdC1ob3JzZQ",
        f'< TEXT \'{{"type": "session.create", "key": "{SECRET}"}}\'',
        "{'authorization': 'Bearer made-elsewhere', 'host': 'x'}",
        "< Cookie: session=abc",
        f"found {SECRET} in the wrong place",
    ],
)
def test_what_carries_a_key_is_hidden(text: str) -> None:
    clean = redact(text)
    assert HIDDEN in clean
    for secret in (SECRET, "made-elsewhere", "b3ZvYWQ6c2VjcmV0", "Y29ycmVjdC1ob3JzZQ", "abc"):
        assert secret not in clean


@pytest.mark.parametrize(
    "text",
    [
        "the keys file was read anew, 3 keys are valid",
        "ovoad_server listening on http://127.0.0.1:8000",
        "ovoad_worker_heartbeat_age_seconds is 3",
        "GET /v1/config answered 200",
    ],
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_records_and_their_exceptions_are_redacted(
    log_format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", logging.INFO)
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", written)
    uvicorn_level = logging.getLogger("uvicorn.error").level
    monkeypatch.setattr(logging, "captureWarnings", lambda capture: None)
    try:
        logs.configure_logs(log_format)
        logs.hide_in_logs(["correct-horse"])
        try:
            raise RuntimeError(f"bad header Authorization: Bearer {SECRET}")
        except RuntimeError:
            logging.getLogger("x").exception("failed with %s and %s", SECRET, "correct-horse")
    finally:
        logging.getLogger("uvicorn.error").setLevel(uvicorn_level)
    text = written.getvalue()
    assert "RuntimeError" in text
    assert text.count(HIDDEN) >= 3
    assert SECRET not in text
    assert "correct-horse" not in text


def test_short_texts_are_not_torn_out_of_words() -> None:
    record = logging.LogRecord("x", logging.INFO, "x", 1, "a key is a key", None, None)
    assert RedactingFilter(["a"]).filter(record)
    assert record.getMessage() == "a key is a key"


def test_handshakes_are_not_printed_at_debug_level(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", logging.INFO)
    uvicorn = logging.getLogger("uvicorn.error")
    level = uvicorn.level
    monkeypatch.setattr(logging, "captureWarnings", lambda capture: None)
    try:
        logs.configure_logs("text")
        root.setLevel(logging.DEBUG)
        assert not uvicorn.isEnabledFor(logging.DEBUG)
    finally:
        uvicorn.setLevel(level)
