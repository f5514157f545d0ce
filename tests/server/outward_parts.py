"""Parts of tests of events outward: a webhook's receiver that fails on demand, a real broker."""

import contextlib
import json
import os
import queue
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ovoad_server.outward.courier import BackOff
from ovoad_server.outward.message import NotedEvent
from ovoad_server.outward.outward import MakeSink, Outward
from ovoad_server.outward.store import Bounds, Store

WAIT_S = 10.0
QUICK = BackOff(first_s=0.005, longest_s=0.02)
ROOM = Bounds(count=1000, bytes=2**20)
SECRET = "whsec_" + "c2VjcmV0IGJ5dGVzIGZvciB0ZXN0aW5nIG9ubHk="


def eventually(condition: Callable[[], bool], *, timeout_s: float = WAIT_S) -> None:
    """Wait for something that another thread brings about."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, "it did not come about in time"
        time.sleep(0.002)


def noted(
    number: int, *, kind: str = "start", label: str = "a person cooking", session: str = "one"
) -> NotedEvent:
    """Return an event; its timestamp_ms tells it from others."""
    assert kind in ("start", "end")
    return NotedEvent(
        session,
        "start" if kind == "start" else "end",
        label,
        timestamp_ms=number,
        start_ms=0,
        probability=0.75,
        occurred_s=time.time(),
    )


@dataclass(frozen=True)
class Request:
    """What the receiver got."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> dict[str, Any]:
        """The body as JSON."""
        message: dict[str, Any] = json.loads(self.body)
        return message

    @property
    def number(self) -> int:
        """What `noted` was given."""
        return int(self.message["data"]["timestamp_ms"])


@dataclass
class Receiver:
    """Answers 204 unless `answers` holds something else: a status, and headers."""

    port: int = 0
    answers: "queue.SimpleQueue[tuple[int, dict[str, str]]]" = field(
        default_factory=queue.SimpleQueue
    )
    requests: list[Request] = field(default_factory=list)  # all
    taken: list[Request] = field(default_factory=list)  # answered 2xx
    hold: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.hold.set()

    @property
    def url(self) -> str:
        """Its address, with a path and a query."""
        return f"http://127.0.0.1:{self.port}/hook/secret-path?a=1"

    def answer(self, status: int, times: int = 1, **headers: str) -> None:
        """Answer the next requests like this."""
        for _ in range(times):
            self.answers.put((status, {k.replace("_", "-"): v for k, v in headers.items()}))

    @contextlib.contextmanager
    def up(self) -> Iterator["Receiver"]:
        """Listen while the block runs, on the same port each time."""
        server = CutServer(("127.0.0.1", self.port), _handler(self))
        self.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self.hold.set()
            server.shutdown()
            server.cut()
            thread.join(WAIT_S)
            server.server_close()


class CutServer(ThreadingHTTPServer):
    """A server that can go down as one that is killed does: connections and all."""

    daemon_threads = False

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._connections: list[socket.socket] = []

    def get_request(self) -> tuple[socket.socket, Any]:
        """Take a connection, and remember it."""
        connection, address = super().get_request()
        self._connections.append(connection)
        return connection, address

    def cut(self) -> None:
        """Cut all connections."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = WAIT_S

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.path, headers, body)
            receiver.requests.append(request)
            receiver.hold.wait(WAIT_S)
            status = 204
            more: dict[str, str] = {}
            with contextlib.suppress(queue.Empty):
                status, more = receiver.answers.get_nowait()
            with contextlib.suppress(OSError):
                self.send_response(status)
                for name, value in {"Content-Length": "0", **more}.items():
                    self.send_header(name, value)
                self.end_headers()
            if 200 <= status < 300:
                receiver.taken.append(request)

        def log_message(self, format: str, *args: object) -> None:
            return

    return Handler


@contextlib.contextmanager
def outward_to(
    folder: Path,
    *sinks: tuple[str, MakeSink],
    bounds: Bounds = ROOM,
    back_off: BackOff = QUICK,
) -> Iterator[Outward]:
    """Bring events to sinks while the block runs."""
    store = Store(folder, [name for name, _ in sinks], bounds)
    outward = Outward(store, sinks, back_off=back_off)
    try:
        yield outward
    finally:
        outward.close()


def sample(outward: Outward, name: str, **labels: str) -> float:
    """Return a metric's value."""
    for family in outward.collector.collect():
        for each in family.samples:
            if each.name == name and each.labels == labels:
                return each.value
    raise AssertionError(f"found no {name} {labels}")


def free_port() -> int:
    """Return a port of loopback that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def find_broker() -> str:
    """Return mosquitto's program; skips the test where there is none."""
    found = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if found is None:
        pytest.skip("mosquitto is missing (apt-get install mosquitto)")
    return found


@dataclass
class Broker:
    """mosquitto on a port of its own; keeps nothing from one start to the next."""

    folder: Path
    port: int
    lines: Sequence[str] = ("allow_anonymous true",)

    @contextlib.contextmanager
    def up(self) -> Iterator["Broker"]:
        """Run while the block does."""
        configuration = self.folder / "mosquitto.conf"
        lines = (f"listener {self.port} 127.0.0.1", "persistence false", *self.lines)
        configuration.write_text("\n".join(lines) + "\n")
        process = subprocess.Popen(
            [find_broker(), "-c", str(configuration)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            eventually(self.listens)
            yield self
        finally:
            process.kill()
            process.wait(WAIT_S)

    def listens(self) -> bool:
        """Whether it takes connections."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False


class Listener:
    """Somebody else at the broker: hears everything; `kept` is what arrived as retained."""

    def __init__(self, port: int) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.heard: list[tuple[str, bytes]] = []
        self.kept: dict[str, bytes] = {}
        subscribed = threading.Event()
        self.client = client = Client(CallbackAPIVersion.VERSION2)

        def on_message(client: Client, data: Any, message: Any) -> None:
            self.heard.append((message.topic, message.payload))
            if message.retain:
                self.kept[message.topic] = message.payload

        def on_subscribe(client: Client, data: Any, mid: Any, codes: Any, facts: Any) -> None:
            subscribed.set()

        client.on_message = on_message
        client.on_subscribe = on_subscribe
        client.connect("127.0.0.1", port)
        client.loop_start()
        client.subscribe("#", qos=1)
        assert subscribed.wait(WAIT_S)

    def on(self, topic: str) -> list[bytes]:
        """Return what was heard on a topic."""
        return [payload for at, payload in self.heard if at == topic]

    def last(self, topic: str) -> bytes | None:
        """Return the newest on a topic."""
        return next((payload for at, payload in reversed(self.heard) if at == topic), None)

    def close(self) -> None:
        """Leave."""
        self.client.disconnect()
        self.client.loop_stop()
