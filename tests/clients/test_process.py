"""Tests of running a server as a process; the servers here are small scripts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import ovoad_client.process as process_module
from ovoad_client.demo import find_demo_video
from ovoad_client.errors import MissingExtraError, ServerStartError
from ovoad_client.process import running_server
from ovoad_client.sources import open_source

READY = """
import http.server, os, pathlib, sys
class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0
    def do_GET(self):
        Handler.asked += 1
        self.send_response(200 if self.path == "/readyz" and Handler.asked > 1 else 503)
        self.end_headers()
    def log_message(self, *details): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
pathlib.Path("pid").write_text(str(os.getpid()))
print("loading", sys.argv[1:], file=sys.stderr)
print(f"ovoad_server listening on http://127.0.0.1:{server.server_port}")
server.serve_forever()
"""
STUBBORN = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY
FAILING = "import sys\nprint('found no weights', file=sys.stderr)\nsys.exit(3)\n"
HANGING = "import time\nprint('thinking')\ntime.sleep(600)\n"

PutServer = Callable[[str], None]


@pytest.fixture
def put_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PutServer:
    """Return a function that makes `python -m ovoad_server` run this code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def put(code: str) -> None:
        (tmp_path / "ovoad_server.py").write_text(code)

    return put


def is_running(folder: Path) -> bool:
    """Tell whether the server that wrote its process number there is alive."""
    try:
        os.kill(int((folder / "pid").read_text()), 0)
    except ProcessLookupError:
        return False
    return True


async def test_server_is_yielded_when_ready_and_stopped_after(
    put_server: PutServer, tmp_path: Path
) -> None:
    put_server(READY)
    log = tmp_path / "demo" / "server.log"
    async with running_server(["--port", "0"], log=log, say=print) as address:
        assert address.startswith("http://127.0.0.1:")
        assert is_running(tmp_path)
    assert not is_running(tmp_path)
    assert "loading ['--port', '0']" in log.read_text()


async def test_server_is_stopped_after_an_error_too(put_server: PutServer, tmp_path: Path) -> None:
    put_server(READY)
    with pytest.raises(ZeroDivisionError):
        async with running_server([], log=tmp_path / "log", say=print):
            raise ZeroDivisionError
    assert not is_running(tmp_path)


async def test_server_is_stopped_when_the_task_is_cancelled(
    put_server: PutServer, tmp_path: Path
) -> None:
    put_server(READY)
    ready = asyncio.Event()

    async def hold() -> None:
        async with running_server([], log=tmp_path / "log", say=print):
            ready.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(hold())
    await ready.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_running(tmp_path)


async def test_a_stubborn_server_is_killed(
    put_server: PutServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "STOP_TIMEOUT_S", 0.2)
    put_server(STUBBORN)
    async with running_server([], log=tmp_path / "log", say=print):
        pass
    assert not is_running(tmp_path)


async def test_a_server_that_fails_shows_the_end_of_its_log(
    put_server: PutServer, tmp_path: Path
) -> None:
    put_server(FAILING)
    with pytest.raises(ServerStartError) as caught:
        async with running_server([], log=tmp_path / "log", say=print):
            pass
    assert str(caught.value) == (
        f"the server ended (3); the end of its log {tmp_path / 'log'}:\n  | found no weights"
    )


async def test_a_server_that_is_never_ready_is_given_up(
    put_server: PutServer, tmp_path: Path
) -> None:
    put_server(HANGING)
    with pytest.raises(ServerStartError, match=r"not ready within 0\.5 s; .*\n  \| thinking"):
        async with running_server([], log=tmp_path / "log", say=print, start_timeout_s=0.5):
            pass


def test_demo_video_is_found_without_importing_its_package() -> None:
    source = open_source(str(find_demo_video()))
    assert (source.width, source.height, source.duration_ms) == (640, 272, 10_000.0)
    source.close()


def test_missing_demo_video_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ovoad_client.demo.VIDEO_PACKAGE", "surely-not-there")
    with pytest.raises(MissingExtraError, match=r"pip install 'ovoad\[demo\]'"):
        find_demo_video()
