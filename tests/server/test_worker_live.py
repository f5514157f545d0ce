"""The server as its own process with the real encoder: its worker killed and stopped under load.

What it logs meanwhile, as JSON, is checked in the same runs.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest
from websockets.asyncio.client import connect

from ovoad_client import protocol

from .harness import Client, until
from .worker_bench import children, is_gone

pytestmark = pytest.mark.slow
KEY = "correct-horse"
LABEL = "secretly dancing"
SESSIONS, WARM_UP, MORE = 4, 33, 24
WAIT_S = 60.0


@dataclass
class LiveServer:
    """A running server; `says` is what its logs are to say among other things."""

    process: "subprocess.Popen[str]"
    address: str
    says: list[str] = field(default_factory=list)

    @property
    def worker_pid(self) -> int:
        """The process of its worker."""
        (pid,) = children(self.process.pid)
        return pid

    async def ready(self) -> tuple[int, str]:
        """Return status and reason of /readyz."""
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"http://{self.address}/readyz", timeout=WAIT_S)
        return answer.status_code, answer.json()["reason"]

    async def metrics(self) -> str:
        """Return /metrics."""
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(trust_env=False, headers=headers) as client:
            return (await client.get(f"http://{self.address}/metrics", timeout=WAIT_S)).text

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[tuple[Client, protocol.SessionCreated]]:
        """Open a lossless session."""
        async with connect(
            f"ws://{self.address}/v1/stream",
            additional_headers={"Authorization": f"Bearer {KEY}"},
            ping_timeout=None,
            proxy=None,
        ) as socket:
            client = Client(socket)
            yield client, await client.create([LABEL, "riding a bicycle"])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    """Start a server whose worker may owe an answer for 2 s; check its logs at the end."""
    names = (name for name in os.environ if not name.startswith(("OVOAD_", "XDG_")))
    environment = {
        **{name: os.environ[name] for name in names},
        "HOME": str(tmp_path),
        "OVOAD_API_KEY": KEY,
        "OVOAD_LOG_FORMAT": "json",
        "OVOAD_WORKER_TIMEOUT_S": "2",
        "OVOAD_PROMISED_FPS": "0",
        "OVOAD_RUNTIME": "onnxruntime",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "ovoad_server", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://(\S+)", process.stdout.readline())
        assert found is not None
        server = LiveServer(process, found[1])
        yield server
        worker_pid = server.worker_pid
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=WAIT_S)
        asyncio.run(is_gone(worker_pid))
        assert process.returncode == 0
        messages = checked_logs(errors)
        for expected in server.says:
            assert any(expected in message for message in messages), expected
    finally:
        process.kill()
        process.communicate()


def checked_logs(errors: str) -> list[str]:
    """Every line is one JSON object, and none names what is the users' own; return the messages."""
    messages = []
    for line in errors.splitlines():
        entry = json.loads(line)
        assert {"time", "level", "logger", "message"} <= set(entry), line
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["time"])
        assert entry["level"] in ("info", "warning", "error", "critical")
        messages.append(f"{entry['logger']}: {entry['message']}")
    for secret in (KEY, LABEL):
        assert secret not in errors
    for expected in ("uvicorn.error: Application startup complete", "uvicorn.error: Finished"):
        assert any(message.startswith(expected) for message in messages), expected
    return messages


def photo(number: int) -> bytes:
    """Return a JPEG of a ball at another place each time."""
    pixels = np.full((120, 160, 3), (200, 120, 40 + number % 50), np.uint8)
    cv2.circle(pixels, (number * 7 % 160, 60), 14, (30, 220, 240), -1)
    return bytes(cv2.imencode(".jpg", pixels)[1])


@dataclass
class Camera:
    """A session of the server and the answers that it got, by seq."""

    client: Client
    predictions: dict[int, protocol.Prediction] = field(default_factory=dict)
    errors: dict[int, protocol.Error] = field(default_factory=dict)

    async def stream(self, first: int, count: int) -> None:
        """Send frames as fast as they are taken, and wait until each is answered."""

        async def send() -> None:
            for seq in range(first, first + count):
                await self.client.frame(seq, photo(seq))

        sending = asyncio.create_task(send())
        while self.answered < first + count:
            self.take(await asyncio.wait_for(self.client.receive(), WAIT_S))
        await sending

    @property
    def answered(self) -> int:
        return len(self.predictions) + len(self.errors)

    def take(self, message: protocol.ServerMessage) -> None:
        match message:
            case protocol.Prediction():
                assert message.seq not in self.predictions
                assert message.seq not in self.errors
                self.predictions[message.seq] = message
            case protocol.Error():
                assert message.transient
                assert not message.fatal
                assert message.seq is not None
                assert message.seq not in self.predictions
                self.errors[message.seq] = message
            case protocol.Event():
                pass
            case _:
                pytest.fail(f"found {message}")


@pytest.mark.parametrize(("number", "how"), [(signal.SIGKILL, "died"), (signal.SIGSTOP, "hung")])
async def test_worker_lost_under_live_sessions_costs_no_answer_and_no_window(
    server: LiveServer, number: signal.Signals, how: str
) -> None:
    assert (await server.ready())[0] == 200
    async with contextlib.AsyncExitStack() as stack:
        created = [await stack.enter_async_context(server.session()) for _ in range(SESSIONS)]
        cameras = [Camera(client) for client, _ in created]
        await asyncio.gather(*(camera.stream(0, WARM_UP) for camera in cameras))
        pid = server.worker_pid
        streaming = asyncio.gather(*(camera.stream(WARM_UP, MORE) for camera in cameras))
        await until(lambda: all(camera.answered > WARM_UP + 4 for camera in cameras))
        os.kill(pid, number)
        server.says += [f"ovoad_server.engine.worker: the worker {how}", "the worker is back after"]
        seen: list[int] = []
        while not streaming.done() or (seen and seen[-1] != 200):
            seen.append((await server.ready())[0])
            await asyncio.sleep(0.02)
        await streaming
        assert 503 in seen
        assert seen[-1] == 200
        assert server.worker_pid != pid
        for camera in cameras:
            assert camera.answered == WARM_UP + MORE
            assert len(camera.errors) <= 1  # most often none: a batch is tried again
            later = [camera.predictions[seq] for seq in camera.predictions if seq >= WARM_UP]
            assert not any(prediction.window.warming_up for prediction in later)
            assert all(prediction.window.frames >= 31 for prediction in later)
            closed = await camera.client.close()
            assert closed.received == WARM_UP + MORE
            assert closed.predicted + closed.errors == closed.received
        metrics = await server.metrics()
    assert f'ovoad_worker_lost_total{{how="{how}"}} 1.0' in metrics
    assert f"ovoad_frames_received_total {SESSIONS * (WARM_UP + MORE):.1f}" in metrics
    for client_created in (session for _, session in created):
        assert client_created.session_id not in metrics


async def test_bad_frames_and_errors_are_logged_as_json_too(server: LiveServer) -> None:
    async with server.session() as (client, _):
        for seq, image in enumerate((photo(0), b"no image", damaged(photo(1)), photo(2))):
            await client.frame(seq, image)
            await client.receive()
        client.break_off()
    server.says += [
        "ovoad_server.stream: a client left",
        "ovoad_server.engine.worker_life: the worker printed: Corrupt JPEG data",
    ]


def damaged(image: bytes) -> bytes:
    """Return a JPEG whose decoder complains on standard error, and goes on."""
    middle = len(image) // 2
    return image[:middle] + b"\x12\x34\x56" + image[middle + 40 :]


def test_start_that_fails_is_logged_as_json() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = subprocess.run(
            [sys.executable, "-m", "ovoad_server", "--port", str(taken.getsockname()[1])],
            env={**os.environ, "OVOAD_LOG_FORMAT": "json"},
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
    (line,) = result.stderr.splitlines()
    entry = json.loads(line)
    assert (result.returncode, entry["level"]) == (1, "critical")
    assert entry["message"].startswith("cannot bind 127.0.0.1:")


async def test_interrupt_while_the_model_is_built_ends_at_once_and_leaves_no_worker(
    tmp_path: Path,
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "ovoad_server",
        "--port",
        "0",
        env={**os.environ, "HOME": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    await until(lambda: bool(children(process.pid)))
    (worker_pid,) = children(process.pid)
    process.send_signal(signal.SIGINT)
    output, errors = await asyncio.wait_for(process.communicate(), WAIT_S)
    assert (process.returncode, output, errors) == (130, b"", b"")
    await is_gone(worker_pid)
