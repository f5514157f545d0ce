"""Virtual environments outside the clone, as empty as a user's, and commands run in them."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
NO_INDEX: Final = 3  # exit status: the package index or the advisory service does not answer
FOREIGN: Final = ("OVOAD_", "PYTHON", "VIRTUAL_ENV", "SETUPTOOLS_SCM_")


class ReleaseError(Exception):
    """What was found is not fit to be released; its text says why."""


class NoIndexError(ReleaseError):
    """The package index, or the advisory service, does not answer."""


def make_environment(folder: Path, *install: str | Path) -> Path:
    """Return the Python of a new environment, into which pip put what `install` says."""
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    if install:
        pip_install(python, *install)
    return python


def pip_install(python: Path, *arguments: str | Path) -> None:
    """Install into an environment; NoIndexError where no index answers."""
    pip = (python, "-m", "pip", "--disable-pip-version-check")
    done = attempt(*pip, "install", "--quiet", *arguments)
    if done.returncode == 0:
        return
    if attempt(*pip, "download", "--quiet", "--no-deps", "-d", python.parent, "pip").returncode:
        raise NoIndexError(f"found no package index that answers\n{done.stderr}")
    raise ReleaseError(f"pip install {' '.join(map(str, arguments))}\n{done.stderr}")


def run(
    *command: str | Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None, given: str = ""
) -> str:
    """Run a command and return what it printed; ReleaseError where it fails."""
    done = attempt(*command, cwd=cwd, env=env, given=given)
    if done.returncode != 0:
        words = " ".join(map(str, command))
        raise ReleaseError(f"{words}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def attempt(
    *command: str | Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None, given: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, whatever it comes to; `given` is its standard input."""
    return subprocess.run(
        command, cwd=cwd, env=env, input=given, capture_output=True, text=True, timeout=900,
        check=False,
    )  # fmt: skip


def stranger(home: Path) -> dict[str, str]:
    """Return the environment variables of somebody who has just come to this machine."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return {**kept, "HOME": str(home)}
