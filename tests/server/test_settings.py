"""Settings: defaults, names in the environment, what is refused, keys that stay secret."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from ovoad_server.settings import Settings, default_cache


def refusal(**given: object) -> str:
    with pytest.raises(ValidationError) as caught:
        Settings(**given)  # type: ignore[arg-type]
    return str(caught.value.errors()[0]["msg"])


def test_defaults_are_safe() -> None:
    settings = Settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.api_key is None
    assert not settings.allow_anonymous
    assert settings.allowed_origins == ()
    assert (settings.encoder, settings.scorer, settings.weights) == ("embedded", None, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_host_beyond_loopback_needs_a_key(host: str) -> None:
    assert refusal(host=host) == (
        f"Value error, found host {host} without an API key, expected OVOAD_API_KEY or "
        "OVOAD_KEYS_FILE to be set (or OVOAD_ALLOW_ANONYMOUS=true to let anyone in)"
    )
    assert Settings(host=host, api_key="key").host == host  # type: ignore[arg-type]
    assert Settings(host=host, allow_anonymous=True).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    assert Settings(host=host).api_key is None


@pytest.mark.parametrize("key", ["", " ", "\n", "two words", "key\n", "schlüssel"])
def test_key_that_no_header_can_carry_is_refused(key: str) -> None:
    message = "found an API key that is empty or has blanks, expected printable ASCII without any"
    assert refusal(api_key=key) == f"Value error, {message}"


def test_empty_key_in_the_environment_is_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVOAD_API_KEY", "")
    assert Settings().api_key is None
    assert "without an API key" in refusal(host="0.0.0.0")


def test_environment_names_every_field(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "HOST": "::1",
        "PORT": "9000",
        "API_KEY": "secret",
        "ALLOWED_ORIGINS": '["https://a.example"]',
        "MAX_SESSIONS": "3",
        "MAX_FPS": "12.5",
        "IDLE_TIMEOUT_S": "1.5",
        "CACHE": "/somewhere",
    }.items():
        monkeypatch.setenv(f"OVOAD_{name}", value)
    settings = Settings()
    assert (settings.host, settings.port) == ("::1", 9000)
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "secret"
    assert settings.allowed_origins == ("https://a.example",)
    assert (settings.max_sessions, settings.max_fps, settings.idle_timeout_s) == (3, 12.5, 1.5)
    assert settings.cache == Path("/somewhere")


def test_argument_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVOAD_PORT", "9000")
    assert Settings(port=9001).port == 9001


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"port": 70_000}, "Input should be less than or equal to 65535"),
        ({"max_sessions": 0}, "Input should be greater than or equal to 1"),
        ({"max_fps": 0}, "Input should be greater than 0"),
        ({"idle_timeout_s": -1}, "Input should be greater than 0"),
        ({"scorer": "best"}, "Input should be 'frame', 'average', 'cluster' or 'ovoad'"),
        ({"colour": "red"}, "Extra inputs are not permitted"),
    ],
)
def test_value_out_of_bounds_is_refused(given: dict[str, object], message: str) -> None:
    assert refusal(**given) == message


def test_key_is_in_no_text_about_the_settings() -> None:
    settings = Settings(host="127.0.0.1", api_key="correct-horse")  # type: ignore[arg-type]
    for text in (repr(settings), str(settings), settings.model_dump_json()):
        assert "correct-horse" not in text


def test_key_is_in_no_text_about_a_refusal() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(api_key="correct horse", port=-1)  # type: ignore[arg-type]
    assert "correct horse" not in str(caught.value)


def test_settings_cannot_change_while_the_server_runs() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().port = 1


def test_cache_is_where_the_system_wants_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "ovoad"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache() == tmp_path / "home" / ".cache" / "ovoad"
