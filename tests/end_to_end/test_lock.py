"""The locked versions are what pyproject.toml asks for, and every locked file has its hashes."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import cast

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
SERVER, IMAGE, BUILD, RELEASE = LOCKS = tuple(
    f"requirements/{name}.lock" for name in ("server", "image", "build", "release")
)
PYTHONS = ("3.11", "3.12")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PYPROJECT["project"]["optional-dependencies"]


def versions(name: str, python: str) -> dict[str, Version]:
    """Return package -> version that a locked file names for one Python on Linux."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.split("--hash")[0].strip() for line in text.splitlines() if line[:1] not in "# "]
    found: dict[str, Version] = {}
    for need in (Requirement(line) for line in lines if line):
        if holds(need, python):
            (pin,) = need.specifier
            assert pin.operator == "==", need
            assert canonicalize_name(need.name) not in found, need
            found[canonicalize_name(need.name)] = Version(pin.version)
    return found


def holds(need: Requirement, python: str, extra: str = "") -> bool:
    """Tell whether a requirement holds for a Python on Linux x86-64."""
    environment = {
        **cast(dict[str, str], default_environment()),
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "extra": extra,
    }
    return need.marker is None or need.marker.evaluate(environment)


def asked(extra: str) -> Iterator[Requirement]:
    """Yield what pyproject.toml asks for with an extra, extras within it opened."""
    for line in [*PYPROJECT["project"]["dependencies"], *EXTRAS[extra]]:
        need = Requirement(line)
        if need.name == "ovoad":
            for name in need.extras:
                yield from asked(name)
        else:
            yield need


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_constraints_hold_what_each_extra_asks_for(extra: str, python: str) -> None:
    locked = versions("constraints.txt", python)
    for need in asked(extra):
        if holds(need, python):
            found = locked.get(canonicalize_name(need.name))
            assert found is not None, f"constraints.txt lacks {need.name}: make lock"
            assert need.specifier.contains(found, prereleases=True), f"{need}, found {found}"


@pytest.mark.parametrize("python", PYTHONS)
def test_the_server_lock_is_part_of_the_constraints(python: str) -> None:
    locked, constraints = versions(SERVER, python), versions("constraints.txt", python)
    assert {name: constraints.get(name) for name in locked} == locked
    assert {canonicalize_name(need.name) for need in asked("server")} <= set(locked)
    assert not {"torch", "pytest", "ovoad"} & set(locked)


def test_the_image_lock_is_the_servers_without_windows() -> None:
    locked, constraints = versions(IMAGE, "3.11"), versions("constraints.txt", "3.11")
    assert locked.pop("opencv-python-headless") == constraints["opencv-python"]
    assert {name: constraints.get(name) for name in locked} == locked
    for extra in ("server", "mqtt", "otel"):
        needed = {canonicalize_name(need.name) for need in asked(extra)}
        assert needed - set(locked) <= {"opencv-python"}


def test_the_server_lock_has_what_the_installed_packages_ask_for() -> None:
    locked = versions(SERVER, "3.11")
    waiting = [(canonicalize_name(need.name), frozenset(need.extras)) for need in asked("server")]
    seen = set(waiting)
    while waiting:
        name, extras = waiting.pop()
        assert name in locked, f"requirements/server.lock lacks {name}: make lock"
        for need in map(Requirement, distribution(name).requires or []):
            if any(holds(need, "3.11", extra) for extra in ("", *extras)):
                inner = (canonicalize_name(need.name), frozenset(need.extras))
                waiting += [inner] if inner not in seen else []
                seen.add(inner)


def test_the_build_tools_are_locked_and_the_same_for_images_and_releases() -> None:
    build, release = versions(BUILD, "3.11"), versions(RELEASE, "3.11")
    assert {name: release.get(name) for name in build} == build
    for need in map(Requirement, PYPROJECT["build-system"]["requires"]):
        assert need.specifier.contains(build[canonicalize_name(need.name)]), need


@pytest.mark.parametrize("name", LOCKS)
def test_every_locked_file_has_hashes(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    packages = [line for line in text.splitlines() if "==" in line]
    assert packages
    for line in packages:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", line), line.split("--")[0]
