"""`ovoad clip` against a scripted server: what it sends, what it writes, how it ends."""

import json
import socket
import threading
from pathlib import Path

import pytest

from ovoad_client.clip import main
from ovoad_client.clip_sending import clips_address

OPENED = {"type": "clip.opened", "clip": {"name": "a.mp4"}, "labels": ["a"], "warnings": []}
PREDICTION = {"type": "prediction", "seq": 0, "timestamp_ms": 0, "probabilities": [0.75]}
START = {"type": "event", "kind": "start", "label": "a", "timestamp_ms": 500, "start_ms": 0}
END = {"type": "event", "kind": "end", "label": "a", "timestamp_ms": 1500, "start_ms": 0}
CLOSED = {"type": "clip.closed", "frames": 1, "predicted": 1, "errors": 0, "warnings": ["short"]}
WHOLE = [OPENED, PREDICTION, START, END, CLOSED]
WAIT_S = 10.0


class ScriptedServer:
    """Answers one connection after the other with the bytes given; keeps what was sent.

    An answer for a refused clip comes before the body, one for a good clip after it.
    """

    def __init__(self, *answers: bytes, after_body: bool = True) -> None:
        self.requests: list[bytes] = []
        self._answers = answers
        self._after_body = after_body
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(WAIT_S)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> "ScriptedServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._thread.join(WAIT_S)

    def _serve(self) -> None:
        for answer in self._answers:
            connection, _ = self._listener.accept()
            with connection:
                connection.settimeout(WAIT_S)
                self._converse(connection, answer)

    def _converse(self, connection: socket.socket, answer: bytes) -> None:
        seen = b""
        while b"\r\n\r\n" not in seen:
            seen += connection.recv(65_536)
        if self._after_body:
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            while not seen.endswith((b"--\r\n", b"0\r\n\r\n")):
                seen += connection.recv(65_536)
        self.requests.append(seen)
        connection.sendall(answer)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65_536):
            pass


def answer(*messages: object, status: str = "200 OK") -> bytes:
    """Return an answer of lines."""
    body = "".join(json.dumps(each) + "\n" for each in messages)
    return f"HTTP/1.1 {status}\r\nContent-Type: application/x-ndjson\r\n\r\n{body}".encode()


def refusal(status: str, code: str, message: str, **more: object) -> bytes:
    """Return an error as the server sends it."""
    return answer({"error": {"code": code, "message": message, **more}}, status=status)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"\x00\x01" * 1000)
    return path


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OVOAD_API_KEY", raising=False)


def test_request_and_file_are_sent_as_they_are(clip: Path, tmp_path: Path) -> None:
    flags = ["--labels", "a", "b c", "--fps", "2", "--top-k", "3", "--events", "0.6,0.4,100"]
    flags += ["--scorer", "frame", "--templates", "x {}", "--background", "y"]
    with ScriptedServer(answer(*WHOLE)) as server:
        output = ["--output", str(tmp_path / "o.json"), "--api-key", "correct-horse"]
        assert main([str(clip), *flags, *output, "--url", server.address]) == 0
    (sent,) = server.requests
    head, body = sent.split(b"\r\n\r\n", 1)
    assert head.startswith(b"POST /v1/clips HTTP/1.1\r\n")
    assert b"\r\nAuthorization: Bearer correct-horse\r\n" in head + b"\r\n"
    assert b"\r\nAccept: application/x-ndjson\r\n" in head
    assert f"\r\nContent-Length: {len(body)}\r\n".encode() in head + b"\r\n"
    assert b"\r\n\r\n" + clip.read_bytes() + b"\r\n--" in body
    words = body.split(b"application/json\r\n\r\n", 1)[1].split(b"\r\n", 1)[0]
    assert json.loads(words) == {
        "vocabulary": {"labels": ["a", "b c"], "templates": ["x {}"], "background": ["y"]},
        "scorer": "frame",
        "fps": 2.0,
        "top_k": 3,
        "events": {"enter": 0.6, "exit": 0.4, "min_duration_ms": 100},
    }


def test_answer_becomes_one_object(clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "deep" / "o.json"
    with ScriptedServer(answer(*WHOLE)) as server:
        arguments = [str(clip), "--labels", "a", "--url", server.address]
        assert main([*arguments, "--output", str(output)]) == 0
    assert json.loads(output.read_text()) == {
        "opened": OPENED,
        "predictions": [PREDICTION],
        "events": [START, END],
        "errors": [],
        "closed": CLOSED,
    }


def test_answer_becomes_lines(clip: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.ndjson"
    with ScriptedServer(answer(*WHOLE)) as server:
        arguments = [str(clip), "--labels", "a", "--url", server.address]
        assert main([*arguments, "--output", str(output)]) == 0
    assert [json.loads(line) for line in output.read_text().splitlines()] == WHOLE


def test_events_are_shown(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer(answer(*WHOLE)) as server:
        assert main([str(clip), "--labels", "a", "--url", server.address]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a.mp4: 1 frame scored, 1 event; highest: a 0.75",
        "      0.00 s to     1.50 s  a",
        "  note: short",
    ]


def test_busy_server_is_asked_again(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    busy = refusal("429 Too Many Requests", "capacity", "found 8 clips", retry_after_ms=10)
    with ScriptedServer(busy, answer(*WHOLE)) as server:
        assert main([str(clip), "--labels", "a", "--url", server.address]) == 0
    assert "a.mp4: the server is busy, trying again in 0 s" in capsys.readouterr().err
    assert len(server.requests) == 2


def test_refusal_is_heard_before_the_body_has_left(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip.write_bytes(bytes(50_000_000))
    output = tmp_path / "o.json"
    refused = refusal("413 Content Too Large", "clip_too_large", "found 50000000 bytes")
    with ScriptedServer(refused, after_body=False) as server:
        arguments = [str(clip), "--labels", "a", "--url", server.address]
        assert main([*arguments, "--output", str(output)]) == 1
    assert len(server.requests[0]) < 70_000
    assert capsys.readouterr().err == (
        "ovoad clip: a.mp4: server refused: found 50000000 bytes (clip_too_large)\n"
    )
    assert list(tmp_path.iterdir()) == [clip]


ERROR = {"type": "error", "code": "clip_too_long", "message": "too long", "fatal": True}


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (answer(OPENED, PREDICTION), "the connection broke before the clip's end"),
        (answer(OPENED, PREDICTION, ERROR), "server refused: too long (clip_too_long)"),
        (answer("x"), "found an answer that is no message ('\"x\"'), expected JSON lines"),
        (b"", "broke (Remote end closed connection without response)"),
        (b"SSH-2.0\r\n", "broke (SSH-2.0"),
        (
            answer(status="404 Not Found"),
            "found HTTP status 404, expected an ovoad server (error)",
        ),
        (
            refusal("401 Unauthorized", "unauthorised", "x"),
            "refused the connection: no API key was given; pass --api-key",
        ),
    ],
)
def test_failures_leave_no_file(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], reply: bytes, text: str
) -> None:
    with ScriptedServer(reply) as server:
        arguments = [str(clip), "--labels", "a", "--url", server.address]
        assert main([*arguments, "--output", str(tmp_path / "o.json")]) == 1
    assert text in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [clip]


def test_nobody_there_is_told(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert main([str(clip), "--labels", "a", "--url", f"127.0.0.1:{port}"]) == 1
    assert "cannot reach http://127.0.0.1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["rtsp://camera/1"], "expected a file or an http(s) address; ovoad watch takes live"),
        (["s3://bucket/a.mp4"], "ovoad archive object stores"),
        (["."], "found folder '.', expected a file or an http(s) address; whole folders: ovoad"),
        (["a.mp4", "--url", "ftp://x"], "found server address 'ftp://x'"),
        (["a.mp4", "b.mp4", "--output", "x.json"], "found 2 clips for the one output 'x.json'"),
        (["a/x.mp4", "b/x.mp4", "--output", "out"], "found two clips of one name"),
        (["a.mp4", "--labels", "b", "b"], "found label 'b' twice"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_sent(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, *([] if "--labels" in arguments else ["--labels", "a"])]) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000/v1/clips"),
        ("ws://host/v1/stream", "http://host/v1/clips"),
        ("https://host", "https://host/v1/clips"),
        ("wss://host/video/v1/stream", "https://host/video/v1/clips"),
    ],
)
def test_address_is_that_beside_the_stream(url: str, address: str) -> None:
    assert clips_address(url) == address
