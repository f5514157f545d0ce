"""The version has one source, what was installed, and everything that tells a version agrees."""

import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).parents[2]


def test_the_command_tells_the_installed_version() -> None:
    command = [sys.executable, "-m", "ovoad_client", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == f"ovoad {version('ovoad')}\n"
    assert Version(version("ovoad")) >= Version("0.0")


def test_no_version_is_written_into_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "version" in project["dynamic"]
    assert "version" not in project
