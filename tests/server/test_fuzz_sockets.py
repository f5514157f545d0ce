"""A short run of the fuzzer against a real server process: nothing is found."""

import subprocess
import sys
from pathlib import Path

import pytest

FUZZER = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"


@pytest.mark.slow
def test_short_fuzz_finds_nothing() -> None:
    run = subprocess.run(
        [sys.executable, str(FUZZER), "--seed", "7", "--messages", "1500", "--minutes", "1"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "findings: 0" in run.stdout
