"""The decoder as a process of its own: one file in, frames on the grid out, then it is gone.

Files come from strangers: whatever FFmpeg does over one (crash, hang, fill the memory) happens
here. It may write nowhere, has a bound on memory, and gives way to the server and its worker.
Started as `python -m ovoad_server.clips.decoder_process TASK_AS_JSON`.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Final

os.environ["OPENCV_LOG_LEVEL"] = "SILENT"
os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "-8"
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # each thread of it takes addresses, used or not

import cv2

from ovoad_server.clips.decoder_link import (
    ENDED,
    FRAME,
    HEADER,
    OPENED,
    POSITION,
    REFUSED,
    Ended,
    Opened,
    Refused,
    Task,
    pack_json,
)
from ovoad_server.clips.sampling import frame_duration_ms, sample_frames, shrink

MEMORY_BYTES: Final = 6 * 2**30  # of addresses; the largest pictures take a third of it
NICENESS: Final = 10
TELL_EVERY_S: Final = 1.0
PR_SET_PDEATHSIG: Final = 1  # prctl(2)
OOM_SCORE: Final = 1000  # proc(5): the first to be ended where memory runs out
DEMUXERS: Final = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,flv,ogg,asf"  # FFmpeg's names
)
TELLS_LENGTH: Final = ("MP4 or QuickTime", "AVI")  # elsewhere the length may be an estimate


class _RefusedError(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.record = Refused(status, code, message)


def main() -> None:
    """Decode what the task names."""
    task = Task(**json.loads(sys.argv[1]))
    _confine(task.server_pid)
    restrict_ffmpeg()
    with os.fdopen(task.output, "wb", buffering=0) as output:
        desk = _Desk(task, output.fileno())
        try:
            desk.work()
        except _RefusedError as refusal:
            desk.send(pack_json(REFUSED, refusal.record))
        except (MemoryError, cv2.error) as error:
            message = f"the decoder gave up ({type(error).__name__}), expected a video that decodes"
            desk.send(pack_json(REFUSED, Refused(415, "not_a_video", message)))
        except BrokenPipeError:  # nobody wants the rest
            os._exit(0)


def _confine(server_pid: int) -> None:
    """Bound what this process can do, and let it end with the server."""
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to whole groups; the server ends us
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server_pid:
        os._exit(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
    os.nice(NICENESS)
    cv2.setNumThreads(1)
    for limit, value in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        resource.setrlimit(limit, (value, value))


def restrict_ffmpeg() -> None:
    """Let FFmpeg open files alone, and as containers alone: it looks for lists by itself.

    By a file's content FFmpeg may choose HLS, DASH or concat, which name other files to read.
    """
    options = f"protocol_whitelist;file|format_whitelist;{DEMUXERS}"
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = options  # read whenever a file is opened


class _Desk:
    """Reads the file and writes records."""

    def __init__(self, task: Task, output: int) -> None:
        self._task = task
        self._output = output
        self._told_s = time.monotonic()
        self._frames = 0
        self._last_ms = 0.0

    def send(self, data: bytes | memoryview) -> None:
        """Write all of it; waits while the server takes no more."""
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._output, rest) :]

    def work(self) -> None:
        """Decode; raises _RefusedError, BrokenPipeError."""
        task = self._task
        capture = self._open()
        opened = _facts(capture)
        self._check(opened)
        first = True
        for sample in sample_frames(capture, fps=task.fps, each=self._follow):
            height, width, _ = sample.pixels.shape
            self._check_pixels(width, height)
            if first:  # so that what has no frame at all is refused with a status of its own
                self.send(pack_json(OPENED, opened))
                first = False
            pixels = shrink(sample.pixels, least_side=task.least_side)
            height, width, _ = pixels.shape
            self.send(HEADER.pack(FRAME, pixels.nbytes, sample.timestamp_ms, height, width))
            self.send(pixels.reshape(-1).data)
        if first:
            raise _RefusedError(
                415,
                "not_a_video",
                f"found {task.container} data without a frame that decodes, "
                "expected at least one: the file is cut off or damaged",
            )
        ended = Ended(self._frames, opened.frame_count, round(self._last_ms))
        self.send(pack_json(ENDED, ended))

    def _open(self) -> cv2.VideoCapture:
        task = self._task
        # Named by its descriptor: the file has no other name.
        capture = cv2.VideoCapture(
            f"/proc/self/fd/{task.descriptor}",
            cv2.CAP_FFMPEG,
            [cv2.CAP_PROP_N_THREADS, task.threads],
        )
        if not capture.isOpened():
            raise _RefusedError(
                415,
                "not_a_video",
                f"found {task.container} data without a video that decodes, expected one: "
                "the file holds sound alone, is cut off, or has a codec that is not known",
            )
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)
        return capture

    def _check(self, opened: Opened) -> None:
        """Refuse by the header what would be refused later; not by what FFmpeg estimates.

        The number of frames is one where a container counts none (Matroska, fragmented MP4).
        """
        self._check_pixels(opened.width, opened.height)
        if opened.duration_ms is not None and self._task.container in TELLS_LENGTH:
            self._check_duration(opened.duration_ms)

    def _follow(self, time_ms: float, number: int) -> None:
        """Hold each decoded frame to the bounds; say now and then that work goes on."""
        self._frames, self._last_ms = number, time_ms
        self._check_frames(number)
        self._check_duration(time_ms)
        now_s = time.monotonic()
        if now_s - self._told_s >= TELL_EVERY_S:
            self._told_s = now_s
            self.send(HEADER.pack(POSITION, 0, round(time_ms), 0, 0))

    def _check_pixels(self, width: int, height: int) -> None:
        if width * height > self._task.max_pixels:
            raise _RefusedError(
                413,
                "image_too_large",
                f"video has {width}x{height} pixels, "
                f"expected at most {self._task.max_pixels} in all",
            )

    def _check_frames(self, frames: int) -> None:
        if frames > self._task.max_frames:
            raise _RefusedError(
                413,
                "clip_too_long",
                f"found {frames} frames or more, expected at most {self._task.max_frames}",
            )

    def _check_duration(self, time_ms: float) -> None:
        if time_ms > self._task.max_duration_s * 1000:
            raise _RefusedError(
                413,
                "clip_too_long",
                f"found {time_ms / 1000:.0f} s of video or more, "
                f"expected at most {self._task.max_duration_s:g} s",
            )


def _facts(capture: cv2.VideoCapture) -> Opened:
    """Read the header; FFmpeg estimates the number of frames where no container counts them."""
    width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
    height = int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    frame_ms = frame_duration_ms(capture)
    count = float(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    frames = int(count) if 0 < count < 2**53 else None
    known = frames is not None and frame_ms is not None
    return Opened(
        width=width,
        height=height,
        fps=None if frame_ms is None else round(1000 / frame_ms, 6),
        duration_ms=round(frames * frame_ms) if known and frames and frame_ms else None,
        frame_count=frames,
    )


if __name__ == "__main__":
    main()
