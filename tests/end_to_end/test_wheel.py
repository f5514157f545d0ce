"""The wheel, installed where nothing is: the client alone, then the server and the demo."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_wheel.py"
NO_INDEX = 3


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_wheel_works_outside_the_clone() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT], capture_output=True, text=True, timeout=590, check=False
    )
    if done.returncode == NO_INDEX:
        pytest.skip(f"no package index answers: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\nok  ") == 4, done.stdout
