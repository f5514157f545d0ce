"""The server under fire: a process of its own, its vital signs, its log. Knows no message."""

import asyncio
import contextlib
import json
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

KEY: Final = "correct-horse"
READY_LINE: Final = re.compile(r"ovoad_server listening on http://([\d.]+):(\d+)")
START_TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 30.0
SETTINGS: Final = {
    "OVOAD_API_KEY": KEY,
    "OVOAD_MAX_FRAME_BYTES": str(256 * 1024),
    "OVOAD_MAX_LABELS": "200",
    "OVOAD_CREATE_TIMEOUT_S": "2",
    "OVOAD_IDLE_TIMEOUT_S": "4",
    "OVOAD_MAX_FPS": "1000",
    "OVOAD_RUNTIME": "onnxruntime",
    "OVOAD_PROMISED_FPS": "0",  # sessions are bounded by their number alone
    "OVOAD_RESUME_S": "1",  # so that broken sessions are forgotten before the last look
}


@dataclass(frozen=True)
class Vitals:
    """What a leak would show in, of the server and its workers."""

    descriptors: int
    threads: int
    resident_mib: float


@dataclass(frozen=True)
class Target:
    """A running server."""

    host: str
    port: int
    process: asyncio.subprocess.Process
    log: Path

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.returncode is None

    def get(self, path: str) -> tuple[int, str]:
        """Return status and body of a GET request with the key."""
        request = urllib.request.Request(
            f"http://{self.host}:{self.port}{path}", headers={"Authorization": f"Bearer {KEY}"}
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=30) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metrics(self) -> dict[str, float]:
        """Return all samples of /metrics."""
        lines = self.get("/metrics")[1].splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and line[0] != "#")
        return {name: float(value) for name, value in pairs}

    def readiness(self) -> str | None:
        """Return why the server is not ready; None where it is."""
        status, body = self.get("/readyz")
        return None if status == 200 and json.loads(body)["ready"] else body

    def vitals(self) -> Vitals:
        """Count open files, threads and memory of the process and its children."""
        files = threads = 0
        resident = 0.0
        for pid in _family(self.process.pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                files += len(os.listdir(f"/proc/{pid}/fd"))
                status = Path(f"/proc/{pid}/status").read_text()
                threads += int(_field(status, "Threads"))
                resident += int(_field(status, "VmRSS").removesuffix(" kB")) / 1024
        return Vitals(files, threads, resident)

    def log_text(self) -> str:
        """Return what the server has printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")


def _field(status: str, name: str) -> str:
    return next(
        line.partition(":")[2] for line in status.splitlines() if line.startswith(name)
    ).strip()


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(grandchild for child in children for grandchild in _family(int(child)))]


@contextlib.asynccontextmanager
async def running_target(folder: Path, more: Mapping[str, str]) -> AsyncIterator[Target]:
    """Start `python -m ovoad_server` on a free port; stop it at the end."""
    log = folder / "server.log"
    outside = {name: value for name, value in os.environ.items() if not name.startswith("OVOAD_")}
    settings = {**SETTINGS, "OVOAD_CACHE": str(folder / "cache"), **more}
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "ovoad_server", "--port", "0"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env={**outside, **settings, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
    try:
        host, port = await _address(process, log)
        yield Target(host, port, process, log)
    finally:
        if process.returncode is None:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _address(process: asyncio.subprocess.Process, log: Path) -> tuple[str, int]:
    async with asyncio.timeout(START_TIMEOUT_S):
        while not (found := READY_LINE.search(log.read_text())):
            if process.returncode is not None:
                raise SystemExit(f"the server did not start:\n{log.read_text()}")
            await asyncio.sleep(0.05)
    return found.group(1), int(found.group(2))
