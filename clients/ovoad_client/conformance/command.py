"""`python -m ovoad_client.conformance URL`: check any server against wire contract v1."""

import argparse
import asyncio
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from ovoad_client.address import stream_address
from ovoad_client.conformance.catalogue import CHECKS
from ovoad_client.conformance.check import Check, Outcome, run_checks
from ovoad_client.conformance.report import conforms, line, summary, to_json
from ovoad_client.conformance.target import Target
from ovoad_client.connection import open_connection
from ovoad_client.errors import UsageError
from ovoad_client.exits import exit_status
from ovoad_client.interrupts import EXIT_INTERRUPTED

PROGRAM = "ovoad_client.conformance"


def main(argv: list[str] | None = None) -> int:
    """Run the checks; 0 where the server conforms, 1 where it does not, 2 after wrong usage."""
    options = _parser().parse_args(argv)
    try:
        status = exit_status(PROGRAM, lambda: _run(options))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our output left (`… | head`): nothing more can be printed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _run(options: argparse.Namespace) -> int:
    checks = chosen(options.only)
    if options.list:
        print("\n".join(f"{check.name:<48}  {check.says}" for check in checks))
        return 0
    if options.url is None:
        raise UsageError("found no URL, expected ws://HOST:PORT/v1/stream or HOST:PORT")
    target = Target(
        address=stream_address(options.url),
        api_key=options.api_key or None,
        timeout_s=options.timeout,
        slow=options.slow,
    )
    quiet = options.json == "-"
    with _opened(options.json) as report:
        outcomes = asyncio.run(_check(checks, target, tell=_hush if quiet else _tell))
        if report is not None:
            _write(report, to_json(target.address, outcomes))
    print(summary(outcomes), file=sys.stderr if quiet else sys.stdout)
    return 0 if conforms(outcomes) else 1


async def _check(
    checks: Sequence[Check], target: Target, *, tell: Callable[[Outcome], None]
) -> list[Outcome]:
    """Run the checks once the server was reached; raises ClientError where it is not."""
    socket = await open_connection(
        target.address, api_key=target.api_key, timeout_s=target.timeout_s
    )
    await socket.close()
    return await run_checks(checks, target, tell=tell)


def _tell(outcome: Outcome) -> None:
    print(line(outcome), flush=True)


def _hush(outcome: Outcome) -> None:
    """Say nothing: standard output is for the JSON."""


def chosen(prefixes: Sequence[str]) -> list[Check]:
    """Return the checks whose names begin so, all without prefixes; raises UsageError for none."""
    checks = [check for check in CHECKS if check.name.startswith(tuple(prefixes) or "")]
    if not checks:
        raise UsageError(f"found no check named {' or '.join(prefixes)}…, see --list")
    return checks


def _opened(place: str | None) -> contextlib.AbstractContextManager[TextIO | None]:
    """Open where the JSON goes before any check runs; raises UsageError."""
    if place is None or place == "-":
        return contextlib.nullcontext(None if place is None else sys.stdout)
    try:
        return Path(place).open("w", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {place}: {error.strerror}") from error


def _write(report: TextIO, text: str) -> None:
    try:
        report.write(text + "\n")
        report.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UsageError(f"cannot write {report.name}: {error.strerror}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {PROGRAM}",
        description="Check a server against wire contract v1. Opens some hundred short sessions.",
        epilog="Exit status: 0 conforms, 1 does not or cannot be reached, 2 wrong usage.",
    )
    parser.add_argument(
        "url", nargs="?", help="ws://HOST:PORT/v1/stream, http://HOST:PORT, HOST:PORT"
    )
    parser.add_argument(
        "--api-key",
        default=os.environ.get("OVOAD_API_KEY"),
        help="the server's key (OVOAD_API_KEY)",
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="PREFIX", help="checks named so; repeatable"
    )
    parser.add_argument(
        "--timeout", type=_seconds, default=20.0, metavar="S", help="seconds for one check (20)"
    )
    parser.add_argument("--slow", action="store_true", help="also checks that wait 10 s")
    parser.add_argument("--json", metavar="FILE", help="write all outcomes there; - prints them")
    parser.add_argument("--list", action="store_true", help="list the checks and end")
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected seconds above 0")
    return value
