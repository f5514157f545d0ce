"""The list of licences is up to date, and the server needs nothing under a licence not allowed."""

import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from runpy import run_path
from typing import cast

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "licences.py"


def test_the_server_has_allowed_licences_and_the_page_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--check"], capture_output=True, text=True, timeout=60, check=False
    )
    assert "allowed licences only" in done.stdout, done.stdout + done.stderr
    if sys.version_info[:2] != (3, 11) or platform.machine() != "x86_64":
        pytest.skip("docs/licences.md lists what Python 3.11 on Linux x86-64 installs")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("unknown", False),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("MIT AND (GPL-2.0-only OR AGPL-3.0-only)", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-3.0-or-later WITH GCC-exception-3.1", False),
    ],
)
def test_expressions_are_met_by_allowed_licences_or_not(expression: str, expected: bool) -> None:
    allowed = cast(Callable[[str], bool], run_path(str(SCRIPT))["allowed"])
    assert allowed(expression) is expected
