"""Build the sdist and the wheel twice, compare them byte by byte, and put them into dist/.

    python scripts/build_release.py [--out DIR]

The tools come from requirements/release.lock, so that anybody gets the same bytes from the same
commit. The first wheel is built from the sdist, the second one from the tree.
Exit status: 0 both are alike, 1 they are not, 3 no package index answers.
"""

import argparse
import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from environments import (
    NO_INDEX,
    ROOT,
    NoIndexError,
    ReleaseError,
    attempt,
    make_environment,
    run,
)

RELEASE_LOCK: Final = ROOT / "requirements" / "release.lock"


def main() -> int:
    """Build, compare, check and tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", metavar="DIR")
    out: Path = parser.parse_args().out
    with tempfile.TemporaryDirectory(prefix="ovoad-release-") as name:
        folder = Path(name)
        try:
            check_tree()
            python = make_environment(folder / "tools", "--require-hashes", "-r", RELEASE_LOCK)
            first = build(python, folder / "from-sdist")
            compare(first, build(python, folder / "from-tree", "--sdist", "--wheel"))
            print(run(python, "-m", "twine", "check", "--strict", *first), end="")
        except NoIndexError as error:
            print(error, file=sys.stderr)
            return NO_INDEX
        except ReleaseError as error:
            print(error, file=sys.stderr)
            return 1
        keep(first, out)
    return 0


def check_tree() -> None:
    """Refuse to build a tagged commit with changes; say where it is no release."""
    tag = attempt("git", "describe", "--exact-match", "--tags", "--match", "v[0-9]*")
    if tag.returncode != 0:
        print("no release: found no tag v… at this commit, the version will be one in development")
    elif changes := run("git", "status", "--porcelain"):
        raise ReleaseError(f"found changed files, expected {tag.stdout.strip()} alone\n{changes}")


def build(python: Path, out: Path, *formats: str) -> list[Path]:
    """Build into a folder; without formats the wheel is built from the sdist."""
    env = {**os.environ, "SOURCE_DATE_EPOCH": commit_time()}
    run(python, "-m", "build", "--no-isolation", *formats, "--outdir", out, ROOT, env=env)
    return sorted(out.iterdir())


def commit_time() -> str:
    """Return the time that goes into the archives: the commit's, in seconds since 1970."""
    return run("git", "log", "-1", "--format=%ct").strip()


def compare(first: list[Path], second: list[Path]) -> None:
    """Raise ReleaseError where two builds differ."""
    names = [path.name for path in first]
    if names != [path.name for path in second]:
        raise ReleaseError(f"found {[path.name for path in second]}, expected {names}")
    for one, other in zip(first, second, strict=True):
        if digest(one) != digest(other):
            raise ReleaseError(f"found two different {one.name} from one tree")
    print("built twice, the wheel once from the sdist and once from the tree: the same bytes")


def keep(files: list[Path], out: Path) -> None:
    """Put the files into a folder in place of older ones; print size and sha256."""
    out.mkdir(parents=True, exist_ok=True)
    for old in (*out.glob("ovoad-*.whl"), *out.glob("ovoad-*.tar.gz")):
        old.unlink()
    for path in files:
        size = path.stat().st_size / 1e6
        print(f"{digest(path)}  {out.name}/{path.name}  {size:.1f} MB")
        shutil.move(path, out / path.name)


def digest(path: Path) -> str:
    """Return the sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
