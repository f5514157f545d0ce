"""Write the locked versions: constraints.txt and, with hashes, requirements/*.lock.

    python scripts/lock.py            all anew, as the package index was at midnight (UTC)
    python scripts/lock.py --keep     what pyproject.toml asks for now; versions that fit stay
    python scripts/lock.py --check    would --keep on the written date change anything?

One resolution serves Python 3.11 and 3.12; a lock's line that holds for one of them says so. Only
metadata is downloaded. constraints.txt leaves out what torch pins by itself (CUDA packages), so
that another build of torch stays installable.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from environments import NO_INDEX, ROOT, NoIndexError, ReleaseError, make_environment, run

UV: Final = "uv==0.13.8"
IMAGE: Final = ("docker/requirements.py", "server", "mqtt", "otel")  # prints what an image installs
HASHES: Final = ("--generate-hashes", "-c", "constraints.txt")
# Each file: what it is, and what uv is to resolve ("-": what IMAGE prints).
FILES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "constraints.txt": (
        "The version of everything that any extra installs",
        ("pyproject.toml", "--all-extras"),
    ),
    "requirements/server.lock": (
        "What ovoad[server] installs, with hashes",
        ("pyproject.toml", "--extra", "server", *HASHES),
    ),
    "requirements/image.lock": (
        "What the CPU image installs, with hashes",
        ("-", *HASHES),
    ),
    "requirements/build.lock": (
        "What builds the wheel, with hashes",
        ("--group", "build", *HASHES),
    ),
    "requirements/release.lock": (
        "What builds, checks and audits a release, with hashes",
        ("--group", "release", *HASHES),
    ),
}
ALWAYS: Final = (
    "--universal", "--fork-strategy", "fewest", "--python-version", "3.11", "--no-annotate",
    "--no-header",
)  # fmt: skip
LEFT_OUT: Final = ("nvidia-", "cuda-", "triton")
HEADER: Final = """\
# {title}. Python 3.11 and 3.12.
# Made by `make lock` (scripts/lock.py) from pyproject.toml and the package index as of {date}.
"""
DATE: Final = re.compile(r"as of (\S+)\.$", re.MULTILINE)


def main() -> int:
    """Resolve and write, or resolve and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--keep", action="store_true", help="keep the versions that still fit")
    way.add_argument("--check", action="store_true", help="write nothing, compare")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            uv = make_environment(Path(folder) / "tools", UV).with_name("uv")
            if arguments.check:
                return check(uv, Path(folder) / "resolved")
            write(uv, upgrade=not arguments.keep)
        except NoIndexError as error:
            print(error, file=sys.stderr)
            return NO_INDEX
        except ReleaseError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


def write(uv: Path, *, upgrade: bool) -> None:
    """Write all files; the later ones keep to the first."""
    midnight = datetime.now(UTC).strftime("%Y-%m-%dT00:00:00Z")
    for name in FILES:
        target = ROOT / name
        target.parent.mkdir(exist_ok=True)
        text = resolve(uv, name, target, date=midnight, upgrade=upgrade)
        target.write_text(text, encoding="utf-8")
        print(f"wrote {name}: {len(re.findall('==', text))} versions")


def check(uv: Path, scratch: Path) -> int:
    """Resolve again for the dates that the files bear; 1 where a file would change."""
    status = 0
    for name in FILES:
        written = (ROOT / name).read_text(encoding="utf-8")
        found = DATE.search(written)
        if found is None:
            raise ReleaseError(f"found no date in {name}, expected one from make lock")
        scratch.write_text(written, encoding="utf-8")
        same = resolve(uv, name, scratch, date=found[1], upgrade=False) == written
        print(f"{name}: {'as pyproject.toml asks' if same else 'would change: make lock'}")
        status = status if same else 1
    return status


def resolve(uv: Path, name: str, target: Path, *, date: str, upgrade: bool) -> str:
    """Return a file's new text; what `target` holds is preferred unless upgraded."""
    title, asked = FILES[name]
    printed = run(sys.executable, *IMAGE) if "-" in asked else ""
    flags = ("--exclude-newer", date, *(["--upgrade"] if upgrade else []), *ALWAYS)
    run(uv, "pip", "compile", "--quiet", *asked, *flags, "--output-file", target, given=printed)
    text = target.read_text(encoding="utf-8")
    if "--generate-hashes" not in asked:
        text = without_markers(text)
    return HEADER.format(title=title, date=date) + re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)


def without_markers(text: str) -> str:
    """Return one plain line a package: a constraint installs nothing, so it may hold anywhere."""
    lines = [line.split(" ; ")[0].strip() for line in text.splitlines()]
    kept = [line for line in lines if line and not line.startswith(("#", *LEFT_OUT))]
    names = [line.split("==")[0] for line in kept]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ReleaseError(f"found several versions of {', '.join(twice)}, expected one")
    return "\n".join(kept) + "\n"


if __name__ == "__main__":
    sys.exit(main())
