"""docker/first_key.sh: the key that Prometheus gets at the first start, and keys from secrets."""

import hashlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

SCRIPT: Final = Path(__file__).parents[2] / "docker" / "first_key.sh"


class Volumes:
    """Folders as service `first-key` has them, and the script run on them."""

    def __init__(self, folder: Path) -> None:
        self.keys = folder / "keys" / "keys.json"
        self.metrics_key = folder / "metrics-key" / "ovoad_api_key"
        self.secrets = folder / "secrets"
        self._bin = folder / "bin"
        for each in (self.keys.parent, self.metrics_key.parent, self.secrets, self._bin):
            each.mkdir()
        command = self._bin / "ovoad"
        command.write_text(
            f'#!/bin/sh\nshift\nexec {sys.executable} -m ovoad_server.keys.command "$@"\n'
        )
        command.chmod(0o755)

    def start(self) -> str:
        """Run the script; returns what it printed."""
        done = subprocess.run(
            ["sh", SCRIPT],
            env={
                **os.environ,
                "PATH": f"{self._bin}:{os.environ['PATH']}",
                "OVOAD_KEYS_FILE": str(self.keys),
                "METRICS_KEY_FILE": str(self.metrics_key),
                "SECRETS": str(self.secrets),
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def kept(self) -> list[dict[str, Any]]:
        keys: list[dict[str, Any]] = json.loads(self.keys.read_text())["keys"]
        return keys


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    return Volumes(tmp_path)


def test_the_first_start_makes_a_key_that_nobody_sees(volumes: Volumes) -> None:
    printed = volumes.start()

    key = volumes.metrics_key.read_text().strip()
    (kept,) = volumes.kept()
    assert kept["name"] == "prometheus"
    assert kept["sha256"] == hashlib.sha256(key.encode()).hexdigest()
    assert kept["sessions"] == 1
    assert key not in printed
    assert "docker compose run --rm keys add NAME" in printed
    assert stat.S_IMODE(volumes.metrics_key.stat().st_mode) == 0o640  # the group is Prometheus's
    assert stat.S_IMODE(volumes.keys.stat().st_mode) == 0o600


def test_later_starts_leave_the_keys_as_they_are(volumes: Volumes) -> None:
    volumes.start()
    before = volumes.keys.read_text(), volumes.metrics_key.read_text()

    volumes.start()

    assert (volumes.keys.read_text(), volumes.metrics_key.read_text()) == before


def test_a_key_whose_text_is_lost_is_replaced(volumes: Volumes) -> None:
    volumes.start()
    (lost,) = volumes.kept()
    volumes.metrics_key.unlink()

    volumes.start()

    (kept,) = volumes.kept()
    assert kept["name"] == "prometheus"
    assert kept["sha256"] != lost["sha256"]


def test_secrets_replace_what_is_there(volumes: Volumes) -> None:
    volumes.start()
    (volumes.secrets / "ovoad_keys").write_text('{"version": 1, "keys": []}\n')
    (volumes.secrets / "ovoad_api_key").write_text("the text of a key\n")

    volumes.start()

    assert volumes.kept() == []
    assert volumes.metrics_key.read_text() == "the text of a key\n"
