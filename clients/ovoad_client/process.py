"""Run a server as a process of its own and stop it again. Knows it by its command line only."""

import asyncio
import contextlib
import os
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from ovoad_client.errors import ServerStartError

READY_LINE: Final = re.compile(rb"ovoad_server listening on (http://\S+)")
START_TIMEOUT_S: Final = 180.0
STOP_TIMEOUT_S: Final = 10.0
LOG_LINES_SHOWN: Final = 15
_POLL_S: Final = 0.1
_TELL_EVERY_S: Final = 2.0


@contextlib.asynccontextmanager
async def running_server(
    arguments: Sequence[str],
    *,
    log: Path,
    say: Callable[[str], None],
    start_timeout_s: float = START_TIMEOUT_S,
) -> AsyncIterator[str]:
    """Start `python -m ovoad_server`, yield its address once it is ready, stop it at the end.

    Everything that it prints goes to `log`. Raises ServerStartError with the log's tail.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "ovoad_server", *arguments]
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C is ours; the server is stopped in order
        )
        address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        copying = asyncio.create_task(_copy_output(process, file, address))
        try:
            yield await _wait_until_ready(process, address, log, say, start_timeout_s)
        finally:
            await _stop(process)
            await copying
            if address.done() and not address.cancelled():
                address.exception()  # told already, or of no more interest


async def _copy_output(
    process: asyncio.subprocess.Process, file: BinaryIO, address: "asyncio.Future[str]"
) -> None:
    """Copy what the server prints to its log, and find the line that tells its address."""
    assert process.stdout is not None
    seen = b""
    while chunk := await process.stdout.read(4096):
        file.write(chunk)
        file.flush()
        if not address.done():
            seen = (seen + chunk)[-8192:]
            found = READY_LINE.search(seen)
            if found is not None and b"\n" in seen[found.end() :]:
                address.set_result(found.group(1).decode())


async def _wait_until_ready(
    process: asyncio.subprocess.Process,
    address: "asyncio.Future[str]",
    log: Path,
    say: Callable[[str], None],
    timeout_s: float,
) -> str:
    start_s = told_s = time.monotonic()
    while True:
        now_s = time.monotonic()
        if process.returncode is not None:
            raise ServerStartError(_with_tail(f"the server ended ({process.returncode})", log))
        if address.done() and await asyncio.to_thread(_is_ready, address.result()):
            return address.result()
        if now_s - start_s > timeout_s:
            raise ServerStartError(
                _with_tail(f"the server was not ready within {timeout_s:g} s", log)
            )
        if now_s - told_s >= _TELL_EVERY_S:
            told_s = now_s
            what = "answering its readiness check" if address.done() else "loading"
            say(f"  … {now_s - start_s:.0f} s, the server is {what}")
        await asyncio.sleep(_POLL_S)


def _is_ready(address: str) -> bool:
    """Ask the server whether it scores; a server that is not up yet answers no."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback: no proxy
    try:
        with opener.open(f"{address}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Ask the server to end, and end it if it does not, or if there is no patience left."""
    if process.returncode is not None:
        return
    try:
        process.terminate()
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()
    except (ProcessLookupError, TimeoutError):
        pass
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    await process.wait()


def _with_tail(what: str, log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES_SHOWN:]
    tail = "\n".join(f"  | {line}" for line in lines) or "  | (it printed nothing)"
    return f"{what}; the end of its log {log}:\n{tail}"
