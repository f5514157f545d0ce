"""Build an image from docker/Dockerfile without a container engine: debootstrap and buildah.

The base is Debian 12 with Debian's own Python 3.11, under the name that the Dockerfile asks for. So
the Dockerfile runs unchanged, but the base is not the published one: its size differs, and its
interpreter lies in /usr/bin instead of /usr/local/bin.
"""

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from check_container import Image

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "docker" / "Dockerfile"
SUITE = "bookworm"
PACKAGES = "python3,python3-venv,ca-certificates"


class Builder:
    """buildah with a storage of its own below `work`, and the base image in it."""

    def __init__(self, work: Path, *, mirror: str, ca: Path | None) -> None:
        self._work = work
        self._mirror = mirror
        self._ca = ca
        storage = ("--storage-driver", "vfs", "--root", f"{work}/storage", "--runroot")
        self._buildah = ("buildah", *storage, f"{work}/run")

    def build(self, target: str, *, archive: Path | None = None) -> Image:
        """Build a target, keep it in an archive where one is named, and unpack it."""
        self._make_base()
        tag = f"localhost/ovoad:{target}"
        command = ["build", "--isolation", "chroot", "--format", "docker", "--pull-never"]
        command += ["--target", target, "--file", str(DOCKERFILE), "--tag", tag, *self._trust()]
        self._run([*command, str(ROOT)], shown=True)
        if archive is not None:
            archive.unlink(missing_ok=True)
            self._run(["push", tag, f"docker-archive:{archive}:docker.io/library/ovoad:{target}"])
        container = self._run(["from", "--pull-never", tag])
        root = Path(self._run(["mount", container]))
        found = json.loads(self._run(["inspect", "--type", "image", tag]))
        config: dict[str, Any] = found["Docker"]["config"]
        return Image.of(root, config)

    def _make_base(self) -> None:
        name = base_name(DOCKERFILE.read_text())
        if self._run(["images", "--quiet", f"docker.io/library/{name}"], check=False):
            return
        folder = self._work / "base"
        subprocess.run(
            [
                *("unshare", "--mount"),  # what debootstrap mounts ends with it
                *("debootstrap", "--variant=minbase", f"--include={PACKAGES}"),
                *(SUITE, str(folder), self._mirror),
            ],
            check=True,
        )
        for spent in ("var/cache/apt", "var/lib/apt/lists"):  # as the published images leave them
            subprocess.run(["find", str(folder / spent), "-type", "f", "-delete"], check=True)
        container = self._run(["from", "scratch"])
        self._run(["add", container, str(folder), "/"])
        self._run(["config", "--env", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", container])
        self._run(["commit", "--format", "docker", "--rm", container, f"docker.io/library/{name}"])
        subprocess.run(["rm", "-rf", str(folder)], check=True)

    def _trust(self) -> Sequence[str]:
        """Let pip trust the authorities in a file, where the way to the index needs it."""
        if self._ca is None:
            return ()
        settings = self._work / "pip.conf"
        settings.write_text("[global]\ncert = /etc/ssl/build-authorities.crt\n")
        mounts = (f"{settings}:/etc/pip.conf:ro", f"{self._ca}:/etc/ssl/build-authorities.crt:ro")
        return tuple(part for mount in mounts for part in ("--volume", mount))

    def _run(self, command: Sequence[str], *, shown: bool = False, check: bool = True) -> str:
        out = None if shown else subprocess.PIPE
        done = subprocess.run([*self._buildah, *command], stdout=out, text=True, check=check)
        return (done.stdout or "").strip()


def base_name(dockerfile: str) -> str:
    """Return the image that the build starts from: the default of the argument BASE."""
    found = re.search(r"^ARG BASE=(\S+)$", dockerfile, re.MULTILINE)
    if found is None:
        raise ValueError("found no ARG BASE=IMAGE in the Dockerfile, expected one")
    return found[1]
