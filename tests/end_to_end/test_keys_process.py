"""Keys and the server as a process: where a key could leak, and how `ovoad watch` takes its end.

Keys are shown to a real server in right and in wrong places, at debug level, in both log formats.
Then they are looked for wherever the server leaves traces: logs, metrics, answers, and the command
lines and environments of its processes.
"""

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from ovoad_client import protocol

from .real_server import WAIT_S, RealServer, hear, photo, say, start_server, stop_server

pytestmark = pytest.mark.slow
DEFAULT = "correct-horse-battery-staple"
# As `ovoad serve`, but at the level at which libraries print handshakes and messages.
AT_DEBUG_LEVEL = """
import logging, sys
from ovoad_server import __main__ as command
configure = command.configure_logs
def configure_at_debug_level(log_format):
    configure(log_format)
    for name in (None, "uvicorn.error", "websockets", "asyncio"):
        logging.getLogger(name).setLevel(logging.DEBUG)
command.configure_logs = configure_at_debug_level
sys.exit(command.main(["--port", "0"]))
"""
Words = protocol.Vocabulary(labels=["a person cooking"])


def keys(*arguments: str, file: Path) -> str:
    """Run `ovoad keys` and return its standard output."""
    command = [sys.executable, "-m", "ovoad_server.keys.command", *arguments, "--file", str(file)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def start_at_debug_level(home: Path, **settings: str) -> RealServer:
    """Start a server that logs all that can be logged; wait until it listens."""
    names = (name for name in os.environ if not name.startswith(("OVOAD_", "XDG_")))
    given = {f"OVOAD_{name.upper()}": value for name, value in settings.items()}
    process = subprocess.Popen(
        [sys.executable, "-c", AT_DEBUG_LEVEL],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: os.environ[name] for name in names}
        | {"HOME": str(home), "OVOAD_RUNTIME": "onnxruntime"}
        | given,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(r"ovoad_server listening on http://(127\.0\.0\.1:\d+)\n", line)
    if found is None:
        process.kill()
        raise AssertionError(f"found {line!r}, expected an address; {process.communicate()[1]}")
    return RealServer(process, found[1])


def processes_of(server: RealServer) -> list[Path]:
    """Return the folders in /proc of the server and all its children."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            parents[int(folder.name)] = int(status[1])
    found = {server.process.pid}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return [Path("/proc") / str(pid) for pid in sorted(found)]


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that nothing tells of."""
    end_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end_s, "it never came"
        time.sleep(0.02)


class Visitor:
    """Asks a server in every way, and keeps all that it answered."""

    def __init__(self, server: RealServer) -> None:
        self.server = server
        self.heard: list[str] = []

    def ask(self, method: str, path: str, **options: Any) -> int:
        """Send an HTTP request."""
        with httpx.Client(timeout=WAIT_S, trust_env=False) as http:
            answer = http.request(method, f"http://{self.server.address}{path}", **options)
        self.heard.append(f"{answer.status_code} {answer.headers} {answer.text}")
        return answer.status_code

    def listen(self, client: ClientConnection) -> None:
        """Read until the connection ends."""
        try:
            while True:
                self.heard.append(str(client.recv(timeout=WAIT_S)))
        except ConnectionClosed as ended:
            self.heard.append(str(ended))

    def stream(self, *messages: str, path: str = "/v1/stream", **options: Any) -> None:
        """Open a WebSocket, send these messages and listen to its end."""
        url = f"ws://{self.server.address}{path}"
        try:
            with connect(url, proxy=None, open_timeout=WAIT_S, **options) as client:
                self.heard.append(str(client.response))
                with contextlib.suppress(ConnectionClosed):
                    for message in messages:
                        client.send(message)
                self.listen(client)
        except InvalidStatus as refused:
            self.heard.append(f"{refused} {refused.response.headers} {refused.response.body!r}")


def show_everywhere(visitor: Visitor, secret: str) -> None:
    """Present a key in all the ways that are meant for it, and in wrong places."""
    create = protocol.SessionCreate(vocabulary=Words).to_json()
    frame = base64.b64encode(photo()).decode()
    sent = json.dumps({"type": "frame", "seq": 0, "timestamp_ms": 0, "image_base64": frame})
    close = protocol.SessionClose().to_json()
    plain = base64.urlsafe_b64encode(secret.encode()).decode().rstrip("=")
    offered = [Subprotocol("ovoad.v1"), Subprotocol(f"ovoad.key.{plain}")]
    header = {"Authorization": f"Bearer {secret}"}
    for path in ("/v1/config", "/metrics"):
        assert visitor.ask("GET", path, headers=header) == 200
    visitor.stream(create, sent, close, additional_headers=header)
    visitor.stream(create, close, subprotocols=offered)
    clip: dict[str, object] = {
        "request": (None, '{"vocabulary":{"labels":["x"]}}'),
        "file": ("a.mp4", b"nonsense"),
    }
    visitor.ask("POST", "/v1/clips", headers=header, files=clip)
    # what follows are wrong places
    for path in ("/v1/config", "/v1/clips", "/healthz", "/readyz", "/", f"/{secret}", "/docs"):
        visitor.ask("GET", f"{path}?api_key={secret}&token={plain}")
    visitor.ask("GET", "/v1/config", headers={"X-Api-Key": secret, "Cookie": f"key={secret}"})
    visitor.ask("GET", "/v1/config", auth=("ovoad", secret))
    visitor.ask("GET", "/v1/config", headers={"Authorization": secret})
    visitor.ask("POST", "/v1/config", content=secret)
    visitor.stream(create, path=f"/v1/stream?api_key={secret}")
    visitor.stream(create, path=f"/v1/{secret}")
    visitor.stream(create, subprotocols=[Subprotocol(f"ovoad.key.{secret}")])
    visitor.stream(create, origin=f"https://{secret}.example", additional_headers=header)
    visitor.stream(json.dumps({**json.loads(create), "key": secret}), additional_headers=header)
    visitor.stream(json.dumps({"type": "auth", "key": secret}), additional_headers=header)
    words = {"vocabulary": {"labels": ["x"]}, "key": secret}
    clip["request"] = (None, json.dumps(words))
    visitor.ask("POST", "/v1/clips", headers=header, files=clip)
    with visitor.server.raw() as raw:
        request = f"GET /v1/config?key={secret} HTTP/1.1\r\nAuthor ization: {secret}\r\n\r\n"
        raw.sendall(request.encode())
        visitor.heard.append(raw.recv(65536).decode())


@pytest.fixture(params=["text", "json"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RealServer]:
    """Return a server with a key of its own and those of a file, which holds one named door."""
    (tmp_path / "door").write_text(keys("add", "door", file=tmp_path / "keys.json"))
    server = start_at_debug_level(
        tmp_path,
        log_format=request.param,
        api_key=DEFAULT,
        keys_file=str(tmp_path / "keys.json"),
    )
    yield server
    stop_server(server)


def test_no_key_is_left_in_any_trace(server: RealServer, tmp_path: Path) -> None:
    door = (tmp_path / "door").read_text().strip()
    wrong = "ovoad_wrong0123456789abcdefghijklmnopqrstuv"
    visitor = Visitor(server)
    show_everywhere(visitor, door)
    show_everywhere(visitor, DEFAULT)
    wrong_header = {"Authorization": f"Bearer {wrong}"}
    assert visitor.ask("GET", "/v1/config", headers=wrong_header) == 401
    visitor.stream(additional_headers=wrong_header)
    lines, environments = "", ""
    header = {"Authorization": f"Bearer {door}"}
    url = f"ws://{server.address}/v1/stream"
    with connect(url, proxy=None, additional_headers=header) as client:
        say(client, protocol.SessionCreate(vocabulary=Words))
        assert isinstance(hear(client), protocol.SessionCreated)
        (tmp_path / "keys.json").write_text(f'{{"version": 1, "keys": "{door}"}}')  # broken
        until(lambda: any("cannot use the keys file" in line for line in server.log))
        (tmp_path / "keys.json").write_text('{"version": 1, "keys": []}')
        visitor.listen(client)
        for process in processes_of(server):
            lines += (process / "cmdline").read_text()
            if process.name != str(server.process.pid):
                environments += (process / "environ").read_text()
    assert '"goaway"' in visitor.heard[-3]
    assert '"unauthorised"' in visitor.heard[-2]
    assert "4401" in visitor.heard[-1]
    server.signal(signal.SIGTERM)
    assert server.process.wait(WAIT_S) == 0
    server.reading.join(WAIT_S)
    log = "".join(server.log)
    assert "connection is OPEN" in log, "the debug level was in force"
    assert "< authorization: [hidden]" in log.lower()
    assert "ovoad_server.audit" in log
    assert "worker_process" in lines
    for place, text in (
        ("log", log),
        ("command lines", lines),
        ("environments", environments),
        ("answers and metrics", "\n".join(visitor.heard)),
    ):
        for secret in (door, DEFAULT, wrong):
            encoded = base64.urlsafe_b64encode(secret.encode()).decode().rstrip("=")
            assert secret not in text, place
            assert encoded not in text, place


def test_revoked_key_ends_ovoad_watch_with_a_clear_word(tmp_path: Path) -> None:
    file, pictures = tmp_path / "keys.json", tmp_path / "pictures"
    secret = keys("add", "door", file=file).strip()
    pictures.mkdir()
    for number in range(400):
        (pictures / f"{number:04d}.jpg").write_bytes(photo())
    server = start_server(tmp_path, keys_file=file)
    try:
        names = (name for name in os.environ if not name.startswith("OVOAD_"))
        flags = ["--fps", "5", "--labels", "a person cooking", "--no-table"]
        flags += ["--url", server.address]
        watching = subprocess.Popen(
            [sys.executable, "-m", "ovoad_client", "watch", str(pictures), *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**{name: os.environ[name] for name in names}, "OVOAD_API_KEY": secret},
        )
        with watching:
            until(lambda: metric(server, secret, "ovoad_frames_predicted_total") >= 2)
            keys("revoke", "door", file=file)
            _, errors = watching.communicate(timeout=WAIT_S)
    finally:
        stop_server(server)
    assert watching.returncode == 1
    assert errors.splitlines()[-1] == (
        "ovoad watch: server refused: found that the API key of this session was revoked, "
        "expected a valid one (unauthorised)"
    )
    assert secret not in errors


def metric(server: RealServer, secret: str, name: str) -> float:
    """Return a metric's value, 0 before its first use."""
    header = {"Authorization": f"Bearer {secret}"}
    answer = httpx.get(f"http://{server.address}/metrics", headers=header, trust_env=False)
    found = re.search(rf"^{re.escape(name)} (\S+)$", answer.text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize("content", [None, '{"version": 1, "keys": []}', '{"version": 1'])
def test_file_without_keys_is_told_in_one_line_before_the_model_loads(
    tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "keys.json"
    if content is not None:
        file.write_text(content)
    began_s = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "ovoad_server", "--port", "0", "--host", "0.0.0.0"],
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": str(tmp_path), "OVOAD_KEYS_FILE": str(file)},
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    reasons = {
        None: f"cannot read the keys file {file}: no such file or directory",
        '{"version": 1, "keys": []}': f"found no key in the keys file {file}, expected at least "
        f"one: ovoad keys add NAME --file {file}",
        '{"version": 1': f"cannot use the keys file {file}: Invalid JSON: EOF while parsing an "
        "object at line 1 column 13",
    }
    assert ended.stderr == f"ovoad serve: {reasons[content]}\n"
    assert time.monotonic() - began_s < WAIT_S
