"""Write a clip's answer to a file: JSON or JSON lines, whole or not at all. Knows no server."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, Protocol, TextIO

from ovoad_client.clip_sources import clip_name
from ovoad_client.errors import ClientError, UsageError, os_reason

Format = Literal["json", "ndjson"]
STANDARD_OUTPUT: Final = Path("-")
_LINES: Final = (".ndjson", ".jsonl")


class OutputError(ClientError):
    """An output that cannot be written."""


class Writer(Protocol):
    """Takes an answer's lines in their order."""

    def write(self, line: str, message: dict[str, Any]) -> None: ...

    def finish(self) -> None: ...


class LinesWriter:
    """Writes each message on a line of its own, as it came."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, line: str, message: dict[str, Any]) -> None:
        """Take one line."""
        self._file.write(line + "\n")

    def finish(self) -> None:
        """Nothing is left to be written."""


class ObjectWriter:
    """Writes one JSON object, as the server itself would; predictions leave at once."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._predictions = 0
        self._lists: dict[str, list[str]] = {"event": [], "error": []}
        self._closed = "null"

    def write(self, line: str, message: dict[str, Any]) -> None:
        """Take one line."""
        match message["type"]:
            case "clip.opened":
                self._file.write(f'{{"opened":{line},\n"predictions":[')
            case "prediction":
                self._file.write((",\n" if self._predictions else "\n") + line)
                self._predictions += 1
            case "clip.closed":
                self._closed = line
            case kind if kind in self._lists:
                self._lists[kind].append(line)

    def finish(self) -> None:
        """Write what comes after the predictions."""
        events, errors = (",\n".join(lines) for lines in self._lists.values())
        self._file.write(f'],\n"events":[{events}],\n"errors":[{errors}],\n')
        self._file.write(f'"closed":{self._closed}}}\n')


def choose_format(output: Path | None, asked: Format | None) -> Format:
    """Return the format asked for, else that of the file's ending; lines on standard output."""
    if asked is not None:
        return asked
    if output is None or (output != STANDARD_OUTPUT and output.suffix.lower() not in _LINES):
        return "json"
    return "ndjson"


def output_paths(sources: Sequence[str], output: Path | None, kind: Format) -> list[Path | None]:
    """Return where each source's answer goes; raises UsageError where two would meet."""
    if output is None:
        return [None] * len(sources)
    if output == STANDARD_OUTPUT and (len(sources) == 1 or kind == "ndjson"):
        return [output] * len(sources)
    if len(sources) == 1 and not output.is_dir():
        return [output]
    if output == STANDARD_OUTPUT or (output.exists() and not output.is_dir()) or output.suffix:
        raise UsageError(
            f"found {len(sources)} clips for the one output {str(output)!r}, "
            "expected a folder in --output"
        )
    paths: list[Path | None] = [output / f"{clip_name(each)}.{kind}" for each in sources]
    if len(set(paths)) < len(paths):
        raise UsageError("found two clips of one name, expected names that differ")
    return paths


@contextlib.contextmanager
def open_output(path: Path | None, kind: Format) -> Iterator[Writer | None]:
    """Yield a writer, or None for no path; the file appears once all of it is written."""
    if path is None:
        yield None
    elif path == STANDARD_OUTPUT:
        writer = _writer(sys.stdout, kind)
        yield writer
        writer.finish()
        sys.stdout.flush()
    else:
        with _whole_file(path) as file:
            writer = _writer(file, kind)
            yield writer
            writer.finish()


def _writer(file: TextIO, kind: Format) -> Writer:
    return LinesWriter(file) if kind == "ndjson" else ObjectWriter(file)


@contextlib.contextmanager
def _whole_file(path: Path) -> Iterator[TextIO]:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = part.open("w", encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with file:
            yield file
        part.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        part.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write '{path}': {os_reason(error)}")


def parse_line(line: str) -> dict[str, Any]:
    """Return a line's message."""
    message: dict[str, Any] = json.loads(line)
    return message
