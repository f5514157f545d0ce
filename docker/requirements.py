"""Print what an image installs: the requirements of some extras, with packages that suit a server.

    python docker/requirements.py server mqtt > requirements.txt
    python docker/requirements.py --gpu model > requirements.txt

Reads pyproject.toml and constraints.txt of the working directory, or of --root. Needs nothing but
Python itself.
"""

import argparse
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

SERVER_PACKAGES: Final = {"opencv-python": "opencv-python-headless"}
"""The same cv2 without windows: it needs neither libGL nor GLib of the system."""

GPU_PACKAGES: Final = {"onnxruntime": "onnxruntime-gpu[cuda,cudnn]==1.31.1"}
"""The same onnxruntime with providers for GPUs; its versions come out later than the plain ones."""

NAME: Final = re.compile(r"[A-Za-z0-9._-]+")


def main(argv: list[str] | None = None) -> None:
    """Print one requirement a line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("extras", nargs="+", help="extras of pyproject.toml")
    parser.add_argument("--gpu", action="store_true", help="take packages that use a GPU")
    parser.add_argument("--root", type=Path, default=Path(), help="folder of pyproject.toml")
    arguments = parser.parse_args(argv)
    project = tomllib.loads((arguments.root / "pyproject.toml").read_text())["project"]
    versions = read_versions((arguments.root / "constraints.txt").read_text())
    swaps = SERVER_PACKAGES | (GPU_PACKAGES if arguments.gpu else {})
    found = [*project["dependencies"]]
    for extra in arguments.extras:
        found += requirements_of(extra, project["optional-dependencies"])
    print(*sorted({swap(each, swaps, versions) for each in found}), sep="\n")


def read_versions(constraints: str) -> dict[str, str]:
    """Return the pinned version of each package: lines of the form name==version."""
    pairs = (line.split("==") for line in constraints.splitlines() if "==" in line)
    return {name.strip().lower(): version.strip() for name, version in pairs}


def requirements_of(extra: str, extras: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield an extra's requirements; those on other extras of ovoad itself are followed."""
    for requirement in extras[extra]:
        own = re.fullmatch(r"ovoad\[([^]]+)\]", requirement)
        if own is None:
            yield requirement
            continue
        for other in own[1].split(","):
            yield from requirements_of(other.strip(), extras)


def swap(requirement: str, swaps: Mapping[str, str], versions: Mapping[str, str]) -> str:
    """Return the package to take instead, at the version that the plain one is pinned to."""
    match = NAME.match(requirement)
    name = match[0] if match else requirement
    if name not in swaps:
        return requirement
    other = swaps[name]
    return other if "==" in other else f"{other}=={versions[name]}"


if __name__ == "__main__":
    main()
