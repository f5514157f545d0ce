"""Podman behind Docker's interface, and docker-compose before it, with storage of their own.

Everything is made inside the namespaces of the caller; with runc and cgroupfs, for want of systemd.
"""

import os
import subprocess
import time
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[1]
PROJECT = "ovoad-check"
SETTINGS = """\
[containers]
default_ulimits = ["nofile={files}:{files}", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
[network]
network_backend = "netavark"
"""
STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{work}/storage"
runroot = "{work}/run"
"""
STAND_INS = {
    "prom/prometheus:v3.13.3": (
        "prometheus",
        [
            *("--user", "65534:65534", "--entrypoint", '["prometheus"]', "--volume", "/prometheus"),
            *("--workingdir", "/prometheus"),
        ],
    ),
    "library/caddy:2.11.4-alpine": (
        "caddy",
        [
            *("--env", "XDG_DATA_HOME=/data", "--env", "XDG_CONFIG_HOME=/config", "--cmd"),
            "caddy run --config /etc/caddy/Caddyfile --adapter caddyfile",
        ],
    ),
}
"""Debian's programs in the place of published images: package, and configuration of the image."""


class Engine:
    """A context: the service runs inside, and every container is gone after it."""

    def __init__(self, work: Path, archive: Path) -> None:
        self._work = work
        self._archive = archive.resolve()
        self._socket = f"unix://{work}/podman.sock"
        self._environment = {
            **os.environ,
            "CONTAINERS_CONF": f"{work}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{work}/storage.conf",
            "DOCKER_HOST": self._socket,
            "COMPOSE_HTTP_TIMEOUT": "300",
            "DOCKER_CLIENT_TIMEOUT": "300",
        }

    def __enter__(self) -> "Engine":
        self._work.mkdir(parents=True, exist_ok=True)
        files = os.sysconf("SC_OPEN_MAX")
        (self._work / "containers.conf").write_text(SETTINGS.format(files=files))
        (self._work / "storage.conf").write_text(STORAGE.format(work=self._work))
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        self.podman("load", "--input", str(self._archive))
        self._service = subprocess.Popen(
            ["podman", "system", "service", "--time=0", self._socket],
            env=self._environment,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(3)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.compose("down", "--volumes")
        finally:
            self._service.terminate()
            self._service.wait(30)

    def compose(self, *arguments: str) -> str:
        """Run docker-compose in the project's root; returns what it prints."""
        return self._run("docker-compose", "--project-name", PROJECT, *arguments)

    def podman(self, *arguments: str, text: str | None = None) -> str:
        """Run podman; returns what it prints."""
        return self._run("podman", *arguments, text=text)

    def attempt(self, *arguments: str) -> int:
        """Run podman; returns the exit status."""
        return subprocess.run(
            ["podman", *arguments], env=self._environment, capture_output=True
        ).returncode

    def container(self, service: str) -> str:
        """Return the name of a service's container."""
        return f"{PROJECT}_{service}_1"

    def named(self, part: str) -> str:
        """Return the name of one of the project's networks or volumes."""
        return f"{PROJECT}_{part}"

    def logs(self, service: str) -> str:
        """Return what a service's container has printed, where it still is."""
        done = subprocess.run(
            ["podman", "logs", self.container(service)],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.stdout

    def make_stand_ins(self) -> None:
        """Make images of the published names from Debian's own files of this machine."""
        for name, (package, configuration) in STAND_INS.items():
            container = self._run("buildah", "from", "--pull-never", "ovoad:cpu").strip()
            root = Path(self._run("buildah", "mount", container).strip())
            program = Path(f"/usr/bin/{package}")
            (root / "usr" / "bin" / package).write_bytes(program.read_bytes())
            (root / "usr" / "bin" / package).chmod(0o755)
            for folder, owner in (("prometheus", 65534), ("data", 0), ("config", 0)):
                (root / folder).mkdir()
                os.chown(root / folder, owner, owner)
            plain = ("--user", "0:0", "--entrypoint", "[]", "--cmd", "", "--workingdir", "/")
            self._run("buildah", "config", *plain, *configuration, container)
            self._run("buildah", "commit", "--format", "docker", container, f"docker.io/{name}")

    def _run(self, *command: str, text: str | None = None) -> str:
        done = subprocess.run(
            command, cwd=ROOT, env=self._environment, input=text, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)[:200]}: {done.stdout}{done.stderr}")
        return done.stdout
