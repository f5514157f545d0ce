"""The decoder as a process of its own: paths in, frames on the grid out. Knows no model.

Whatever FFmpeg does over a file (crash, hang, fill the memory) happens here, and the worker lives
on. It may write nowhere, has a bound on memory, and ends with its worker.
Started as `python -m ovoad_model.archive.decoder_process PIPE WORKER_PID`.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Final

os.environ["OPENCV_LOG_LEVEL"] = "SILENT"
os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "-8"
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # each thread of it takes addresses, used or not

import cv2

from ovoad_model.archive.decoder_link import (
    ENDED,
    FRAME,
    HEADER,
    OPENED,
    REFUSED,
    Header,
    Refused,
    Request,
    pack_json,
)
from ovoad_model.video import VideoError, read_grid_frames

MEMORY_BYTES: Final = 6 * 2**30  # of addresses; the largest pictures take a third of it
PR_SET_PDEATHSIG: Final = 1  # prctl(2)
OOM_SCORE: Final = 1000  # proc(5): the first to be ended where memory runs out
DEMUXERS: Final = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,flv,ogg,asf"  # FFmpeg's names
)


def main() -> None:
    """Decode one file after the other until standard input ends."""
    pipe, worker_pid = int(sys.argv[1]), int(sys.argv[2])
    _confine(worker_pid)
    # By a file's content FFmpeg may choose a playlist, which names other files to read.
    options = f"protocol_whitelist;file|format_whitelist;{DEMUXERS}"
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = options  # read whenever a file is opened
    for line in sys.stdin:
        request = Request(**json.loads(line))
        try:
            _send_video(pipe, request)
        except VideoError as error:
            _send(pipe, pack_json(REFUSED, Refused(error.reason)))
        except (MemoryError, cv2.error, OSError) as error:
            if isinstance(error, BrokenPipeError):  # nobody wants the rest
                return
            reason = f"the decoder gave up ({type(error).__name__}), expected a video that decodes"
            _send(pipe, pack_json(REFUSED, Refused(reason)))


def _confine(worker_pid: int) -> None:
    """Bound what this process can do, and let it end with the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # sent to whole groups; the worker ends us
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != worker_pid:
        os._exit(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
    for limit, value in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        resource.setrlimit(limit, (value, value))


def _send_video(pipe: int, request: Request) -> None:
    """Send a file's header and frames; raises VideoError, MemoryError, cv2.error, OSError."""
    first = True
    for timestamp_ms, frame in read_grid_frames(request.path, fps=request.fps):
        if first:
            _send(pipe, pack_json(OPENED, _read_header(request.path, frame.shape[:2])))
            first = False
        height, width, _ = frame.shape
        _send(pipe, HEADER.pack(FRAME, frame.nbytes, timestamp_ms, height, width))
        _send(pipe, frame.reshape(-1).data)
    _send(pipe, HEADER.pack(ENDED, 0, 0, 0, 0))


def _read_header(path: str, size: tuple[int, ...]) -> Header:
    """Read the length that the header tells or FFmpeg estimates; the size is the first frame's."""
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG)
    fps, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
    capture.release()
    known = 0 < fps < 1e6 and 0 < count < 2**53
    height, width = size
    return Header(width, height, round(1000 * count / fps) if known else None)


def _send(pipe: int, data: bytes | memoryview) -> None:
    """Write all of it; waits while the worker takes no more."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(pipe, rest) :]


if __name__ == "__main__":
    main()
