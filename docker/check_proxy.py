"""Run docker/Caddyfile with a real Caddy before a real server, on a loopback of its own.

    sudo apt-get install caddy
    sudo .venv/bin/python docker/check_proxy.py

Needs root (for namespaces) and the server's environment. Prints what was seen; exit 0 if all holds.
"""

import contextlib
import http.client
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
INSIDE = "--inside"
KEY = "a-key-for-this-check-alone"
WAIT_S = 60.0


def main() -> int:
    """Enter namespaces, then check."""
    if INSIDE not in sys.argv:
        flags = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        return subprocess.run(
            ["unshare", *flags, sys.executable, __file__, INSIDE], check=False
        ).returncode
    with tempfile.TemporaryDirectory() as name, running(Path(name)) as context:
        seen = look(context)
    print(json.dumps(seen, indent=2))
    return 0 if all(seen.values()) else 1


@contextlib.contextmanager
def running(folder: Path) -> Iterator[ssl.SSLContext]:
    """Start server and proxy; yields a context that trusts the proxy's own authority."""
    hosts = folder / "hosts"
    hosts.write_text("127.0.0.1 localhost server\n")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    settings = {"OVOAD_HOST": "0.0.0.0", "OVOAD_API_KEY": KEY, "FORWARDED_ALLOW_IPS": "*"}
    places = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    caddy = ["caddy", "run", "--adapter", "caddyfile", "--config", str(ROOT / "docker/Caddyfile")]
    with (
        (folder / "log").open("w") as log,
        process([sys.executable, "-m", "ovoad_server"], settings, log.fileno()),
        process(caddy, places, log.fileno()),
    ):
        authority = folder / "caddy/pki/authorities/local/root.crt"
        try:
            wait(authority.exists)
            os.environ["SSL_CERT_FILE"] = str(authority)
            context = ssl.create_default_context(cafile=str(authority))
            wait(lambda: status(context, "/readyz") == 200)
        except TimeoutError:
            print((folder / "log").read_text(), file=sys.stderr)
            raise
        yield context


@contextlib.contextmanager
def process(command: list[str], environment: Mapping[str, str], log: int) -> Iterator[None]:
    """Run a program until the block is left."""
    started = subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log)
    try:
        yield
    finally:
        started.terminate()
        started.wait(30)


def look(context: ssl.SSLContext) -> dict[str, bool]:
    """Return what must hold, and whether it does."""
    import cv2
    import numpy as np

    from ovoad_client.errors import ClientError, UnauthorisedError
    from ovoad_client.sync import connect

    picture = cv2.imencode(".jpg", np.zeros((90, 160, 3), np.uint8))[1].tobytes()
    with connect("https://localhost", ["riding a bicycle"], api_key=KEY) as stream:
        stream.send(picture, timestamp_ms=0)
        answer = next(stream)
    refused = False
    try:
        with connect("https://localhost", ["riding a bicycle"], api_key="wrong"):
            pass
    except UnauthorisedError:
        refused = True
    except ClientError:
        pass
    own = {"Origin": "https://localhost"}
    return {
        "a session over TLS gets its prediction": answer.type == "prediction",
        "a wrong key is refused": refused,
        "the page is there": status(context, "/") == 200,
        "the page's own origin may open a WebSocket": upgrade(context, own) == 101,
        "another page may not": upgrade(context, {"Origin": "https://evil.example"}) == 403,
        "/metrics is closed": status(context, "/metrics") == 404,
        "plain HTTP is sent to TLS": plain_status() == 308,
    }


def status(context: ssl.SSLContext, path: str) -> int:
    """Return the status of a GET over TLS; 0 while nobody answers."""
    connection = http.client.HTTPSConnection("localhost", timeout=10, context=context)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {KEY}"})
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def upgrade(context: ssl.SSLContext, headers: Mapping[str, str]) -> int:
    """Return the status of a WebSocket handshake over TLS."""
    connection = http.client.HTTPSConnection("localhost", timeout=10, context=context)
    offered = {
        "Authorization": f"Bearer {KEY}",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version": "13",
    }
    connection.request("GET", "/v1/stream", headers={**offered, **headers})
    found = connection.getresponse().status
    connection.close()
    return found


def plain_status() -> int:
    """Return the status of a GET without TLS."""
    connection = http.client.HTTPConnection("localhost", timeout=10)
    connection.request("GET", "/")
    return connection.getresponse().status


def wait(ready: Callable[[], bool]) -> None:
    """Wait until it is so; raises TimeoutError."""
    end_s = time.monotonic() + WAIT_S
    while not ready():
        if time.monotonic() > end_s:
            raise TimeoutError(f"not ready within {WAIT_S:g} s")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
