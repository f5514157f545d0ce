"""Build the image and run it as compose.yaml says, without a container engine; exit 0 if all holds.

    sudo apt-get install buildah debootstrap python3-yaml
    sudo python3 docker/check_image.py --report image.json

Needs root, Linux and about 4 GB below --work, which is removed at the end. What it does and what
an engine does beyond that is told in docs/docker.md.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml
from check_build import ROOT, Builder
from check_container import Container, Image, start

FOLDERS = ("data", "keys", "metrics-key")
KEY = "ovoad_api_key"
MIRROR = "http://deb.debian.org/debian"


def main() -> int:
    """Build, run, compare, and print what was found."""
    parser = argparse.ArgumentParser(description="Build and run the image without an engine.")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/ovoad-image"))
    parser.add_argument("--target", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--mirror", default=MIRROR, help="Debian mirror")
    parser.add_argument("--ca", type=Path, help="authorities that pip is to trust beyond its own")
    parser.add_argument("--report", type=Path, help="file for the figures, as JSON")
    parser.add_argument("--archive", type=Path, help="file to leave the image in")
    parser.add_argument("--keep", action="store_true", help="leave the image below --work")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    try:
        image = Builder(arguments.work, mirror=arguments.mirror, ca=arguments.ca).build(
            arguments.target, archive=arguments.archive
        )
        report = check(image, arguments.work / "volumes")
    finally:
        if not arguments.keep:
            shutil.rmtree(arguments.work)
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.report:
        arguments.report.write_text(text + "\n")
    for fault in report["faults"]:
        print(f"fault: {fault}", file=sys.stderr)
    return 1 if report["faults"] else 0


def check(image: Image, volumes: Path) -> dict[str, Any]:
    """Start services first-key and server of compose.yaml on new volumes; returns what was seen."""
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    shutil.rmtree(volumes, ignore_errors=True)
    folders = {name: volumes / name for name in FOLDERS}
    before = files_of(image.root)
    for _ in range(2):  # a second start must leave the keys as they are
        first = start(image, services["first-key"], folders)
        printed, _ = first.process.communicate(timeout=60)
        if first.process.returncode != 0:
            raise RuntimeError(f"first-key failed: {printed.decode()}")
    key = (folders["metrics-key"] / KEY).read_text().strip()
    server = start(image, services["server"], folders)
    try:
        seen = watch(server, key)
        seen["stop_status"], seen["stop_s"] = server.stop(timeout_s=25)
    finally:
        server.process.kill()
        log = server.process.communicate()[0].decode()
    changed = sorted(set(before.items()) ^ set(files_of(image.root).items()))
    seen |= {
        "sizes_mb": sizes(image.root),
        "written_in_volumes": {name: sorted(files_of(folders[name])) for name in FOLDERS},
        "changed_in_image": [str(path) for path, _ in changed],
        "log": log.splitlines(),
    }
    return {**seen, "faults": faults(seen, key)}


def watch(server: Container, key: str) -> dict[str, Any]:
    """Hold a session from inside the container, ask for its health, and try to write."""
    session = server.execute(
        ["python", "-"],
        text=(ROOT / "docker" / "check_session.py").read_text(),
        environment={
            "API_KEY": key,
            "PORT": server.environment["OVOAD_PORT"],
            "STARTED_S": str(server.started_s),
        },
    )
    if session.returncode != 0:
        raise RuntimeError(f"the session failed: {session.stdout}{session.stderr}")
    health = server.execute(server.image.health)
    writes = {
        folder: server.execute(["sh", "-c", f"touch {folder}/written"]).returncode
        for folder in ("/", "/etc", "/opt/ovoad", "/usr", "/var", "/var/lib/ovoad-keys")
    }
    network = server.execute(["sh", "-c", "cat /proc/net/dev | tail -n +3 | cut -d: -f1"])
    return {
        "session": json.loads(session.stdout),
        "health": {"status": health.returncode, "said": health.stdout.strip()},
        "memory_mb": round(server.memory_mb()),
        "privileges": server.privileges(),
        "networks": network.stdout.split(),
        "writes_refused": [folder for folder, status in writes.items() if status != 0],
        "writes_allowed": [folder for folder, status in writes.items() if status == 0],
    }


def faults(seen: dict[str, Any], key: str) -> list[str]:
    """Return what is not as it must be."""
    session, privileges = seen["session"], seen["privileges"]
    uid = privileges["Uid"].split()[0]
    expected = {
        "every frame is predicted": session["predictions"] == 60,
        "who has no key is refused": session["without_key"] == 401,
        "Prometheus's key opens /metrics": session["metrics_with_key"] == 200,
        "the health check is green": seen["health"]["status"] == 0,
        "the user is not root": uid == "10001",
        "there are no capabilities": int(privileges["CapBnd"], 16) == 0,
        "no privileges can be gained": privileges["NoNewPrivs"] == "1",
        "loopback is the only network": seen["networks"] == ["lo"],
        "nothing else can be written": not seen["writes_allowed"],
        "the volume has what the documents say": not [
            path
            for path in seen["written_in_volumes"]["data"]
            if path.split("/")[0] not in ("cache", "events", "huggingface")
        ],
        "the image is as it was": not seen["changed_in_image"],
        "SIGTERM ends it well": seen["stop_status"] == 0,
        "the key is not in the log": key not in "\n".join(seen["log"]),
    }
    return [f"not so: {name}" for name, holds in expected.items() if not holds]


def files_of(root: Path) -> dict[str, tuple[int, ...]]:
    """Return type, owner, size and time of change of everything below a folder."""
    found: dict[str, tuple[int, ...]] = {}
    for path in root.rglob("*"):
        facts = path.lstat()
        size = 0 if path.is_dir() else facts.st_size
        owner = (facts.st_uid, facts.st_gid)
        found[str(path.relative_to(root))] = (facts.st_mode, *owner, size, facts.st_mtime_ns)
    return found


def sizes(root: Path) -> dict[str, float]:
    """Return MB (10^6): of all, of the environment, and of its packages of 1 MB and more."""
    packages = next(root.glob("opt/ovoad/lib/python3*/site-packages"))
    found = {each.name: size_mb(each) for each in packages.iterdir()}
    largest = sorted(found.items(), key=lambda pair: -pair[1])
    return {
        "all": size_mb(root),
        "/opt/ovoad": size_mb(root / "opt" / "ovoad"),
        **{name: size for name, size in largest if size >= 1},
    }


def size_mb(folder: Path) -> float:
    """Return the bytes of all files below a folder, links not followed."""
    paths = [folder] if folder.is_file() else folder.rglob("*")
    total = sum(path.lstat().st_size for path in paths if path.is_file() and not path.is_symlink())
    return round(total / 1e6, 1)


if __name__ == "__main__":
    sys.exit(main())
