"""Parts of tests that need the server as a process of its own: start, sockets of every kind."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import httpx
import numpy as np
from websockets.sync.client import ClientConnection, connect

from ovoad_client import protocol

WAIT_S = 30.0
HANDSHAKE = (
    "GET /v1/stream HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


@dataclass
class RealServer:
    """A server that listens; what it logs is gathered in `log`."""

    process: "subprocess.Popen[str]"
    address: str
    log: list[str] = field(default_factory=list)
    reading: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        assert self.process.stderr is not None
        self.reading = threading.Thread(target=self.log.extend, args=(self.process.stderr,))
        self.reading.start()

    @property
    def host_and_port(self) -> tuple[str, int]:
        """Where it listens."""
        host, _, port = self.address.rpartition(":")
        return host, int(port)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def get(self, path: str) -> httpx.Response:
        """Ask it over HTTP."""
        return httpx.get(f"http://{self.address}{path}", timeout=WAIT_S, trust_env=False)

    def metric(self, name: str) -> float:
        """Return a metric's value, 0 before its first use."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def memory_mib(self) -> float:
        """Return the resident memory of the server's own process."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) / 1024

    @contextlib.contextmanager
    def session(
        self, *labels: str, policy: protocol.Policy = "lossless"
    ) -> Iterator[ClientConnection]:
        """Open a session."""
        with self.connect() as client:
            vocabulary = protocol.Vocabulary(labels=list(labels or ["a person cooking"]))
            say(client, protocol.SessionCreate(vocabulary=vocabulary, policy=policy))
            assert isinstance(hear(client), protocol.SessionCreated)
            yield client

    def connect(self) -> ClientConnection:
        """Open a WebSocket."""
        return connect(
            f"ws://{self.address}/v1/stream", open_timeout=WAIT_S, proxy=None, ping_interval=None
        )

    @contextlib.contextmanager
    def raw(self) -> Iterator[socket.socket]:
        """Open a TCP connection."""
        with socket.create_connection(self.host_and_port, timeout=WAIT_S) as raw:
            yield raw

    @contextlib.contextmanager
    def raw_websocket(self) -> Iterator[socket.socket]:
        """Open a WebSocket whose frames the test writes itself."""
        with self.raw() as raw:
            raw.sendall(HANDSHAKE.format(self.address).encode())
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += raw.recv(1)
            assert head.startswith(b"HTTP/1.1 101 "), head
            yield raw

    @contextlib.contextmanager
    def raw_session(self, *labels: str) -> Iterator[socket.socket]:
        """Open a session whose frames the test writes itself; session.created is not read."""
        with self.raw_websocket() as raw:
            vocabulary = protocol.Vocabulary(labels=list(labels or ["a person cooking"]))
            create = protocol.SessionCreate(vocabulary=vocabulary)
            raw.sendall(websocket_frame(create.to_json().encode(), opcode=1))
            yield raw


def start_server(home: Path, **settings: object) -> RealServer:
    """Start the server with OVOAD_* settings and an empty home; wait until it listens."""
    names = (name for name in os.environ if not name.startswith(("OVOAD_", "XDG_")))
    environment = {name: os.environ[name] for name in names}
    settings = {"runtime": "onnxruntime", **settings}  # no race of the runtimes at each start
    given = {f"OVOAD_{name.upper()}": str(value) for name, value in settings.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "ovoad_server", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**environment, "HOME": str(home), **given},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(r"ovoad_server listening on http://(127\.0\.0\.1:\d+)\n", line)
    if found is None:
        with process:
            process.kill()
        raise AssertionError(f"found {line!r}, expected an address")
    return RealServer(process, found[1])


def stop_server(server: RealServer) -> None:
    """End a server whatever state it is in."""
    with server.process:  # closes its pipes
        server.process.kill()
        server.reading.join(WAIT_S)


def faults(server: RealServer) -> list[str]:
    """Return what it logged beyond information and warnings."""
    return [line for line in server.log if not re.match(r"\S+ \S+ (INFO|WARNING) ", line)]


def say(client: ClientConnection, message: protocol.Message) -> None:
    """Send a message."""
    client.send(message.to_json())


def hear(client: ClientConnection) -> protocol.ServerMessage:
    """Return the next message."""
    return protocol.parse_server_message(client.recv(timeout=WAIT_S, decode=True))


def photo(width: int = 160) -> bytes:
    """Return a JPEG."""
    pixels = np.full((width * 3 // 4, width, 3), (200, 120, 40), np.uint8)
    cv2.circle(pixels, (width // 2, width // 3), width // 8, (30, 220, 240), -1)
    return cv2.imencode(".jpg", pixels)[1].tobytes()


def websocket_frame(payload: bytes, *, opcode: int) -> bytes:
    """Return a client's frame, masked with zeros (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:
        head = bytes([0x80 | opcode, 0x80 | size])
    elif size < 65_536:
        head = bytes([0x80 | opcode, 0xFE]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x80 | opcode, 0xFF]) + size.to_bytes(8, "big")
    return head + bytes(4) + payload
