"""Parts of the tests of clips: videos made on the spot, and requests over real sockets."""

import json
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import httpx
import numpy as np

from .harness import COLOURS, WAIT_S, Server

NDJSON = {"Accept": "application/x-ndjson"}
WORDS: dict[str, Any] = {"vocabulary": {"labels": ["red", "blue"]}}
Part = tuple[str | None, bytes]
MILLISECOND = Fraction(1, 1000)


def write_video(
    path: Path,
    colours: Iterable[str],
    *,
    step_ms: int = 250,
    times_ms: Sequence[int] | None = None,
    size: tuple[int, int] = (32, 24),
    codec: str = "mpeg4",
) -> Path:
    """Write a video with one frame of each colour, at even steps or at the times given."""
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(1000, step_ms))
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = MILLISECOND
        for index, colour in enumerate(colours):
            pixels = np.full((height, width, 3), COLOURS[colour], np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = times_ms[index] if times_ms is not None else index * step_ms
            frame.time_base = MILLISECOND
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_avi(path: Path, colours: Iterable[str], *, fps: float = 4.0) -> Path:
    """Write an AVI with one JPEG a frame, whose header counts the frames."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (32, 24))
    assert writer.isOpened()
    for colour in colours:
        writer.write(np.full((24, 32, 3), COLOURS[colour][::-1], np.uint8))
    writer.release()
    return path


def write_sound(path: Path) -> Path:
    """Write a file with sound alone."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        assert isinstance(stream, av.AudioStream)
        samples = np.zeros((1, 1024), np.float32)
        for index in range(20):
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 8000, index * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turn_by_90_degrees(path: Path) -> Path:
    """Set the rotation flag of an MP4 with one track (ISO/IEC 14496-12, 8.3.2: the matrix)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    one = 0x00010000
    matrix = [0, one, 0, -one, 0, 0, 0, 0, 0x40000000]
    data[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(data)
    return path


def parts_of(content: bytes, *, words: object = WORDS) -> list[tuple[str, Part]]:
    """Return a form's parts as httpx takes them."""
    return [("request", (None, json.dumps(words).encode())), ("file", ("clip.mp4", content))]


async def send_clip(
    server: Server,
    content: bytes,
    *,
    words: object = WORDS,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    """Send a file and a request; return the whole answer."""
    async with httpx.AsyncClient(timeout=WAIT_S, trust_env=False) as http:
        return await http.post(
            f"{server.url}/v1/clips",
            files=parts_of(content, words=words),
            headers=headers,
        )


def lines(answer: httpx.Response) -> list[dict[str, Any]]:
    """Return an answer's lines, parsed."""
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def times(answer: httpx.Response) -> list[int]:
    """Return the predictions' times."""
    assert answer.status_code == 200, answer.text
    return [each["timestamp_ms"] for each in answer.json()["predictions"]]


def likeliest(prediction: dict[str, Any]) -> str:
    """Return the likeliest of the labels of WORDS."""
    labels = WORDS["vocabulary"]["labels"]
    return str(max(zip(prediction["probabilities"], labels, strict=True))[1])


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """Return an answer's error, in the one shape that errors have."""
    body = answer.json()
    assert set(body) == {"error"}
    error: dict[str, Any] = body["error"]
    assert set(error) <= {"code", "message", "retry_after_ms"}
    if "retry_after_ms" in error:
        seconds = -(-error["retry_after_ms"] // 1000)
        assert answer.headers["retry-after"] == str(seconds)
    return error
