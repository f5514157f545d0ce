"""The webhook: what is sent, what counts as taken, order through failures, and its secrets."""

import base64
import email.utils
import hashlib
import hmac
import logging
import random
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from shutil import which

import pytest

from ovoad_server.outward import courier as courier_module
from ovoad_server.outward.addresses import secret_bytes
from ovoad_server.outward.courier import BackOff, Delivered, NotNow, Refused
from ovoad_server.outward.outward import MakeSink, Outward
from ovoad_server.outward.store import Bounds, QueuedEvent
from ovoad_server.outward.webhook import Webhook, retry_after_s

from .outward_parts import (
    QUICK,
    SECRET,
    Receiver,
    eventually,
    free_port,
    noted,
    outward_to,
    sample,
)

EVENT = QueuedEvent(1, "evt_1", 0.0, b'{"a": 1}')


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().up() as receiver:
        yield receiver


def to(receiver: Receiver) -> tuple[str, MakeSink]:
    """Return what makes the webhook of a receiver."""
    key = secret_bytes(SECRET)
    return "webhook", lambda store, wake: Webhook(receiver.url, key)


def tell(outward: Outward, *numbers: int) -> None:
    """Queue events as sessions do."""
    for number in numbers:
        outward._recorder._take(noted(number))


def test_event_is_posted_and_signed(receiver: Receiver, tmp_path: Path) -> None:
    with outward_to(tmp_path, to(receiver)) as outward:
        tell(outward, 7)
        eventually(lambda: sample(outward, "ovoad_outward_delivered_total", to="webhook") == 1)
    (request,) = receiver.requests
    assert request.path == "/hook/secret-path?a=1"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["webhook-id"] == request.message["id"]
    sent_s = int(request.headers["webhook-timestamp"])
    assert abs(time.time() - sent_s) < 60
    signed = b".".join([request.message["id"].encode(), str(sent_s).encode(), request.body])
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert request.headers["webhook-signature"] == f"v1,{digest}"


def test_without_a_secret_nothing_is_signed(receiver: Receiver) -> None:
    webhook = Webhook(receiver.url, None)
    assert webhook.send(EVENT) == Delivered()
    webhook.close()
    assert "webhook-signature" not in receiver.requests[0].headers


def test_down_for_a_while_loses_nothing_keeps_order_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    receiver = Receiver()
    with receiver.up():
        pass  # so that it has a port
    with outward_to(tmp_path, to(receiver)) as outward:
        tell(outward, *range(100))
        eventually(lambda: sample(outward, "ovoad_outward_retried_total", to="webhook") >= 5)
        assert sample(outward, "ovoad_outward_queued_total") == 100
        assert sample(outward, "ovoad_outward_waiting", to="webhook") == 100
        assert sample(outward, "ovoad_outward_oldest_age_seconds", to="webhook") > 0
        with receiver.up():
            eventually(lambda: sample(outward, "ovoad_outward_waiting", to="webhook") < 60)
        tell(outward, *range(100, 120))  # down again, in the middle
        with receiver.up():
            eventually(lambda: sample(outward, "ovoad_outward_waiting", to="webhook") == 0)
        assert sample(outward, "ovoad_outward_delivered_total", to="webhook") == 120
        eventually(lambda: sample(outward, "ovoad_outward_oldest_age_seconds", to="webhook") == 0)
    unique = list(dict.fromkeys(request.number for request in receiver.taken))
    assert unique == list(range(120))
    assert len({request.message["id"] for request in receiver.taken}) == 120
    numbers = [request.number for request in receiver.taken]
    assert numbers == sorted(numbers), "an event comes again before others, if at all"
    assert "events do not arrive at the webhook http://127.0.0.1" in caplog.text
    assert "events arrive at the webhook again" in caplog.text
    assert "secret-path" not in caplog.text


def test_receiver_that_fails_now_and_then_gets_all_in_order(
    receiver: Receiver, tmp_path: Path
) -> None:
    chance = random.Random(1)
    for _ in range(60):
        receiver.answer(chance.choice([204, 500, 503, 429, 401, 404, 302, 200]))
    with outward_to(tmp_path, to(receiver)) as outward:
        tell(outward, *range(40))
        eventually(lambda: len(receiver.taken) == 40)
    assert [request.number for request in receiver.taken] == list(range(40))
    ids = {request.number: request.message["id"] for request in receiver.taken}
    assert all(
        ids[request.number] == request.headers["webhook-id"] for request in receiver.requests
    )


def test_redirect_is_not_followed(receiver: Receiver) -> None:
    other = Receiver()
    with other.up():
        receiver.answer(307, Location=other.url)
        webhook = Webhook(receiver.url, None)
        assert webhook.send(EVENT) == NotNow("HTTP 307: redirects are not followed")
        webhook.close()
    assert other.requests == []


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_event_that_is_refused_again_and_again_is_dropped_and_counted(
    receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    receiver.answer(status, times=courier_module.REFUSALS)
    with outward_to(tmp_path, to(receiver)) as outward:
        tell(outward, 1, 2)
        eventually(lambda: len(receiver.taken) == 1)
        dropped = sample(outward, "ovoad_outward_dropped_total", to="webhook", reason="refused")
        assert dropped == 1
    assert [request.number for request in receiver.requests] == [1, 1, 1, 1, 1, 2]
    assert f"the webhook refused it 5 times (HTTP {status})" in caplog.text


@pytest.mark.parametrize("status", [401, 403, 404, 408, 409, 410, 429, 500, 502, 503])
def test_all_else_is_tried_again(receiver: Receiver, status: int) -> None:
    receiver.answer(status)
    webhook = Webhook(receiver.url, None)
    assert webhook.send(EVENT) == NotNow(f"HTTP {status}")
    assert webhook.send(EVENT) == Delivered()
    webhook.close()


def test_retry_after_is_honoured(receiver: Receiver, tmp_path: Path) -> None:
    receiver.answer(503, Retry_After="1")
    began_s = time.monotonic()
    with outward_to(tmp_path, to(receiver)) as outward:
        tell(outward, 1)
        eventually(lambda: len(receiver.taken) == 1)
    assert time.monotonic() - began_s >= 1.0


def test_retry_after_is_read_in_both_forms() -> None:
    now_s = 1_000_000.0
    date = email.utils.formatdate(now_s + 90, usegmt=True)
    assert retry_after_s(None, now_s) == 0
    assert retry_after_s("120", now_s) == 120
    assert retry_after_s(date, now_s) == 90
    assert retry_after_s(email.utils.formatdate(now_s - 90, usegmt=True), now_s) == 0
    for odd in ("", "-5", "soon", "1e9", "²", "Wed, 99 Foo 2026"):
        assert retry_after_s(odd, now_s) == 0, odd
    assert retry_after_s("9" * 400, now_s) == 3600


def test_waits_double_up_to_a_bound_are_spread_and_never_shorter_than_asked() -> None:
    back_off = BackOff(first_s=1.0, longest_s=30.0)
    middle = [back_off.delay_s(failures, 0.0, 0.5) for failures in range(1, 9)]
    assert middle == [1, 2, 4, 8, 16, 30, 30, 30]
    assert back_off.delay_s(10_000, 0.0, 0.0) == 22.5
    assert back_off.delay_s(3, 0.0, 1.0) == 5.0
    for spread in (0.0, 0.5, 1.0):
        assert back_off.delay_s(1, 60.0, spread) >= 60.0


def test_certificate_that_nobody_vouches_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if which("openssl") is None:
        pytest.skip("openssl is missing")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-keyout", str(key), "-out", str(certificate), "-days", "1"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    posts: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posts.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return

    class Quiet(HTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            return

    server = Quiet(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        url = f"https://localhost:{server.server_port}/"
        stranger = Webhook(url, None)
        outcome = stranger.send(EVENT)
        stranger.close()
        assert isinstance(outcome, NotNow)
        assert outcome.reason.startswith("certificate refused: ")
        assert posts == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        friend = Webhook(url, None)
        assert friend.send(EVENT) == Delivered()
        friend.close()
        assert posts == [EVENT.body]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_receiver_that_never_answers_is_given_up(receiver: Receiver) -> None:
    receiver.hold.clear()
    webhook = Webhook(receiver.url, None, timeout_s=0.1)
    assert webhook.send(EVENT) == NotNow("TimeoutError")
    webhook.close()


def test_receiver_that_drips_is_given_up() -> None:
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                while not stop.wait(0.02):
                    try:
                        connection.send(b"H")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        webhook = Webhook(url, None, timeout_s=5.0, whole_timeout_s=0.2)
        began_s = time.monotonic()
        assert isinstance(webhook.send(EVENT), NotNow)
        assert time.monotonic() - began_s < 3.0
        webhook.close()
        stop.set()
        thread.join()


def test_connection_is_kept_over_a_backlog_and_closed_at_rest(receiver: Receiver) -> None:
    webhook = Webhook(receiver.url, None)
    for _ in range(3):
        assert webhook.send(EVENT) == Delivered()
    assert webhook._connection.sock is not None
    webhook.rest()
    assert webhook._connection.sock is None
    assert webhook.send(EVENT) == Delivered()
    webhook.close()


def test_refusal_names_the_status() -> None:
    receiver = Receiver()
    with receiver.up():
        receiver.answer(422)
        webhook = Webhook(receiver.url, None)
        assert webhook.send(EVENT) == Refused("HTTP 422")
        webhook.close()


def test_full_queue_drops_the_oldest_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = Receiver(port=free_port())
    with outward_to(tmp_path, to(receiver), bounds=Bounds(10, 2**20)) as outward:
        for number in range(30):
            tell(outward, number)
            eventually(lambda n=number: sample(outward, "ovoad_outward_queued_total") == n + 1)  # type: ignore[misc]
        dropped = sample(outward, "ovoad_outward_dropped_total", to="webhook", reason="full")
        assert dropped == 20
        with receiver.up():
            eventually(lambda: len(receiver.taken) == 10)
    assert [request.number for request in receiver.taken] == list(range(20, 30))
    first = receiver.taken[0].message["sequence"]
    sequences = [request.message["sequence"] for request in receiver.taken]
    assert sequences == list(range(first, first + 10))
    assert caplog.text.count("is full and drops the oldest") == 1


def test_closing_delivers_what_waits_and_does_not_wait_for_a_receiver_that_is_down(
    receiver: Receiver, tmp_path: Path
) -> None:
    with outward_to(tmp_path / "up", to(receiver)) as outward:
        tell(outward, *range(20))
    assert [request.number for request in receiver.taken] == list(range(20))
    down = Receiver(port=free_port())
    slow = BackOff(first_s=60.0, longest_s=60.0)
    began_s = time.monotonic()
    with outward_to(tmp_path / "down", to(down), back_off=slow) as outward:
        tell(outward, 1)
    with outward_to(tmp_path / "down", to(down), back_off=QUICK) as outward:
        tell(outward, 2)
        with down.up():
            eventually(lambda: sample(outward, "ovoad_outward_waiting", to="webhook") == 0)
    assert time.monotonic() - began_s < 5.0
    ends = [request for request in down.taken if request.message["type"] == "action.end"]
    assert [request.number for request in down.taken if request not in ends] == [1, 2]
