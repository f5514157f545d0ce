"""Settings of events outward: what is refused, and that no text repeats a secret."""

import sqlite3
from pathlib import Path

import pytest
from pydantic import ValidationError

from ovoad_server.outward.errors import MissingMqttError, OutwardError
from ovoad_server.outward.outward import open_outward
from ovoad_server.outward.store import Store
from ovoad_server.settings import Settings, default_events_folder

from .outward_parts import SECRET


def refusal(**given: object) -> str:
    with pytest.raises(ValidationError) as caught:
        Settings(**given)  # type: ignore[arg-type]
    (error,) = caught.value.errors()
    assert "hush" not in str(caught.value)
    return str(error["msg"]).removeprefix("Value error, ")


def test_nothing_goes_outward_unless_settings_say_where(tmp_path: Path) -> None:
    with open_outward(Settings(events_folder=tmp_path / "events")) as outward:
        assert outward is None
    assert not (tmp_path / "events").exists()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/hush", "a webhook address of another form"),
        ("file:///etc/hush", "a webhook address of another form"),
        ("hush", "a webhook address of another form"),
        ("https:///hush", "a webhook address of another form"),
        ("https://host/hush#part", "a webhook address of another form"),
        ("https://me:hush@host/", "a webhook address with a user name in it"),
        ("https://host:99999/hush", "a webhook address that cannot be read"),
        ("https://[host/hush", "a webhook address that cannot be read"),
        ("https://host/hush hush", "a webhook address that is not printable ASCII without blanks"),
        (
            "https://host/hush\r\nA: b",
            "a webhook address that is not printable ASCII without blanks",
        ),
    ],
)
def test_odd_webhook_address_is_refused(url: str, message: str) -> None:
    assert refusal(webhook_url=url) == f"found {message}, expected one like https://host/path"


@pytest.mark.parametrize("url", ["http://host", "mqtt://host/topic", "mqtt://", "mqtt://a:hush@b"])
def test_odd_broker_address_is_refused(url: str) -> None:
    assert "found a broker's address" in refusal(mqtt_url=url)


@pytest.mark.parametrize("secret", ["hush", "whsec_hush", "whsec_" + "aHVzaA==", SECRET + "hush!"])
def test_secret_that_is_none_is_refused(secret: str) -> None:
    assert "expected whsec_ followed by base64 of 24 to 64 random bytes" in refusal(
        webhook_secret=secret
    )


def test_password_alone_is_refused() -> None:
    assert refusal(mqtt_password="hush") == (
        "found OVOAD_MQTT_PASSWORD alone, expected OVOAD_MQTT_USERNAME beside it"
    )


@pytest.mark.parametrize("prefix", ["", "a/b", "#", "a b"])
def test_odd_discovery_prefix_is_refused(prefix: str) -> None:
    assert "pattern" in refusal(mqtt_discovery=prefix)


def test_secrets_are_in_no_text_about_the_settings() -> None:
    settings = Settings(
        webhook_url="https://host/hush",  # type: ignore[arg-type]
        webhook_secret=SECRET,  # type: ignore[arg-type]
        mqtt_url="mqtts://host:8883",
        mqtt_username="ovoad",
        mqtt_password="hush",  # type: ignore[arg-type]
    )
    for text in (repr(settings), str(settings), settings.model_dump_json()):
        assert "hush" not in text
        assert SECRET not in text


def test_folder_is_where_the_system_wants_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_events_folder() == tmp_path / "ovoad"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_events_folder() == tmp_path / "home" / ".local" / "state" / "ovoad"


def test_missing_library_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "paho.mqtt.client", None)
    settings = Settings(mqtt_url="mqtt://127.0.0.1:1", events_folder=tmp_path)
    with (
        pytest.raises(MissingMqttError, match=r"pip install 'ovoad\[mqtt\]'"),
        open_outward(settings),
    ):
        pass
    with pytest.raises(MissingMqttError), open_outward(settings):
        pass  # the folder was given back


@pytest.mark.parametrize("method", ["_begin", "end_all"])
def test_full_disk_is_told_in_a_line(
    method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    settings = Settings(webhook_url="http://127.0.0.1:1/", events_folder=tmp_path)  # type: ignore[arg-type]
    with monkeypatch.context() as patch:
        patch.setattr(Store, method, full)
        with pytest.raises(OutwardError) as caught, open_outward(settings):
            pass
    assert str(caught.value) == (
        f"cannot open the queue of events in {tmp_path}: database or disk is full"
    )
    with open_outward(settings) as outward:  # the folder was given back
        assert outward is not None


def test_file_that_is_no_queue_and_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / "events.sqlite3-wal").mkdir()  # SQLite cannot make its own
    settings = Settings(webhook_url="http://127.0.0.1:1/", events_folder=tmp_path)  # type: ignore[arg-type]
    with (
        pytest.raises(OutwardError, match=r"cannot open the queue of events in .*: "),
        open_outward(settings),
    ):
        pass
