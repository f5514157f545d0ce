"""A real server behind a link that is cut: every frame is answered once, the window stays warm."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from ovoad_client.client import connect
from ovoad_client.notices import FramesLost, Reconnected
from ovoad_client.protocol import FrameDropped, Prediction
from ovoad_client.reconnecting import Reconnect

pytestmark = pytest.mark.slow
FRAMES = 60
STEP_MS = 250  # a frame for each slot of the window: 8 s pass with 33 frames
CUTS = (20, 35, 50)  # before these frames are sent
SOON = Reconnect(first_s=0.01)


class CuttableLink:
    """A TCP proxy on loopback whose connections can be cut."""

    def __init__(self, host: str, port: int) -> None:
        self.address = ""
        self.cuts = 0
        self._server = (host, port)
        self._carrying: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[CuttableLink]:
        """Listen on a free port."""
        listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        async with listener:
            self.address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
            yield self
            await self.cut()

    async def cut(self) -> None:
        """Reset all connections, in both directions."""
        self.cuts += 1
        carrying = list(self._carrying)
        for task in carrying:
            task.cancel()
        await asyncio.gather(*carrying, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        onward_reader, onward_writer = await asyncio.open_connection(*self._server)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_copy(reader, onward_writer))
                tasks.create_task(_copy(onward_reader, writer))
        except* (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            onward_writer.transport.abort()
            self._carrying.discard(task)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError("one end has closed")


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    """Return host and port of a real server process."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("OVOAD_")
    }
    environment["PYTHONUNBUFFERED"] = "1"
    command = [sys.executable, "-m", "ovoad_server", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert "listening on http://" in line, line
        address = urlsplit(line.split()[-1])
        assert address.hostname is not None
        assert address.port is not None
        yield address.hostname, address.port
        process.terminate()
        assert process.wait(30) in (0, -signal.SIGTERM)


def picture(index: int) -> bytes:
    """Return a JPEG that differs from frame to frame."""
    image = np.full((120, 160, 3), 4 * index % 256, np.uint8)
    return bytes(cv2.imencode(".jpg", image)[1].tobytes())


async def test_lossless_stream_over_three_cuts_predicts_every_frame_once(
    server: tuple[str, int],
) -> None:
    predictions: list[Prediction] = []
    comebacks: list[Reconnected] = []
    async with (
        CuttableLink(*server).open() as link,
        connect(link.address, ["waving"], policy="lossless", reconnect=SOON) as stream,
    ):
        session_id = stream.created.session_id

        async def send_all() -> None:
            for index in range(FRAMES):
                if index in CUTS:
                    await link.cut()
                await stream.send(picture(index), timestamp_ms=index * STEP_MS)
            closed = await stream.close()
            assert stream.counts.differences(closed) == []

        sending = asyncio.create_task(send_all())
        async for message in stream:
            if isinstance(message, Prediction):
                predictions.append(message)
            elif isinstance(message, Reconnected):
                comebacks.append(message)
        await sending
    assert [one.seq for one in predictions] == list(range(FRAMES))
    assert [one.resumed for one in comebacks] == [True] * len(CUTS)
    assert stream.created.session_id == session_id
    warming = [one.window.warming_up for one in predictions]
    assert warming == sorted(warming, reverse=True), "a window that is warm stays warm"
    assert not warming[-1]
    assert [one.window.gaps for one in predictions] == [0] * FRAMES
    assert (stream.counts.sent, stream.counts.predicted, stream.counts.lost) == (FRAMES, FRAMES, 0)


async def test_realtime_stream_names_what_a_cut_has_swallowed(server: tuple[str, int]) -> None:
    ended: list[int] = []
    async with (
        CuttableLink(*server).open() as link,
        connect(link.address, ["waving"], reconnect=SOON) as stream,
    ):

        async def send_all() -> None:
            for index in range(20):
                await stream.send(picture(index), timestamp_ms=index * STEP_MS)
                if index in (5, 12):
                    await link.cut()
            closed = await stream.close()
            assert stream.counts.differences(closed) == []

        sending = asyncio.create_task(send_all())
        async for message in stream:
            if isinstance(message, FramesLost):
                ended.extend(message.seqs)
            elif isinstance(message, Prediction | FrameDropped):
                ended.append(message.seq)
        await sending
    assert sorted(ended) == list(range(20))
    assert stream.counts.reconnects == 2
