"""A real server whose events go outward: killed before delivery, receivers that are away."""

import contextlib
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection

from ovoad_client import protocol

from .real_server import WAIT_S, RealServer, faults, hear, photo, say, start_server, stop_server

pytestmark = pytest.mark.slow
LABEL = "a person cooking"
EVENTS = protocol.EventSettings(enter=1e-6, exit=1e-6, min_duration_ms=0)
SECRET = "whsec_" + "c2VjcmV0IGJ5dGVzIGZvciB0ZXN0aW5nIG9ubHk="


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., RealServer]]:
    """Start servers that end with the test."""
    started: list[RealServer] = []

    def start_one(**settings: object) -> RealServer:
        server = start_server(tmp_path, events_folder=tmp_path / "events", **settings)
        started.append(server)
        return server

    yield start_one
    for server in started:
        stop_server(server)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def eventually(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 2 * WAIT_S
    while not condition():
        assert time.monotonic() < end_s, "it did not come about in time"
        time.sleep(0.05)


@contextlib.contextmanager
def receiver(port: int, *, answer: bool = True) -> Iterator["queue.SimpleQueue[dict[str, Any]]"]:
    """Listen for posts; without `answer` each is taken and its connection broken."""
    posts: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    class Handler(BaseHTTPRequestHandler):
        timeout = WAIT_S

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posts.put({**json.loads(body), "webhook-id": self.headers["webhook-id"]})
            if answer:
                self.send_response(204)
                self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield posts
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def session(server: RealServer) -> Iterator[ClientConnection]:
    """Open a session whose first frame starts an event."""
    with server.connect() as client:
        vocabulary = protocol.Vocabulary(labels=[LABEL])
        create = protocol.SessionCreate(vocabulary=vocabulary, policy="lossless", events=EVENTS)
        say(client, create)
        assert isinstance(hear(client), protocol.SessionCreated)
        client.send(protocol.pack_frame(0, 0, photo()))
        while not isinstance(hear(client), protocol.Event):
            pass
        yield client


def test_event_outlives_a_server_that_is_killed_before_its_delivery(
    start: Callable[..., RealServer],
) -> None:
    port = free_port()
    settings = {"webhook_url": f"http://127.0.0.1:{port}/hook", "webhook_secret": SECRET}
    with receiver(port, answer=False) as unanswered:
        server = start(**settings)
        with session(server):
            first = unanswered.get(timeout=WAIT_S)
            assert server.metric('ovoad_outward_waiting{to="webhook"}') == 1
            assert server.metric('ovoad_outward_delivered_total{to="webhook"}') == 0
            server.signal(signal.SIGKILL)
            server.process.wait(WAIT_S)
    with receiver(port) as posts:
        again = start(**settings)
        second, third = posts.get(timeout=WAIT_S), posts.get(timeout=WAIT_S)
        eventually(lambda: again.metric('ovoad_outward_waiting{to="webhook"}') == 0)
        assert again.metric('ovoad_outward_delivered_total{to="webhook"}') == 2
    assert second == first, "the same event under the same id"
    assert (second["type"], second["data"]["label"]) == ("action.start", LABEL)
    assert second["webhook-id"] == second["id"]
    assert (third["type"], third["data"]["cause"]) == ("action.end", "restart")
    assert third["data"]["session_id"] == first["data"]["session_id"]
    assert third["sequence"] == second["sequence"] + 1
    again.signal(signal.SIGTERM)
    assert again.process.wait(WAIT_S) == 0
    assert faults(again) == []


def test_receiver_that_is_away_gets_all_afterwards_and_nobody_waits_for_it(
    start: Callable[..., RealServer],
) -> None:
    port = free_port()
    server = start(webhook_url=f"http://127.0.0.1:{port}/hush")
    for _ in range(3):
        with session(server) as client:
            say(client, protocol.SessionClose())
            while not isinstance(hear(client), protocol.SessionClosed):
                pass
    eventually(lambda: server.metric('ovoad_outward_retried_total{to="webhook"}') >= 2)
    assert server.metric('ovoad_outward_waiting{to="webhook"}') == 6
    assert server.metric('ovoad_outward_oldest_age_seconds{to="webhook"}') > 0
    with receiver(port) as posts:
        eventually(lambda: server.metric('ovoad_outward_waiting{to="webhook"}') == 0)
        kinds = [posts.get(timeout=WAIT_S) for _ in range(6)]
    first = kinds[0]["sequence"]
    assert [each["sequence"] for each in kinds] == list(range(first, first + 6))
    assert [each["type"] for each in kinds] == ["action.start", "action.end"] * 3
    server.signal(signal.SIGTERM)
    assert server.process.wait(WAIT_S) == 0
    server.reading.join(WAIT_S)
    log = "".join(server.log)
    assert "events do not arrive at the webhook" in log
    assert "events arrive at the webhook again" in log
    assert "hush" not in log


def test_sensor_at_a_real_broker_turns_on_off_and_unavailable(
    start: Callable[..., RealServer], tmp_path: Path
) -> None:
    pytest.importorskip("paho.mqtt.client", reason="the extra mqtt is missing")
    program = shutil.which("mosquitto", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        pytest.skip("mosquitto is missing (apt-get install mosquitto)")
    port = free_port()
    configuration = tmp_path / "mosquitto.conf"
    configuration.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    broker = subprocess.Popen([program, "-c", str(configuration)], **quiet)  # type: ignore[call-overload]
    try:
        server = start(mqtt_url=f"mqtt://127.0.0.1:{port}", mqtt_device="Hall")
        with heard(port) as messages:

            def last(ending: str) -> bytes | None:
                return next((p for t, p in reversed(messages) if t.endswith(ending)), None)

            with session(server):
                eventually(lambda: last("/state") == b"ON")
                config = json.loads(last("/config") or b"")
                server.signal(signal.SIGKILL)
            eventually(lambda: last("/availability") == b"offline")
            start(mqtt_url=f"mqtt://127.0.0.1:{port}", mqtt_device="Hall")
            eventually(lambda: last("/state") == b"OFF")
            eventually(lambda: last("/availability") == b"online")
        assert (config["name"], config["device"]["name"]) == (LABEL, "Hall")
    finally:
        broker.kill()
        broker.wait(WAIT_S)


@contextlib.contextmanager
def heard(port: int) -> Iterator[list[tuple[str, bytes]]]:
    """Listen to everything at a broker."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion

    messages: list[tuple[str, bytes]] = []
    client = Client(CallbackAPIVersion.VERSION2)

    def on_message(client: Client, data: Any, message: Any) -> None:
        messages.append((message.topic, message.payload))

    client.on_message = on_message
    client.connect("127.0.0.1", port)
    client.subscribe("#", qos=1)
    client.loop_start()
    try:
        yield messages
    finally:
        client.disconnect()
        client.loop_stop()
