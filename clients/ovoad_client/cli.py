"""`ovoad COMMAND`: find the command among the installed ones and run it. Knows none by import."""

import asyncio
import difflib
import importlib.metadata
import io
import os
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from typing import Final, cast

from ovoad_client.errors import ClientError, UsageError
from ovoad_client.interrupts import EXIT_INTERRUPTED

GROUP: Final = "ovoad.commands"
SUMMARIES: Final[Mapping[str, str]] = {
    "serve": "serve action detection over WebSocket and HTTP",
    "watch": "stream a video, camera or address to a server and show its answers",
    "clip": "score a whole video file on a server",
    "archive": "score folders and object stores of videos, Parquet out",
    "demo": "start a server, stream a real video to it, draw its timeline",
    "evaluate": "measure a detector on labelled videos",
    "features": "write the frame features of a folder of videos",
    "captions": "convert annotations to timed captions",
    "train": "train the scorer ovoad",
    "keys": "add, revoke and list the API keys of a server",
    "bench": "load a server, tell frames/s, latency and capacity",
    "encoders": "list the encoders that can be named",
}
# Whose libraries a command needs; commands that need more than the bare install say so here.
EXTRAS: Final[Mapping[str, str]] = {
    "ovoad_server": "server",
    "ovoad_model": "server",
    "ovoad_client": "watch",
}
COMMAND_EXTRAS: Final[Mapping[str, str]] = {
    "archive": "scale",
    "demo": "server,demo",  # both sides at once
}
ONLY_IN_MODEL_EXTRA: Final = ("torch", "torchvision", "open_clip", "safetensors", "tensorboard")
Command = Callable[[list[str]], int]


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit status."""
    _never_fail_to_print()
    try:
        status = _dispatch(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output left (`ovoad … | head`): nothing more can be printed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _dispatch(arguments: list[str]) -> int:
    commands = installed_commands()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(help_text(commands))
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        print(f"ovoad {_version()}")
        return 0
    entry = commands.get(arguments[0])
    if entry is None:
        print(f"ovoad: {_unknown(arguments[0], commands)}", file=sys.stderr)
        return 2
    return _run(entry, arguments[1:])


def installed_commands() -> dict[str, EntryPoint]:
    """Return command name -> entry point, in the order of the help text."""
    found = {entry.name: entry for entry in importlib.metadata.entry_points(group=GROUP)}
    order = [*SUMMARIES, *sorted(set(found) - set(SUMMARIES))]
    return {name: found[name] for name in order if name in found}


def help_text(commands: Mapping[str, EntryPoint]) -> str:
    """Return usage and one line a command."""
    width = max((len(name) for name in commands), default=0)
    lines = [
        "usage: ovoad COMMAND [ARGUMENT …]",
        "",
        "Real-time open-vocabulary action detection: frames in, probabilities of actions out.",
        "",
        "commands:",
        *(
            f"  {name:<{width}}  {SUMMARIES.get(name, entry.value)}"
            for name, entry in commands.items()
        ),
        "",
        "ovoad COMMAND --help tells a command's flags; ovoad --version the version.",
    ]
    if not commands:
        lines[5:5] = ["  none found; is ovoad installed? pip install ovoad"]
    return "\n".join(lines)


def _run(entry: EntryPoint, arguments: list[str]) -> int:
    try:
        command = cast(Command, entry.load())
        return command(arguments)
    except ModuleNotFoundError as error:
        print(f"ovoad {entry.name}: {_missing(entry, error)}", file=sys.stderr)
        return 1
    except UsageError as error:
        print(f"ovoad {entry.name}: {error}", file=sys.stderr)
        return 2
    except ClientError as error:
        print(f"ovoad {entry.name}: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return EXIT_INTERRUPTED
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)


def _missing(entry: EntryPoint, error: ModuleNotFoundError) -> str:
    """Say which extra brings the module that an import did not find."""
    package = entry.module.split(".")[0]
    name = error.name or "?"
    if name.split(".")[0] in EXTRAS:
        return f"this installation has no module {name}, expected it in the package ovoad"
    needs_torch = name.split(".")[0] in ONLY_IN_MODEL_EXTRA
    extra = "model" if needs_torch else EXTRAS.get(package, "dev")
    return f"needs the {extra} extra (found no module {name}): pip install 'ovoad[{extra}]'"


def _unknown(name: str, commands: Mapping[str, EntryPoint]) -> str:
    nearest = difflib.get_close_matches(name, commands, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}?" if nearest else f"expected one of {', '.join(commands)}"
    return f"found unknown command {name!r}, {hint}"


def _version() -> str:
    try:
        return importlib.metadata.version("ovoad")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _never_fail_to_print() -> None:
    """Replace characters that the terminal's encoding lacks, rather than end with an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
