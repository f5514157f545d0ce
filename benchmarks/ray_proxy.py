"""What Ray Serve's own proxy does with a WebSocket that must be read no further, and with its ends.

    python benchmarks/ray_proxy.py [--seconds 8]

An application that accepts and then reads nothing is served twice: behind Serve's proxy, and by the
listener that ovoad's ingress replicas open. A client sends 64 KiB messages as fast as it may: how
much is taken, and what it costs in memory, tells whether TCP slows the sender. Then close codes,
the subprotocol and the largest message that each lets through. With RAY_SERVE_ENABLE_HA_PROXY=1 in
the environment it is Serve's other proxy. Needs pip install 'ovoad[scale]'. Linux.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from ovoad_client.bench.resources import descendants, resident_kib
from ovoad_client.bench.table import markdown
from ovoad_client.protocol import SUBPROTOCOL
from ovoad_server.listener import open_listener, uvicorn_config
from ovoad_server.settings import Settings

CODES = (1000, 1008, 1011, 1012, 1013, 4401)
RAY_OFF = ("RAY_USAGE_STATS_ENABLED", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "RAY_worker_niceness")
STILL_S = 15.0
MESSAGE = bytes(64 * 1024)
SIZES_MIB = (4, 8, 16, 24)


@dataclass
class Findings:
    """What one way to serve does."""

    taken_mib: float
    grown_mib: float
    codes: dict[int, int | None]
    subprotocol: str | None
    largest_mib: int


def make_app() -> FastAPI:
    """Return an application that reads little."""
    app = FastAPI()

    @app.websocket("/still")
    async def still(websocket: WebSocket) -> None:
        await websocket.accept()
        await asyncio.sleep(STILL_S)

    @app.websocket("/close/{code}")
    async def close(websocket: WebSocket, code: int) -> None:
        await websocket.accept(SUBPROTOCOL)
        await websocket.close(code, "told")

    @app.websocket("/size")
    async def size(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(str(len(await websocket.receive_bytes())))
        await websocket.close()

    return app


async def look_at(address: str, seconds: float) -> Findings:
    """Try everything at one address."""
    codes = {}
    subprotocol = None
    for code in CODES:
        async with connect(f"{address}/close/{code}", subprotocols=[SUBPROTOCOL]) as client:  # type: ignore[list-item]
            subprotocol = client.subprotocol
            with contextlib.suppress(ConnectionClosed):
                await client.recv()
            codes[code] = client.close_code
    largest = 0
    for mib in SIZES_MIB:
        with contextlib.suppress(WebSocketException, TimeoutError):
            async with connect(f"{address}/size", max_size=None) as client, asyncio.timeout(20):
                await client.send(bytes(mib * 2**20))
                if await client.recv() == str(mib * 2**20):
                    largest = mib
    taken_mib, grown_mib = await flood(f"{address}/still", seconds)
    return Findings(taken_mib, grown_mib, codes, subprotocol, largest)


async def flood(url: str, seconds: float) -> tuple[float, float]:
    """Send to an application that does not read; return MiB sent, and MiB that all grew by."""
    processes = [os.getpid(), *descendants(os.getpid())]
    before = resident_kib(processes)
    sent = 0
    async with connect(url, max_size=None, ping_interval=None, close_timeout=1) as client:
        with contextlib.suppress(TimeoutError, ConnectionClosed):
            async with asyncio.timeout(seconds):
                while True:
                    await client.send(MESSAGE)
                    sent += len(MESSAGE)
        grown = resident_kib(processes) - before
    return sent / 2**20, grown / 1024


@contextlib.asynccontextmanager
async def own_listener() -> AsyncIterator[str]:
    """Serve as an ingress replica does."""
    settings = Settings(port=0)
    listener = open_listener(settings)
    server = uvicorn.Server(uvicorn_config(make_app(), settings))
    running = asyncio.create_task(server._serve([listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"ws://127.0.0.1:{listener.getsockname()[1]}"
    server.force_exit = server.should_exit = True
    await running


@contextlib.contextmanager
def behind_the_proxy() -> Iterator[str]:
    """Serve by Ray Serve's proxy."""
    os.environ |= {name: "0" for name in RAY_OFF}
    import ray
    from ray import serve

    ray.init(
        address="local",
        num_cpus=4,
        object_store_memory=200 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
    )

    class Unread:
        """A replica with the same application."""

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        serve.run(serve.deployment(serve.ingress(make_app)(Unread)).bind())
        yield f"ws://127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()


async def main() -> int:
    """Look at both, and tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="of sending (8)")
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)
    async with own_listener() as address:
        own = await look_at(address, arguments.seconds)
    with behind_the_proxy() as address:
        proxied = await look_at(address, arguments.seconds)
    rows = [
        [
            name,
            f"{found.taken_mib:.1f}",
            f"{found.grown_mib:.0f}",
            f"{found.largest_mib}",
            found.subprotocol or "none",
            ", ".join(
                f"{code}" if code == got else f"{code} as {got}"
                for code, got in found.codes.items()
            ),
        ]
        for name, found in (("its own listener", own), ("Serve's proxy", proxied))
    ]
    heads = ["served by", "taken unread MiB", "memory grown MiB", "largest message MiB"]
    print("\n".join(markdown([*heads, "subprotocol", "close codes"], rows)))
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
