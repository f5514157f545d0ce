"""The processes of a Ray that this machine runs below this process, by what they do. Linux."""

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Final, Literal

from ovoad_client.bench.resources import descendants, processor_s, resident_kib

Role = Literal["ingress", "encoder", "controller", "Ray itself", "server"]
ROLES: Final[tuple[Role, ...]] = ("ingress", "encoder", "controller", "Ray itself", "server")
_TITLES: Final[dict[str, Role]] = {
    "ray::ServeReplica:ovoad:ingress": "ingress",
    "ray::ServeReplica:ovoad:encoder": "encoder",
    "ray::ServeController": "controller",
    "ray::": "Ray itself",  # workers at rest, and the others that Ray keeps
}
_PROGRAMS: Final = ("raylet", "gcs_server", "/ray/dashboard/", "/ray/_private/")
GONE_TIMEOUT_S: Final = 15.0


def by_role() -> dict[Role, list[int]]:
    """Return the processes below this one, by role."""
    found: dict[Role, list[int]] = {role: [] for role in ROLES}
    for pid in descendants(os.getpid()):
        found[_role(pid)].append(pid)
    return found


def processor_by_role() -> dict[Role, float]:
    """Return the processor time of each role's processes, in seconds."""
    return {role: processor_s(pids) for role, pids in by_role().items()}


def resident_mib_by_role() -> dict[Role, float]:
    """Return the memory of each role's processes."""
    return {role: resident_kib(pids) / 1024 for role, pids in by_role().items()}


def port_of(pid: int, ports: range) -> int | None:
    """Return which of these ports a process listens at, None for none."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(os.readlink(link))
    for row in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = row.split()
        port = int(fields[1].rpartition(":")[2], 16)
        if fields[3] == "0A" and port in ports and f"socket:[{fields[9]}]" in inodes:
            return port
    return None


def end(pids: list[int]) -> None:
    """Kill those of these processes that are still there; for what a server has left behind."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def until_gone(pids: list[int]) -> list[int]:
    """Wait a while for processes to end; returns those that do not."""
    give_up_s = time.monotonic() + GONE_TIMEOUT_S
    while (left := [pid for pid in pids if _lives(pid)]) and time.monotonic() < give_up_s:
        time.sleep(0.1)
    return left


def _lives(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def _role(pid: int) -> Role:
    command = ""
    with contextlib.suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    for title, role in _TITLES.items():
        if command.startswith(title):
            return role
    return "Ray itself" if any(part in command for part in _PROGRAMS) else "server"
