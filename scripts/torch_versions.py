"""Which torchvision and open_clip_torch ovoad[model] gets with each torch: a table in Markdown.

    python scripts/torch_versions.py 2.11 2.12 2.13 2.14

Only metadata is downloaded. Exit status: 0 all resolve, 1 some do not, 3 no package index answers.
"""

import re
import sys
import tempfile
from pathlib import Path
from typing import Final

from environments import NO_INDEX, NoIndexError, attempt, make_environment
from lock import UV

PYTHONS: Final = ("3.11", "3.12")
SHOWN: Final = ("torch", "torchvision", "open-clip-torch", "timm", "numpy")


def main(torches: list[str]) -> int:
    """Print a row for each torch and Python."""
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            uv = make_environment(folder / "tools", UV).with_name("uv")
        except NoIndexError as error:
            print(error, file=sys.stderr)
            return NO_INDEX
        print("| Python |", " | ".join(SHOWN), "|")
        print("| --- |", " | ".join("---" for _ in SHOWN), "|")
        for torch in torches:
            for python in PYTHONS:
                row, good = resolve(uv, folder, torch, python)
                print(f"| {python} | {row} |", flush=True)
                failed += not good
    return 1 if failed else 0


def resolve(uv: Path, folder: Path, torch: str, python: str) -> tuple[str, bool]:
    """Return a row's cells, and whether there is a resolution."""
    wish = folder / "wish.txt"
    wish.write_text(f"torch=={torch}.*\n", encoding="utf-8")
    done = attempt(
        uv, "pip", "compile", "--quiet", "pyproject.toml", "--extra", "model", "-c", wish,
        "--python-version", python, "--python-platform", "x86_64-manylinux_2_28", "--no-header",
    )  # fmt: skip
    if done.returncode != 0:
        return f"{torch}: {done.stderr.strip().splitlines()[-1]}", False
    versions = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", done.stdout, re.MULTILINE))
    return " | ".join(versions[name] for name in SHOWN), True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
