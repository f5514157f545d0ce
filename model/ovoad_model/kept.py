"""Folders of made files in a cache, each with a manifest of checksums. Knows not what they hold.

A folder appears whole or not at all, whoever else makes it at the same time.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

MANIFEST: Final = "manifest.json"

Make = Callable[[Path], None]
"""Write files into an empty folder."""


def make_folder(folder: Path, make: Make) -> None:
    """Write into a folder beside the place and put it there when it is whole.

    What another process put there whole in the meantime stays.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder.parent))
    try:
        make(unfinished)
        write_manifest(unfinished)
        _replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_manifest(folder: Path) -> None:
    """Note every file's sha256."""
    files = sorted(path for path in folder.iterdir() if path.name != MANIFEST)
    sums = {path.name: sha256_of(path) for path in files}
    (folder / MANIFEST).write_text(json.dumps(sums, indent=2) + "\n", encoding="utf-8")


def is_whole(folder: Path, file: str) -> bool:
    """Tell whether the manifest names this file and all that it names are there, unchanged."""
    try:
        sums: Any = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return file in sums and all(sha256_of(folder / name) == sums[name] for name in sums)
    except (OSError, ValueError, TypeError):
        return False


def sha256_of(path: Path) -> str:
    """Digest a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _replace(unfinished: Path, folder: Path) -> None:
    """Put a finished folder in its place; where another process was first, its work stays."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        os.replace(unfinished, folder)
    except OSError:
        if not (folder / MANIFEST).is_file():
            raise
