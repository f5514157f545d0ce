"""Load an HTTP endpoint from many keep-alive clients. Part of side_by_side.py; no command.

A client of its own on asyncio's streams, as general HTTP libraries cost a multiple of it and share
the cores with the server that is measured.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from urllib.request import ProxyHandler, build_opener

from ovoad_client.bench.statistics import Percentiles, percentiles


def post(path: str, body: bytes, content_type: str) -> bytes:
    """Return the bytes of a POST request."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def read_answer(reader: asyncio.StreamReader) -> bytes:
    """Return an answer's body; raises ValueError where it is not 200 with a length."""
    head = await reader.readuntil(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
    body = await reader.readexactly(int(fields.get("content-length", "0")))
    if status.split(" ")[1] != "200":
        raise ValueError(f"found {status!r} {body[:200]!r}, expected 200")
    return body


async def load_http(
    port: int, requests: Sequence[bytes], *, clients: int, seconds: float, warmup_s: float
) -> tuple[float, Percentiles]:
    """Return answers/s and milliseconds of clients that each wait for their last answer."""
    times_ms: list[float] = []
    start_s = time.perf_counter() + warmup_s
    end_s = start_s + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        turn = number * 7
        try:
            while (sent_s := time.perf_counter()) < end_s:
                writer.write(requests[turn % len(requests)])
                await writer.drain()
                body = await read_answer(reader)
                answered_s = time.perf_counter()
                json.loads(body)
                if start_s <= answered_s < end_s:
                    times_ms.append((answered_s - sent_s) * 1000)
                turn += 1
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async with asyncio.TaskGroup() as tasks:
        for number in range(clients):
            tasks.create_task(client(number))
    return len(times_ms) / seconds, percentiles(times_ms)


@contextlib.asynccontextmanager
async def http_server(command: Sequence[str], port: int) -> AsyncIterator[None]:
    """Run a server as a process; it is ready once /health answers."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for _ in range(600):
            if process.returncode is not None:
                raise RuntimeError(f"{command[1]} ended ({process.returncode})")
            if await asyncio.to_thread(_answers, port):
                break
            await asyncio.sleep(0.1)
        else:
            raise RuntimeError(f"{command[1]} did not answer within 60 s")
        yield
    finally:
        await _end(process)


def _answers(port: int) -> bool:
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


async def _end(process: asyncio.subprocess.Process) -> None:
    """End the server and, where it does not go by itself, its whole process group."""
    import os
    import signal

    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(10):
            await process.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
