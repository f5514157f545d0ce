"""What processes take of this machine, from /proc: memory and processor time. Linux."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

_PROC = Path("/proc")
_SPARE_FILES = 256


def descendants(pid: int) -> list[int]:
    """Return the processes that a process started, and those they started."""
    children: dict[int, list[int]] = {}
    for folder in _PROC.iterdir() if _PROC.is_dir() else ():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError, ValueError):
                children.setdefault(int(_stat(int(folder.name))[1]), []).append(int(folder.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def resident_kib(pids: Iterable[int]) -> int:
    """Return the memory of processes in KiB: shared pages shared out (Pss) where readable."""
    return sum(_memory_kib(pid, "Pss:") for pid in pids)


def anonymous_kib(pids: Iterable[int]) -> int:
    """Return the memory of processes in KiB that no file backs: what a leak would grow.

    Unlike `resident_kib`, it does not move when other processes map the same libraries.
    """
    return sum(_memory_kib(pid, "Pss_Anon:") for pid in pids)


def processor_s(pids: Iterable[int]) -> float:
    """Return the processor time that live processes have taken, in seconds."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = _stat(pid)
            ticks += int(fields[11]) + int(fields[12])  # utime, stime
    return ticks / os.sysconf("SC_CLK_TCK")


def allow_files(count: int) -> None:
    """Raise this process's bound on open files, and its children's, as far as the system lets."""
    try:
        import resource
    except ModuleNotFoundError:  # no such bound on this system
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + _SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name: state, parent, …"""
    text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    return text.rpartition(")")[2].split()


def _memory_kib(pid: int, key: str) -> int:
    """Return a figure of smaps_rollup in KiB; where that is closed to us, the whole RSS."""
    for name, start in (("smaps_rollup", key), ("status", "VmRSS:")):
        with contextlib.suppress(OSError):
            for line in (_PROC / str(pid) / name).read_text(encoding="utf-8").splitlines():
                if line.startswith(start):
                    return int(line.split()[1])
    return 0
