"""`ovoad keys`: add, revoke and list the keys in a file, whether a server follows it or not."""

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from ovoad_server.keys.file import (
    DEFAULT_NAME,
    MOST_KEYS,
    ApiKey,
    KeysFileError,
    locked,
    read_keys,
    write_keys,
)
from ovoad_server.keys.secret import check_strength, digest_of, generate_key

VARIABLE: Final = "OVOAD_KEYS_FILE"
LONGEST_KEY: Final = 4096


class _UsageError(Exception):
    """Something asked for that cannot be done, found before anything was written."""


def main(argv: list[str] | None = None) -> int:
    """Run a subcommand; 2 after wrong usage, 1 where the file cannot be read or written."""
    arguments = _parser().parse_args(argv)
    try:
        path = _path(arguments.file)
        match arguments.action:
            case "add":
                _add(path, arguments)
            case "revoke":
                _revoke(path, arguments.name)
            case _:
                _list(path)
    except _UsageError as error:
        print(f"ovoad keys: {error}", file=sys.stderr)
        return 2
    except KeysFileError as error:
        print(f"ovoad keys: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ovoad keys",
        description="Add, revoke and list the API keys of a server. It takes changes over within "
        "about a second, without a restart.",
    )
    file = argparse.ArgumentParser(add_help=False)
    file.add_argument(
        "--file", type=Path, metavar="FILE", help=f"file of keys ({VARIABLE} where it is set)"
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="add|revoke|list")
    add = actions.add_parser(
        "add",
        parents=[file],
        help="make a key and print it, this once",
        description="Make a key, print it on standard output, and keep its SHA-256. It cannot be "
        "shown again.",
    )
    add.add_argument("name", metavar="NAME", help="letters, digits and . _ -, at most 64")
    add.add_argument("--sessions", type=int, metavar="N", help="sessions at once, clips too")
    add.add_argument("--fps", type=float, metavar="X", help="frames/s of a session")
    add.add_argument("--labels", type=int, metavar="N", help="labels of a vocabulary")
    add.add_argument(
        "--from-stdin",
        action="store_true",
        help="take a key made elsewhere, one line on standard input; nothing is printed",
    )
    revoke = actions.add_parser(
        "revoke", parents=[file], help="remove a key; its sessions end within seconds"
    )
    revoke.add_argument("name", metavar="NAME")
    actions.add_parser("list", parents=[file], help="print names, limits and dates, no key")
    return parser


def _path(given: Path | None) -> Path:
    if given is not None:
        return given
    named = os.environ.get(VARIABLE)
    if not named:
        raise _UsageError(f"found no file of keys, expected --file FILE or {VARIABLE}")
    return Path(named)


def _add(path: Path, arguments: argparse.Namespace) -> None:
    secret = _secret_from_stdin() if arguments.from_stdin else generate_key()
    key = _make_key(secret, arguments)
    with locked(path):
        keys = _read(path)
        if any(key.name == other.name for other in keys):
            raise _UsageError(
                f"found a key named {key.name} in {path}, expected another name "
                f"(or first: ovoad keys revoke {key.name})"
            )
        if any(key.sha256 == other.sha256 for other in keys):
            raise _UsageError(f"found this key in {path} already, expected a new one")
        if len(keys) >= MOST_KEYS:
            raise _UsageError(f"found {len(keys)} keys in {path}, expected at most {MOST_KEYS}")
        write_keys(path, [*keys, key])
    if not arguments.from_stdin:
        print(secret)
    shown = "" if arguments.from_stdin else "; it is shown this once"
    print(f"added key {key.name} to {path}{shown}", file=sys.stderr)


def _make_key(secret: str, arguments: argparse.Namespace) -> ApiKey:
    if arguments.name == DEFAULT_NAME:
        raise _UsageError(f"found name {DEFAULT_NAME}, which is that of OVOAD_API_KEY")
    try:
        return ApiKey(
            name=arguments.name,
            sha256=digest_of(secret.encode()).hex(),
            created=datetime.now(UTC).replace(microsecond=0),
            sessions=arguments.sessions,
            fps=arguments.fps,
            labels=arguments.labels,
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise _UsageError(f"{place}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None


def _secret_from_stdin() -> str:
    secret = sys.stdin.readline(LONGEST_KEY + 2).rstrip("\r\n")
    try:
        check_strength(secret)
    except ValueError as error:
        raise _UsageError(str(error)) from None
    if len(secret) > LONGEST_KEY:
        raise _UsageError(f"found a key of more than {LONGEST_KEY} characters, expected fewer")
    return secret


def _revoke(path: Path, name: str) -> None:
    with locked(path):
        keys, _ = read_keys(path)
        left = [key for key in keys if key.name != name]
        if len(left) == len(keys):
            known = ", ".join(key.name for key in keys) or "none at all"
            raise _UsageError(f"found no key named {name} in {path}, expected one of: {known}")
        write_keys(path, left)
    print(f"revoked key {name} in {path}, {len(left)} left", file=sys.stderr)


def _list(path: Path) -> None:
    keys, _ = read_keys(path)
    rows = [("NAME", "SESSIONS", "FPS", "LABELS", "CREATED"), *(_row(key) for key in keys)]
    _print_table(rows)


def _read(path: Path) -> tuple[ApiKey, ...]:
    """Return the keys of a file, none where there is no file yet."""
    return read_keys(path)[0] if os.path.lexists(path) else ()


def _row(key: ApiKey) -> tuple[str, ...]:
    created = "" if key.created is None else key.created.strftime("%Y-%m-%d")
    fps = None if key.fps is None else f"{key.fps:g}"
    limits = (key.sessions, fps, key.labels)
    return (key.name, *("-" if limit is None else str(limit) for limit in limits), created)


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(line.rstrip())


if __name__ == "__main__":
    sys.exit(main())
