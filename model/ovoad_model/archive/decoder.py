"""An archive's decoder as its worker sees it: asked for a file, read frame by frame, replaced.

One process serves file after file; one that dies or hangs over a file is replaced for the next.
"""

import contextlib
import fcntl
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ovoad_model.archive.decoder_link import ENDED, FRAME, HEADER, OPENED, Header, Refused, Request
from ovoad_model.archive.errors import BadVideoError
from ovoad_model.arrays import Frame

PROGRAM: Final = (sys.executable, "-P", "-m", "ovoad_model.archive.decoder_process")
PIPE_BYTES: Final = 2**20
F_SETPIPE_SZ: Final = 1031  # fcntl(2), Linux
ENVIRONMENT: Final = ("HOME", "LANG", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR")
"""What the decoder sees of the worker's environment: no key of an object store."""


@dataclass(frozen=True)
class TimeLimits:
    """How long a file may give no frame, and how long it may take in all."""

    stall_s: float = 60.0
    video_s: float = 6 * 3600.0


class Decoder:
    """A process that decodes; `program` stands in for it in tests. For one thread."""

    def __init__(self, limits: TimeLimits, *, program: Sequence[str] = PROGRAM) -> None:
        self._limits = limits
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe = -1

    def frames(self, path: Path, *, fps: float) -> "tuple[Header, Iterator[tuple[int, Frame]]]":
        """Return a file's header and its frames on the grid: (timestamp_ms, RGB [H, W, 3]).

        Frames are read as they are asked for. Here and there raises BadVideoError: not_a_video,
        decoder_died or too_slow. Read them to their end, or call `close`, before the next file.
        """
        give_up_s = time.monotonic() + self._limits.video_s
        self._ask(Request(str(path), fps))
        kind, body, _ = self._read_record(give_up_s)
        if kind != OPENED:
            raise BadVideoError("not_a_video", Refused(**json.loads(body)).reason)
        return Header(**json.loads(body)), self._read_frames(give_up_s)

    def close(self) -> None:
        """End the process, whatever it does."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        os.close(self._pipe)
        self._process = None

    def _read_frames(self, give_up_s: float) -> Iterator[tuple[int, Frame]]:
        while True:
            kind, body, (timestamp_ms, height, width) = self._read_record(give_up_s)
            if kind == ENDED:
                return
            if kind != FRAME:
                raise BadVideoError("not_a_video", Refused(**json.loads(body)).reason)
            pixels = np.frombuffer(body, np.uint8)
            yield timestamp_ms, pixels.reshape(height, width, 3)

    def _ask(self, request: Request) -> None:
        """Name the next file to a process that lives."""
        if self._process is not None and self._process.poll() is not None:
            self.close()  # it died between two files
        if self._process is None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it just died, as reading will tell
            self._process.stdin.write(json.dumps(asdict(request)).encode() + b"\n")
            self._process.stdin.flush()

    def _start(self) -> None:
        ours, theirs = os.pipe()
        with contextlib.suppress(OSError):
            fcntl.fcntl(ours, F_SETPIPE_SZ, PIPE_BYTES)  # fewer and longer reads
        try:
            self._process = subprocess.Popen(
                [*self._program, str(theirs), str(os.getpid())],
                pass_fds=[theirs],
                env={name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self._pipe = ours

    def _read_record(self, give_up_s: float) -> tuple[bytes, bytearray, tuple[int, int, int]]:
        """Return kind, body and (timestamp_ms, height, width); raises BadVideoError."""
        stall_s = min(give_up_s, time.monotonic() + self._limits.stall_s)
        kind, size, *rest = HEADER.unpack(self._read(HEADER.size, stall_s, give_up_s))
        timestamp_ms, height, width = rest
        return kind, self._read(size, stall_s, give_up_s), (timestamp_ms, height, width)

    def _read(self, count: int, until_s: float, give_up_s: float) -> bytearray:
        """Read `count` bytes; a process that dies or takes too long is ended."""
        data = bytearray(count)
        rest = memoryview(data)
        ready = select.poll()
        ready.register(self._pipe, select.POLLIN)
        while rest:
            if not ready.poll(max(0.0, 1000 * (until_s - time.monotonic()))):
                raise self._end_slow(stalled=until_s < give_up_s)
            read = os.readv(self._pipe, [rest])
            if read == 0:
                raise self._end_dead()
            rest = rest[read:]
        return data

    def _end_slow(self, *, stalled: bool) -> BadVideoError:
        self.close()
        stall_s, video_s = self._limits.stall_s, self._limits.video_s
        found = f"no frame for {stall_s:g} s" if stalled else f"no end in {video_s:g} s"
        return BadVideoError("too_slow", f"found {found}, expected a video that decodes")

    def _end_dead(self) -> BadVideoError:
        assert self._process is not None
        status = self._process.wait()
        self.close()
        return BadVideoError(
            "decoder_died",
            f"the decoder ended with status {status} over this file, expected a video that decodes",
        )
