"""A clip's decoder as the server sees it: started, read frame by frame, ended. Knows no FFmpeg."""

import asyncio
import contextlib
import fcntl
import json
import os
import sys
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from typing import Final

from ovoad_server.clips.decoder_link import (
    ENDED,
    FRAME,
    HEADER,
    OPENED,
    POSITION,
    Ended,
    Opened,
    Refused,
    Task,
)
from ovoad_server.clips.refusals import ClipRefusedError
from ovoad_server.engine.raw_image import RawImage

SILENCE_TIMEOUT_S: Final = 60.0  # it speaks every second while it gets on
LEAVE_TIMEOUT_S: Final = 5.0  # from its pipe's end to its own
PIPE_BYTES: Final = 2**20
F_SETPIPE_SZ: Final = 1031  # fcntl(2), Linux


@dataclass(frozen=True)
class Decoded:
    """A frame on the grid, its bytes ready for the engine."""

    timestamp_ms: int
    image: RawImage


@dataclass(frozen=True)
class Position:
    """Decoding has come this far."""

    timestamp_ms: int


Record = Opened | Decoded | Position | Ended


class Decoder:
    """One process, one file. Reads block in threads of `readers`, one at a time."""

    def __init__(self, process: asyncio.subprocess.Process, pipe: int, readers: Executor) -> None:
        self._process = process
        self._pipe = pipe
        self._readers = readers
        self._reading: asyncio.Future[Record] | None = None
        self._ending: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, task: Task, readers: Executor) -> "Decoder":
        """Start a process for the task's file; raises OSError. It learns none of our settings."""
        ours, theirs = os.pipe()
        try:
            _widen(ours)
            whole = replace(task, output=theirs, server_pid=os.getpid())
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # nothing is imported from the folder that the server was started in
                "-m",
                "ovoad_server.clips.decoder_process",
                json.dumps(asdict(whole)),
                pass_fds=[task.descriptor, theirs],
                env=_environment(),
                process_group=0,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return cls(process, ours, readers)

    @property
    def process_id(self) -> int:
        """The system's number of the process."""
        return self._process.pid

    async def read(self) -> Record:
        """Return what comes next; raises ClipRefusedError. Not after Ended."""
        assert self._ending is None, "a decoder that was ended is read no more"
        loop = asyncio.get_running_loop()
        self._reading = loop.run_in_executor(self._readers, _read_record, self._pipe)
        try:
            async with asyncio.timeout(SILENCE_TIMEOUT_S):
                return await asyncio.shield(self._reading)
        except TimeoutError:
            raise ClipRefusedError(
                415,
                "not_a_video",
                f"the decoder made no progress for {SILENCE_TIMEOUT_S:g} s, "
                "expected a video that decodes",
            ) from None
        except EOFError:
            status = await self._leave()
            raise ClipRefusedError(
                415,
                "not_a_video",
                f"the decoder ended with status {status} over this file, "
                "expected a video that decodes",
            ) from None

    def end(self) -> "asyncio.Task[None]":
        """Kill the process and free what it held, once the read under way has seen its end."""
        if self._ending is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._ending = asyncio.create_task(self._bury(), name="ovoad decoder's end")
        return self._ending

    async def _leave(self) -> int:
        """Return the status of a process that says no more, killed where it stays on."""
        try:
            async with asyncio.timeout(LEAVE_TIMEOUT_S):
                return await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            return await self._process.wait()

    async def _bury(self) -> None:
        await self._process.wait()
        if self._reading is not None:
            await asyncio.wait([self._reading])
            if not self._reading.cancelled():
                self._reading.exception()  # seen
        os.close(self._pipe)


def _environment() -> dict[str, str]:
    """Return our environment without our settings: a key is none of the decoder's business."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OVOAD_")}


def _widen(pipe: int) -> None:
    """Make room for more than 64 KiB on the way: fewer and longer reads."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, F_SETPIPE_SZ, PIPE_BYTES)


def _read_record(pipe: int) -> Record:
    """Read one record; raises EOFError once the process is gone, ClipRefusedError. Blocks."""
    kind, size, timestamp_ms, height, width = HEADER.unpack(_read(pipe, HEADER.size))
    if kind == FRAME:
        head = RawImage.head(height, width)
        return Decoded(timestamp_ms, RawImage(_read(pipe, size, head)))
    if kind == POSITION:
        return Position(timestamp_ms)
    body = json.loads(_read(pipe, size))
    if kind == OPENED:
        return Opened(**body)
    if kind == ENDED:
        return Ended(**body)
    refused = Refused(**body)
    raise ClipRefusedError(refused.status, refused.code, refused.message)


def _read(pipe: int, count: int, head: bytes = b"") -> bytearray:
    """Read `count` bytes behind a head."""
    data = bytearray(len(head) + count)
    data[: len(head)] = head
    rest = memoryview(data)[len(head) :]
    while rest:
        read = os.readv(pipe, [rest])
        if read == 0:
            raise EOFError("the decoder is gone")
        rest = rest[read:]
    return data
