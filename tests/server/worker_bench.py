"""Parts of the tests with real worker processes: start one, and look at processes from outside."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ovoad_model.window import Window
from ovoad_server.engine.engine import Engine
from ovoad_server.engine.events import EventRule
from ovoad_server.engine.interface import Failure, Float32Array, WindowView
from ovoad_server.engine.replies import Failed, Reply, Scored
from ovoad_server.engine.session import Session, Words
from ovoad_server.engine.worker import WorkerProcess
from ovoad_server.engine.worker_link import Setup

from .harness import until
from .worker_models import COLOURS, DEADLY, ENDLESS, HURTFUL, NAMELESS

PICTURES = {
    **COLOURS,
    "deadly": DEADLY,
    "endless": ENDLESS,
    "hurtful": HURTFUL,
    "nameless": NAMELESS,
}


def paint(name: str, *, side: int = 16) -> bytes:
    """Return a picture of one colour as PNG bytes."""
    pixels = np.full((side, side, 3), PICTURES[name][::-1], np.uint8)
    return bytes(cv2.imencode(".png", pixels)[1])


def large_picture(count: int) -> bytes:
    """Return a red PNG of at least `count` bytes: bytes behind its end are no part of it."""
    return paint("red").ljust(count, b"\0")


def setup(factory: str = "build", **arguments: Any) -> Setup:
    """Return what builds a model of worker_models."""
    return Setup(f"worker_models:{factory}", arguments)


def make_worker(
    factory: str = "build", *, timeout_s: float = 20.0, **arguments: Any
) -> tuple[WorkerProcess, list[str]]:
    """Return a worker that is not started yet, and the reasons of its losses."""
    losses: list[str] = []
    worker = WorkerProcess(setup(factory, **arguments), timeout_s=timeout_s, on_loss=losses.append)
    return worker, losses


@contextlib.asynccontextmanager
async def watched(worker: WorkerProcess, *, started: bool = False) -> AsyncIterator[WorkerProcess]:
    """Start a worker and watch it while the block runs; no process is left afterwards."""
    if not started:
        await worker.start()
    watching = asyncio.create_task(worker.run())
    await asyncio.sleep(0)  # it begins, so it can end
    try:
        yield worker
        assert not watching.done(), watching
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await until(lambda: not children())


def pid_of(worker: WorkerProcess) -> int:
    """Return the process under way."""
    pid = worker.pid
    assert pid is not None
    return pid


def children(parent: int | None = None) -> list[int]:
    """Return the processes, zombies too, whose parent this one or another is.

    Without the helper of Python's multiprocessing, which stays once a library has asked for it.
    """
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            its_parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            is_helper = b"multiprocessing." in (folder / "cmdline").read_bytes()
            if its_parent == (parent or os.getpid()) and not is_helper:
                found.append(int(folder.name))
    return found


async def is_gone(pid: int) -> None:
    """Wait until a process is gone, zombie and all."""
    await until(lambda: not Path(f"/proc/{pid}").exists())


def features_of(results: Sequence[Float32Array | Failure]) -> list[Float32Array]:
    """Return the features of a batch, none of which failed."""
    features = [each for each in results if not isinstance(each, Failure)]
    assert len(features) == len(results), results
    return features


def views_of(results: Sequence[Float32Array | Failure]) -> Sequence[WindowView]:
    """Put each feature into a window of its own."""
    views = []
    for feature in features_of(results):
        window = Window(3)
        window.push(0, feature)
        views.append(window.view())
    return views


def open_descriptors() -> int:
    """Count this process's file descriptors."""
    return len(os.listdir("/proc/self/fd"))


class Camera:
    """A session of an engine over a worker process, and its answers."""

    def __init__(self, engine: Engine, words: Any) -> None:
        self.engine = engine
        self.replies: list[Reply] = []
        self.session = Session(
            "camera",
            policy="lossless",
            window=engine.open_window(),
            words=Words(1, words),
            rule=EventRule(0.99, 0.01, 600_000),
            max_inflight=100,
            max_fps=1000.0,
            reply=self.replies.append,
        )
        engine.add(self.session)
        self._next = 0

    def show(self, *names: str) -> None:
        """Send pictures, 250 ms apart."""
        for name in names:
            self.engine.submit(self.session, self._next, self._next * 250, paint(name))
            self._next += 1

    async def answered(self, count: int | None = None) -> list[Reply]:
        """Wait until this many, or all, are answered."""
        wanted = self._next if count is None else count
        await until(lambda: len(self.replies) >= wanted)
        return self.replies

    def failed(self) -> list[Failed]:
        """Return the frames that failed."""
        return [reply for reply in self.replies if isinstance(reply, Failed)]

    def scored(self) -> list[Scored]:
        """Return the frames that were scored."""
        return [reply for reply in self.replies if isinstance(reply, Scored)]


FOLDER = Path(__file__).parent
