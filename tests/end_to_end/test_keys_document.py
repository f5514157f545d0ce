"""The worked example of docs/keys.md, run as it stands; and its numbers, which are the code's."""

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ovoad_server import ends
from ovoad_server.keys import file, secret, wrong_keys

from .real_server import WAIT_S, start_server, stop_server

DOCUMENT = (Path(__file__).parents[2] / "docs" / "keys.md").read_text(encoding="utf-8")
EXAMPLE = DOCUMENT[DOCUMENT.index("## A worked example") : DOCUMENT.index("## `ovoad keys`")]
STEP = re.compile(r"```sh\n(.*?)```.*?```text\n(.*?)```", re.DOTALL)
OVOAD = f'#!/bin/sh\nshift\nexec "{sys.executable}" -m ovoad_server.keys.command "$@"\n'


def run(script: str, folder: Path) -> str:
    """Run a shell script with a command `ovoad` that knows `keys`; returns all that it printed."""
    command = folder / "bin" / "ovoad"
    command.parent.mkdir(exist_ok=True)
    command.write_text(OVOAD)
    command.chmod(0o755)
    done = subprocess.run(
        ["sh", "-euc", script],
        cwd=folder,
        env={"PATH": f"{command.parent}:/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.slow
def test_worked_example_prints_what_it_says(tmp_path: Path) -> None:
    (make, made), (use, used) = STEP.findall(EXAMPLE)
    today = datetime.now(UTC).strftime("%Y-%m-%d")
    assert run(make, tmp_path) == re.sub(r"\d{4}-\d\d-\d\d", today, made)
    assert re.fullmatch(r"ovoad_\S{32}\n", (tmp_path / "door.key").read_text())
    server = start_server(tmp_path, keys_file=tmp_path / "keys.json")
    try:
        assert run(use.replace("127.0.0.1:8000", server.address), tmp_path) == used
    finally:
        stop_server(server)


def test_numbers_are_those_of_the_code() -> None:
    assert (file.MOST_KEYS, secret.RANDOM_BYTES * 8, secret.LEAST_CHARACTERS) == (1000, 192, 22)
    assert (wrong_keys.FIRST_DELAY_S, wrong_keys.LONGEST_DELAY_S) == (0.1, 5.0)
    assert (wrong_keys.MOST_WAITING_OF_ONE, wrong_keys.MOST_WAITING) == (16, 256)
    assert (wrong_keys.FORGET_S, 2 * 8 * wrong_keys.PLACES) == (60.0, 64 * 1024)
    assert (ends.REVOKED_GRACE_S, ends.REVOKED_SETTLE_S) == (0.5, 0.5)
