"""The server on a real Ray Serve, two replicas of each kind: the contract, and replicas killed."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from ovoad_client.bench.resources import descendants
from ovoad_client.client import Reconnect, connect
from ovoad_client.notices import FramesLost, Reconnected
from ovoad_client.protocol import Error, FrameDropped, Prediction
from ovoad_client.stream import Stream

from .real_server import WAIT_S, RealServer, photo, stop_server
from .test_resume_live import (  # run here once more, by the fixture `server` of this file
    test_lossless_stream_over_three_cuts_predicts_every_frame_once,
    test_realtime_stream_names_what_a_cut_has_swallowed,
)

__all__ = [
    "test_lossless_stream_over_three_cuts_predicts_every_frame_once",
    "test_realtime_stream_names_what_a_cut_has_swallowed",
]
pytest.importorskip("ray.serve", reason="ray is not installed: pip install 'ovoad[scale]'")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
REPLICAS = 2
SOON = Reconnect(first_s=0.1)
CAMERAS = 6
FRAMES = 40
STEP_S = 0.1
ALLOWED_SKIPS = {"create.timeout", "goaway"}
KEY_CHECKS = {  # this server lets anyone in
    *("handshake.no_key", "handshake.wrong_key", "handshake.key_subprotocol"),
    *("http.key.v1.config", "http.key.metrics"),
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """Return a server on a Ray of its own; nothing of it is left afterwards."""
    names = [name for name in os.environ if not name.startswith(("OVOAD_", "XDG_", "RAY_"))]
    process = subprocess.Popen(
        [sys.executable, "-m", "ovoad_server", "--on", "ray", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **{name: os.environ[name] for name in names},
            "HOME": str(tmp_path_factory.mktemp("home")),
            "PYTHONUNBUFFERED": "1",
            "OVOAD_RUNTIME": "onnxruntime",
            "OVOAD_PROMISED_FPS": "0",
            "OVOAD_RAY_INGRESS": str(REPLICAS),
            "OVOAD_RAY_ENCODERS": str(REPLICAS),
        },
    )
    address = None
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.fullmatch(r"ovoad_server listening on http://(127\.0\.0\.1:\d+)\n", line):
            address = found[1]
            break
    if address is None:
        with process:
            process.kill()
        raise AssertionError("found no address")
    cluster = RealServer(process, address)
    below = descendants(process.pid)
    yield cluster
    stop_server(cluster)
    for pid in below:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def replicas(cluster: RealServer, kind: str) -> list[int]:
    """Return the processes of the replicas of one deployment."""
    title = f"ray::ServeReplica:ovoad:{kind}".encode()
    found = []
    for pid in descendants(cluster.process.pid):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(title):
                found.append(pid)
    return found


def own_addresses(cluster: RealServer) -> list[str]:
    """Return where each ingress replica listens alone."""
    host, port = cluster.host_and_port
    found = []
    for own in range(port + 1, port + 8):
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://{host}:{own}/healthz", trust_env=False, timeout=2).is_success:
                found.append(f"{host}:{own}")
    return found


@pytest.fixture
def server(cluster: RealServer) -> tuple[str, int]:
    """Return host and port of one ingress replica, for the tests of the single process below."""
    host, _, port = own_addresses(cluster)[0].rpartition(":")
    return host, int(port)


def test_each_ingress_replica_conforms(cluster: RealServer, tmp_path: Path) -> None:
    addresses = own_addresses(cluster)
    assert len(addresses) == REPLICAS
    report = tmp_path / "report.json"
    for address in addresses:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "ovoad_client.conformance", address),
                *("--json", str(report), "--timeout", "60"),
            ],
            capture_output=True,
            text=True,
            timeout=140,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        told = json.loads(report.read_text())
        assert told["counts"]["fail"] == 0
        skipped = {check["name"] for check in told["checks"] if check["status"] == "skip"}
        assert skipped == ALLOWED_SKIPS | KEY_CHECKS


class Camera:
    """A client that sends frames and notes how each ended."""

    def __init__(self) -> None:
        self.fates: dict[int, str] = {}
        self.resumed: list[bool] = []
        self.warming_up: list[bool] = []  # of the windows, in order

    async def run(self, address: str) -> None:
        """Send all frames, come back by itself where it has to."""
        async with connect(address, ["waving"], reconnect=SOON) as stream:
            reading = asyncio.create_task(self._read(stream))
            for index in range(FRAMES):
                await stream.send(photo(), timestamp_ms=round(index * STEP_S * 1000))
                await asyncio.sleep(STEP_S)
            closed = await stream.close()
            assert stream.counts.differences(closed) == []
            await reading

    async def _read(self, stream: Stream) -> None:
        async for message in stream:
            if isinstance(message, Prediction):
                self._end(message.seq, "predicted")
                self.warming_up.append(message.window.warming_up)
            elif isinstance(message, FrameDropped):
                self._end(message.seq, "dropped")
            elif isinstance(message, Error) and message.seq is not None:
                self._end(message.seq, f"error: {message.message}")
            elif isinstance(message, FramesLost):
                for seq in message.seqs:
                    self._end(seq, "lost")
            elif isinstance(message, Reconnected):
                self.resumed.append(message.resumed)

    def _end(self, seq: int, fate: str) -> None:
        assert seq not in self.fates, f"frame {seq} ended twice"
        self.fates[seq] = fate


async def kill_under_cameras(cluster: RealServer, kind: str) -> list[Camera]:
    """Kill one of the replicas while cameras send; return the cameras."""
    cameras = [Camera() for _ in range(CAMERAS)]
    async with asyncio.TaskGroup() as tasks:
        for camera in cameras:
            tasks.create_task(camera.run(cluster.address))
        await asyncio.sleep(FRAMES * STEP_S / 4)
        pids = replicas(cluster, kind)
        assert len(pids) == REPLICAS
        os.kill(pids[0], signal.SIGKILL)
    async with asyncio.timeout(WAIT_S):
        while len([pid for pid in replicas(cluster, kind) if pid != pids[0]]) < REPLICAS:
            await asyncio.sleep(0.2)  # Ray Serve starts another
    return cameras


async def test_encoder_replica_killed_breaks_no_session(cluster: RealServer) -> None:
    cameras = await kill_under_cameras(cluster, "encoder")
    for camera in cameras:
        assert camera.resumed == [], "nobody lost the connection"
        assert sorted(camera.fates) == list(range(FRAMES))
        assert set(camera.fates.values()) <= {"predicted", "dropped"}


async def test_ingress_replica_killed_is_told_and_every_frame_accounted_for(
    cluster: RealServer,
) -> None:
    cameras = await kill_under_cameras(cluster, "ingress")
    for camera in cameras:
        assert sorted(camera.fates) == list(range(FRAMES))
        assert camera.resumed in ([], [False]), "the window went with the replica"
        assert set(camera.fates.values()) <= {"predicted", "dropped", "lost"}
        assert camera.fates[FRAMES - 1] == "predicted", "it goes on"


async def test_replicas_drain_when_the_server_ends(cluster: RealServer) -> None:
    below = descendants(cluster.process.pid)
    async with connect(cluster.address, ["waving"], reconnect=None) as stream:
        await stream.send(photo(), timestamp_ms=0)
        cluster.signal(signal.SIGTERM)
        kinds = [message.type async for message in stream]
    assert [kind for kind in kinds if kind != "event"] == ["prediction", "goaway", "session.closed"]
    assert await asyncio.to_thread(cluster.process.wait, WAIT_S) == 0
    async with asyncio.timeout(WAIT_S):
        while any(Path(f"/proc/{pid}/exe").exists() for pid in below):
            await asyncio.sleep(0.2)
