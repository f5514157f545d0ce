"""Find the files that ship with the encoder and check each against its checksum.

Knows neither networks nor words.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ovoad_model.errors import DamagedFileError

ASSETS: Final = Path(__file__).parent / "assets"
MANIFEST: Final = "manifest.json"
REVISION: Final = 2
"""Counts changes of the code around the files that change features or text embeddings."""


@dataclass(frozen=True)
class Shipped:
    """Files of one folder that were found to be what the manifest says.

    fingerprint: sha256 over the revision and the names and checksums of all files, hexadecimal.
    """

    folder: Path
    fingerprint: str

    def path(self, name: str) -> Path:
        """Return where a file lies."""
        return self.folder / name


def open_shipped(folder: Path = ASSETS) -> Shipped:
    """Check every file that the manifest names; raise DamagedFileError for the first bad one."""
    expected = _read_manifest(folder / MANIFEST)
    for name, sha256 in expected.items():
        check_file(folder / name, sha256)
    return Shipped(folder, _fingerprint(expected))


def check_file(path: Path, expected_sha256: str) -> None:
    """Raise DamagedFileError unless the file is there with this checksum."""
    found = sha256_of(path)
    if found != expected_sha256:
        raise DamagedFileError(path, expected_sha256=expected_sha256, found_sha256=found)


def sha256_of(path: Path) -> str | None:
    """Return a file's sha256 in hexadecimal, or None where there is no such file."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _read_manifest(path: Path) -> dict[str, str]:
    """Return file name -> sha256; the manifest itself has no checksum, but must make sense."""
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): str(entry["sha256"]) for name, entry in content["files"].items()}
    except FileNotFoundError:
        raise DamagedFileError(path, expected_sha256="of a manifest", found_sha256=None) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedFileError(
            path, expected_sha256="of a manifest that names its files", found_sha256=sha256_of(path)
        ) from error


def _fingerprint(files: dict[str, str]) -> str:
    lines = f"{REVISION}\n" + "".join(f"{name} {sum_}\n" for name, sum_ in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()
