"""Run `docker-compose up` for real, with Podman as the engine, on a network of its own.

    sudo apt-get install podman runc netavark aardvark-dns docker-compose
    sudo python3 docker/check_image.py --archive /var/tmp/cpu.tar
    sudo python3 docker/check_compose.py --archive /var/tmp/cpu.tar

Starts the server as compose.yaml says and, with --stand-ins, proxy and Prometheus too: with the
programs caddy and prometheus of this machine in place of the published images. Prints what must
hold and whether it does; exit 0 if all holds.
"""

import argparse
import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from check_compose_engine import ROOT, Engine

INSIDE = "--inside"
METRICS = "http://server:8000/metrics"
SCRAPE = f"""
import urllib.request
key = open("/run/secrets/ovoad_api_key").read().strip()
request = urllib.request.Request("{METRICS}", headers={{"Authorization": "Bearer " + key}})
print(urllib.request.urlopen(request).status)
"""


def main() -> int:
    """Enter namespaces, then check."""
    parser = argparse.ArgumentParser(description="Run compose.yaml with Podman as the engine.")
    parser.add_argument("--archive", type=Path, required=True, help="the image ovoad:cpu")
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/ovoad-compose"))
    parser.add_argument("--stand-ins", action="store_true", help="proxy and Prometheus, of Debian")
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.inside:
        namespaces = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        own = [sys.executable, __file__, *sys.argv[1:], INSIDE]
        return subprocess.run(["unshare", *namespaces, *own], check=False).returncode
    try:
        with Engine(arguments.work, arguments.archive) as engine:
            seen = check_server(engine)
            if arguments.stand_ins:
                engine.make_stand_ins()
                seen |= check_others(engine)
            print(engine.logs("server")[-2000:], file=sys.stderr)
    finally:
        shutil.rmtree(arguments.work, ignore_errors=True)
    print(json.dumps(seen, indent=2))
    return 0 if all(seen.values()) else 1


def check_server(engine: Engine) -> dict[str, bool]:
    """Start the server and use it; returns what must hold, and whether it does."""
    engine.compose("up", "--detach", "--no-build", "server")
    ready = wait_until_ready()
    key = engine.compose("run", "--rm", "-T", "keys", "add", "laptop").split()[-1]
    time.sleep(2)  # the server looks at the file every second
    session = json.loads(
        engine.podman(
            *("exec", "--interactive", "--env", f"API_KEY={key}", "--env", "PORT=8000"),
            *("--env", "STARTED_S=0", engine.container("server"), "python", "-"),
            text=(ROOT / "docker" / "check_session.py").read_text(),
        )
    )
    status = engine.podman("exec", engine.container("server"), "cat", "/proc/1/status")
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    found: dict[str, Any] = json.loads(engine.podman("inspect", engine.container("server")))[0]
    limits, scrape = found["HostConfig"], scrape_as_prometheus(engine)
    health = engine.attempt("healthcheck", "run", engine.container("server"))
    written = engine.attempt("exec", engine.container("server"), "touch", "/opt/written")
    engine.compose("stop", "server")
    ended = json.loads(engine.podman("inspect", engine.container("server")))[0]["State"]
    return {
        "the published port answers ready": ready,
        "without a key the answer is 401": status_of("/v1/config") is None
        and session["without_key"] == 401,
        "a key made meanwhile opens a session": session["predictions"] == 60,
        "the user is 10001": facts["Uid"].split()[0] == "10001",
        "there are no capabilities": int(facts["CapBnd"], 16) == 0,
        "no privileges can be gained": facts["NoNewPrivs"] == "1",
        "calls of the system are filtered": facts["Seccomp"] == "2",
        "the root file system is read-only": limits["ReadonlyRootfs"] and written != 0,
        "memory and processes are bounded": (limits["Memory"], limits["PidsLimit"]) == (2**31, 512),
        "the health check is green": health == 0,
        "Prometheus's user may read its key, and finds the server by name": scrape == "200",
        "it ends well within its grace": ended["ExitCode"] == 0,
    }


def check_others(engine: Engine) -> dict[str, bool]:
    """Start profile tls with the stand-ins; returns what must hold, and whether it does."""
    engine.compose("rm", "--force", "server")
    engine.compose("up", "--detach", "--no-build", "server-tls", "proxy", "prometheus")
    targets = wait_for_target()
    page = engine.podman("exec", engine.container("proxy"), "cat", "/proc/1/status")
    answered = subprocess.run(
        ["curl", "--silent", "--insecure", "https://localhost/readyz"],
        capture_output=True,
        text=True,
    ).stdout
    return {
        "the proxy answers over TLS": '"ready":true' in answered,
        "the proxy has one capability": int(page.split("CapBnd:")[1].split()[0], 16) == 1 << 10,
        "behind the proxy the server is not published": status_of("/readyz") is None,
        "Prometheus scrapes the server with its key": targets,
    }


def scrape_as_prometheus(engine: Engine) -> str:
    """Read /metrics as Prometheus's user, with its volume and on its network."""
    return engine.podman(
        *("run", "--rm", "--network", engine.named("monitoring"), "--no-healthcheck"),
        *("--volume", f"{engine.named('metrics-key')}:/run/secrets:ro", "--user", "65534:65534"),
        *("--group-add", "10001", "--entrypoint", "python", "ovoad:cpu", "-c", SCRAPE),
    ).strip()


def wait_for_target() -> bool:
    """Wait until Prometheus says that its scrape of the server went well."""
    for _ in range(60):
        body = get(9090, "/api/v1/targets")
        if body is not None:
            targets: list[Mapping[str, Any]] = json.loads(body[1])["data"]["activeTargets"]
            if any(each["labels"]["job"] == "ovoad" and each["health"] == "up" for each in targets):
                return True
        time.sleep(1)
    return False


def wait_until_ready() -> bool:
    """Ask the published port until it is ready, for a minute at most."""
    for _ in range(60):
        if status_of("/readyz") == http.client.OK:
            return True
        time.sleep(1)
    return False


def status_of(path: str) -> int | None:
    """Return the status of a GET to the server's published port, None where nobody answers."""
    found = get(8000, path)
    return None if found is None else found[0]


def get(port: int, path: str) -> tuple[int, str] | None:
    """Return status and body of a GET to a published port, None where nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("found a user that is not root, expected root")
    sys.exit(main())
