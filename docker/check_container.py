"""Run a service of compose.yaml from an unpacked image, confined as an engine would: for checks.

Needs root and Linux. What an engine does beyond this and is not done here: limits on memory and
processes, seccomp, published ports.
"""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Image:
    """An unpacked image: its root, and the configuration that its Dockerfile gave it."""

    root: Path
    environment: dict[str, str]
    entrypoint: list[str]
    command: list[str]
    user: str
    directory: str
    health: list[str]

    @classmethod
    def of(cls, root: Path, config: Mapping[str, Any]) -> "Image":
        """Read the fields of an image's configuration (Docker's format)."""
        return cls(
            root=root,
            environment=dict(pair.split("=", 1) for pair in config.get("Env") or []),
            entrypoint=config.get("Entrypoint") or [],
            command=config.get("Cmd") or [],
            user=config.get("User") or "0:0",
            directory=config.get("WorkingDir") or "/",
            health=(config.get("Healthcheck") or {}).get("Test", [])[1:],
        )


@dataclass
class Container:
    """A service's process in namespaces of its own."""

    image: Image
    environment: dict[str, str]
    process: "subprocess.Popen[bytes]"
    started_s: float
    pid: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        """Find the first process of the container, the only child of unshare; 0 if it has ended.

        It is the service once it is not root any more: that is what check_container.sh does last.
        """
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        while self.pid == 0 and self.process.poll() is None:
            for child in children.read_text().split():
                if Path(f"/proc/{child}").stat().st_uid != 0:
                    self.pid = int(child)
            time.sleep(0.01)

    def execute(
        self,
        command: Sequence[str],
        *,
        text: str | None = None,
        environment: Mapping[str, str] | None = None,
        timeout_s: float = 120,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command beside the process, as its user and in its namespaces, like `exec`."""
        user, _, group = self.image.user.partition(":")
        variables = {**self.environment, **(environment or {})}
        return subprocess.run(
            [
                *("nsenter", f"--target={self.pid}", "--mount", "--net", "--pid", "--ipc", "--uts"),
                *("--root", "--wd", f"--setuid={user}", f"--setgid={group}"),
                *("/usr/bin/env", "-i", *(f"{name}={value}" for name, value in variables.items())),
                *command,
            ],
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def memory_mb(self) -> float:
        """Return the proportional share of memory of all its processes, in MB (10^6)."""
        total_kib = 0
        for pid in descendants(self.pid):
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total_kib += int(rollup.split("\nPss:")[1].split()[0])
        return total_kib * 1024 / 1e6

    def privileges(self) -> dict[str, str]:
        """Return what the kernel says of the first process's user, capabilities and seccomp."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        pairs = dict(line.split(":", 1) for line in lines)
        names = ("Uid", "Gid", "CapPrm", "CapEff", "CapBnd", "NoNewPrivs")
        return {name: " ".join(pairs[name].split()) for name in names}

    def stop(self, timeout_s: float) -> tuple[int, float]:
        """Send SIGTERM as an engine does; returns exit status and seconds taken."""
        begun_s = time.monotonic()
        os.kill(self.pid, signal.SIGTERM)
        status = self.process.wait(timeout_s)
        return status, time.monotonic() - begun_s


def start(image: Image, service: Mapping[str, Any], folders: Mapping[str, Path]) -> Container:
    """Start a service; its volumes are found in `folders` by name, and made there like an engine's.

    A new volume takes owner and mode of the image's folder that it covers.
    """
    environment = {**image.environment, **service.get("environment", {})}
    mounts: list[str] = []
    for volume in service.get("volumes", []):
        name, target, *mode = volume.split(":")
        prepare_volume(folders[name], image.root / target.lstrip("/"))
        mounts += ["--volume", str(folders[name]), target, *(mode or ["rw"])]
    for each in service.get("tmpfs", []):
        target, _, options = each.partition(":")
        mounts += ["--tmpfs", target, options or "mode=1777"]
    command = [
        *service.get("entrypoint", image.entrypoint),
        *service.get("command", [] if "entrypoint" in service else image.command),
    ]
    user, _, group = image.user.partition(":")
    started_s = time.monotonic()
    process = subprocess.Popen(
        [
            *("unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child"),
            *("sh", str(HERE / "check_container.sh"), str(image.root), *mounts, "--"),
            *(image.directory, user, group, group),
            *(f"{name}={value}" for name, value in environment.items()),
            *command,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return Container(image, environment, process, started_s)


def prepare_volume(folder: Path, covered: Path) -> None:
    """Make an empty volume that looks like the folder it covers."""
    if folder.exists():
        return
    folder.mkdir(parents=True)
    facts = covered.stat()
    os.chown(folder, facts.st_uid, facts.st_gid)
    folder.chmod(facts.st_mode & 0o7777)


def descendants(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for each in found:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            found += [int(child) for child in children.read_text().split()]
    return found
