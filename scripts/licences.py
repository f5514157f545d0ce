"""Write docs/licences.md: the licence of everything that is installed or shipped.

    .venv/bin/python scripts/licences.py [--check]     after `make test` has installed the extras

Licences are what the installed packages say of themselves. Exit status 1 when a package of
ovoad[server], something vendored or a tool of the tests has a licence that is not in ALLOWED, or
none that is known, or (--check) when the page is out of date.
"""

import argparse
import json
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "licences.md"
OTHER_EXTRAS: Final = (
    "watch",
    "mp4",
    "screen",
    "mqtt",
    "otel",
    "model",
    "int8",
    "phrases",
    "scale",
)
# Permissive ones, and MPL-2.0, whose terms stay with its own files.
ALLOWED: Final = (
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause",
    "BSL-1.0", "CC0-1.0", "CNRI-Python", "ISC", "MIT", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Zlib",
)  # fmt: skip
# What packages without an SPDX expression write: the field License, else a trove classifier.
SPELLINGS: Final[Mapping[str, str]] = {
    **{name: name for name in ALLOWED},
    "MPL-2.0 AND MIT": "MPL-2.0 AND MIT",
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache 2.0 License": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD": "BSD-3-Clause",
    "BSD 3-Clause License": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "ISC License": "ISC",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
    "NVIDIA Proprietary Software": "LicenseRef-NVIDIA-Proprietary",
}
UNKNOWN: Final = "unknown"
HEAD: Final = """\
# Licences

Made by `scripts/licences.py` from what the packages say of themselves (Python {python}, Linux
x86-64); versions are in [constraints.txt](../constraints.txt). ovoad itself is
[Apache-2.0](../LICENSE).

Allowed in the server: {allowed}.
MPL-2.0 is a copyleft of single files: it binds who changes those files.
"""
INSIDE: Final = """
## What the licences above leave unsaid

Wheels carry libraries of others, under licences that the package's own line does not name:

| package | carries | under |
| --- | --- | --- |
| opencv-python (`server`, `watch`) | FFmpeg, built without GPL parts | LGPL-2.1-or-later |
| | Qt 5 | LGPL-3.0 |
| | OpenSSL 1.1, libvpx, libaom, libpng, xcb and others | permissive |
| numpy, opencv-python, scipy | libgfortran | GPL-3.0-or-later WITH GCC-exception-3.1 |
| | libquadmath | LGPL-2.1-or-later |
| av (`mp4`) | FFmpeg | LGPL-3.0-or-later |
| | x264 and x265 | GPL-2.0-or-later: who passes the wheel on passes on GPL code |
| torch (`model`), PyPI's for Linux x86-64 | asks for the nvidia packages above | NVIDIA's terms |

The LGPL ones are shared libraries, which can be exchanged. `opencv-python-headless` has no Qt,
torch's CPU builds ask for no nvidia packages. An image that contains these wheels passes them on:
keep their licence files (`*.dist-info`) in it.
"""


def main() -> int:
    """Write the page, or compare with it; tell of licences that are not allowed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    check: bool = parser.parse_args().check
    server = licences(closure(needs("server")))
    others = licences(closure(need for extra in OTHER_EXTRAS for need in needs(extra)))
    shipped, tools = vendored(), npm_tools()
    refused = [
        f"{name}: found licence {licence}, expected one of {', '.join(ALLOWED)}"
        for name, licence in {**server, **shipped, **tools}.items()
        if not allowed(licence)
    ]
    print("\n".join(refused) or f"{len(server)} packages of ovoad[server]: allowed licences only")
    added = {name: licence for name, licence in others.items() if name not in server}
    text = page(server, added, shipped, tools)
    if not check:
        PAGE.write_text(text, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != text:
        print(f"found {PAGE.name} out of date: run scripts/licences.py")
        return 1
    return 1 if refused else 0


def needs(extra: str) -> list[Requirement]:
    """Return what pyproject.toml asks for with an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"][extra]]
    asked = [Requirement(line) for line in lines]
    inner = [name for need in asked if need.name == project["name"] for name in need.extras]
    outer = [need for need in asked if need.name != project["name"]]
    return outer + [need for name in inner for need in needs(name)]


def closure(asked: Iterable[Requirement]) -> dict[str, Distribution]:
    """Return every installed package that is asked for, and those that they ask for in turn."""
    found: dict[tuple[str, str], Distribution] = {}
    waiting = [(need, "") for need in asked]
    while waiting:
        need, by_extra = waiting.pop()
        if need.marker and not need.marker.evaluate({"extra": by_extra}):
            continue
        for extra in ("", *need.extras):
            key = canonicalize_name(need.name), extra
            if key not in found:
                found[key] = distribution(need.name)
                lines = found[key].requires or []
                waiting += [(Requirement(line), extra) for line in lines]
    return {name: package for (name, _), package in found.items()}


def licences(packages: Mapping[str, Distribution]) -> dict[str, str]:
    """Return each package's licence as an SPDX expression, or "unknown"."""
    return {name: licence(package) for name, package in sorted(packages.items())}


def licence(package: Distribution) -> str:
    """Return a package's licence: its expression, else its field, else its classifier."""
    facts = package.metadata
    for expression in facts.get_all("License-Expression", []):
        return str(expression)
    said = [str(line).strip() for line in facts.get_all("License", [])]
    trove = [line for line in facts.get_all("Classifier", []) if line.startswith("License")]
    said += [line.split(" :: ")[-1] for line in trove]
    return next((SPELLINGS[words] for words in said if words in SPELLINGS), UNKNOWN)


def allowed(expression: str) -> bool:
    """Tell whether an SPDX expression of AND, OR and brackets can be met by ALLOWED alone."""
    parts = re.findall(r"[()]|AND\b|OR\b|[^\s()]+(?: WITH [^\s()]+)?", expression)
    words = {"AND": "and", "OR": "or", "(": "(", ")": ")"}
    return bool(eval(" ".join(words.get(part, str(part in ALLOWED)) for part in parts), {}))


def vendored() -> dict[str, str]:
    """Return the licences of the page's vendored JavaScript, from the notes beside it."""
    notes = sorted((ROOT / "clients" / "web" / "vendor").rglob("*VERSION"))
    return dict(note.read_text().strip().split(", ")[:2] for note in notes)


def npm_tools() -> dict[str, str]:
    """Return the licences of the page's test tools, which are never shipped."""
    packages = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    return {
        path.removeprefix("node_modules/"): facts.get("license", UNKNOWN)
        for path, facts in packages.items()
        if path and not path.startswith("node_modules/@typescript/")  # typescript, a machine each
    }


def page(
    server: Mapping[str, str],
    added: Mapping[str, str],
    shipped: Mapping[str, str],
    tools: Mapping[str, str],
) -> str:
    """Return the whole page."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    networks = "[their folder](../model/ovoad_model/embedded/assets/NOTICE.txt)"
    return "\n".join(
        [
            HEAD.format(python=python, allowed=", ".join(ALLOWED)),
            "## `ovoad[server]`\n",
            *table(server),
            "\n## What the other extras add\n",
            f"{', '.join(f'`{extra}`' for extra in OTHER_EXTRAS)}. These are told, not refused.\n",
            *table(added),
            INSIDE,
            "## In the wheel\n",
            *table(shipped),
            f"\nThe networks' licences are in {networks}.\n",
            "## npm packages that test the page, not shipped\n",
            *table(tools),
            "",
        ]
    )


def table(licences: Mapping[str, str]) -> Iterable[str]:
    """Return a table of licences and who has them; what is not allowed is marked."""
    names: dict[str, list[str]] = defaultdict(list)
    for name, expression in licences.items():
        names[expression].append(name)
    yield from ("| licence | packages |", "| --- | --- |")
    for expression, those in sorted(names.items()):
        mark = "" if allowed(expression) else " (not in the list above)"
        yield f"| {expression}{mark} | {', '.join(sorted(those))} |"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PackageNotFoundError as error:
        sys.exit(f"found no package {error.name}, expected all extras to be installed: make test")
