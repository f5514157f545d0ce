"""Keep outputs off the files that are being read. Knows no format."""

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from ovoad_client.errors import UsageError


def check_not_sources(outputs: Iterable[Path], sources: Sequence[str]) -> None:
    """Raise UsageError where an output is a source's own file, by whatever name or link."""
    for output in outputs:
        for source in sources:
            if _same_file(output, Path(source)):
                raise UsageError(
                    f"found output '{output}' that is the source '{source}', expected another file"
                )


def _same_file(output: Path, source: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):  # one of them is no file
        return output.samefile(source)
    return False
