"""Tests of folders, standard input, the screen, and network sources that come back."""

from __future__ import annotations

import http.server
import os
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from ovoad_client.captures import open_file, open_network
from ovoad_client.errors import MissingExtraError, SourceError, UsageError
from ovoad_client.pictures import PictureStream, picture_paths
from ovoad_client.reading import SourceReader
from ovoad_client.reconnecting import Reconnect
from ovoad_client.screen import find_region
from ovoad_client.sources import open_source, read_frames

if TYPE_CHECKING:
    from tests.clients.conftest import MakeVideo

SOON = Reconnect(first_s=0.01, longest_s=0.02, give_up_s=20.0)


def write_pictures(folder: Path, *names: str) -> None:
    """Write small pictures, each one brighter."""
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        assert cv2.imwrite(str(folder / name), np.full((12, 16, 3), 40 * number, np.uint8))


def jpeg(shade: int) -> bytes:
    """Return a small JPEG."""
    return cv2.imencode(".jpg", np.full((48, 64, 3), shade, np.uint8))[1].tobytes()


# ---- folders -----------------------------------------------------------------------------------


def test_pictures_are_taken_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    write_pictures(tmp_path, "p10.png", "p2.JPG", "p1.webp")
    (tmp_path / "notes.txt").write_text("no picture")
    assert [path.name for path in picture_paths(tmp_path)] == ["p1.webp", "p2.JPG", "p10.png"]
    source = open_source(str(tmp_path), fps=4)
    assert (source.width, source.height, source.frame_count) == (16, 12, 3)
    assert source.duration_ms == 750
    shades = []
    times = []
    for time_ms in source.grab():
        image = source.retrieve()
        assert image is not None
        times.append(time_ms)
        shades.append(round(float(image.mean()), -1))
    assert times == [0, 250, 500]
    assert shades == [80, 40, 0]


async def test_a_picture_that_does_not_decode_is_passed_over(tmp_path: Path) -> None:
    write_pictures(tmp_path, "1.png", "2.png", "3.png")
    (tmp_path / "2.png").write_bytes(b"no picture")
    async with SourceReader(open_source(str(tmp_path)), pace="fast") as reader:
        assert [frame.timestamp_ms async for frame in reader] == [0, 80]


def test_frames_of_a_folder_can_be_read_without_a_reader(tmp_path: Path) -> None:
    write_pictures(tmp_path, "1.png", "2.png")
    frames = list(read_frames(str(tmp_path), fps=10, max_side=8))
    assert [frame.timestamp_ms for frame in frames] == [0, 100]
    assert all(frame.jpeg.startswith(b"\xff\xd8") for frame in frames)


def test_fps_of_a_video_is_its_own(make_video: MakeVideo) -> None:
    with pytest.raises(UsageError, match="expected a folder, - or screen"):
        open_source(str(make_video()), fps=5)


# ---- standard input ----------------------------------------------------------------------------


async def test_pictures_come_from_a_pipe_and_its_end_is_no_failure() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as pipe:
        for number in range(5):
            pipe.write(jpeg(50 * number))
    source = PictureStream(reading, name="standard input", fps=20.0)
    assert (source.width, source.height, source.live) == (64, 48, False)
    async with SourceReader(source, pace="fast") as reader:
        assert [frame.timestamp_ms async for frame in reader] == [0, 50, 100, 150, 200]
    os.close(reading)


async def test_pictures_bear_the_time_at_which_they_come() -> None:
    reading, writing = os.pipe()
    os.write(writing, jpeg(0))
    source = PictureStream(reading, name="standard input", fps=None)
    assert source.live
    async with SourceReader(source) as reader:
        first = await anext(reader)
        start_s = time.monotonic()
        while time.monotonic() - start_s < 0.05:
            pass
        os.write(writing, jpeg(9))
        second = await anext(reader)
        os.close(writing)
        assert [frame async for frame in reader] == []
    assert first.timestamp_ms < 30
    assert second.timestamp_ms >= 50
    os.close(reading)


async def test_waiting_for_a_pipe_ends_when_it_is_stopped() -> None:
    reading, writing = os.pipe()
    os.write(writing, jpeg(0))
    source = PictureStream(reading, name="standard input", fps=None)
    start_s = time.monotonic()
    async with SourceReader(source) as reader:
        await anext(reader)
    assert time.monotonic() - start_s < 1.5
    os.close(reading)
    os.close(writing)


def test_a_pipe_without_pictures_is_told() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"no picture at all")
    os.close(writing)
    with pytest.raises(SourceError, match="found no JPEG picture, expected MJPEG"):
        PictureStream(reading, name="standard input", fps=None)
    os.close(reading)


def test_a_terminal_is_no_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    with pytest.raises(UsageError, match="found a terminal as standard input"):
        open_source("-")


# ---- the screen --------------------------------------------------------------------------------

MONITORS = [
    {"left": -10, "top": 0, "width": 300, "height": 100},
    {"left": -10, "top": 0, "width": 100, "height": 100},
]


def test_a_part_of_the_screen_is_named() -> None:
    assert find_region(None, MONITORS) == MONITORS[0]
    assert find_region("1", MONITORS) == MONITORS[1]
    part = find_region("20,10,50x40", MONITORS)
    assert part == {"left": 10, "top": 10, "width": 50, "height": 40}


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ("2", "expected a monitor from 1 to 1"),
        ("a", "expected screen:1 or screen:X,Y,WIDTHxHEIGHT"),
        ("290,0,20x10", "expected a part of the 300x100 pixels"),
        ("0,0,0x10", "expected a part of the 300x100 pixels"),
    ],
)
def test_a_part_that_is_not_there_is_told(part: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        find_region(part, MONITORS)


def test_without_mss_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mss", None)
    with pytest.raises(MissingExtraError, match=r"needs the screen extra .* 'ovoad\[screen\]'"):
        open_source("screen")


def test_no_screen_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mss")
    monkeypatch.setenv("DISPLAY", ":97")
    with pytest.raises(SourceError, match="cannot take pictures of the screen"):
        open_source("screen")


@pytest.mark.skipif("DISPLAY" not in os.environ, reason="there is no screen here")
async def test_the_screen_is_taken() -> None:
    pytest.importorskip("mss")
    source = open_source("screen:0,0,64x48", fps=20)
    async with SourceReader(source) as reader:
        times = [(await anext(reader)).timestamp_ms for _ in range(3)]
    assert times[2] - times[0] >= 90
    assert source.live


# ---- network -----------------------------------------------------------------------------------


class MjpegCamera(http.server.BaseHTTPRequestHandler):
    """Gives pictures to each caller, then hangs up; the second caller is refused."""

    calls = 0

    def do_GET(self) -> None:
        MjpegCamera.calls += 1
        if MjpegCamera.calls == 2:
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for number in range(12):
            data = jpeg(20 * number)
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
            self.wfile.write(head.encode() + data + b"\r\n")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def camera() -> Iterator[str]:
    """Return the address of a network camera that hangs up again and again."""
    MjpegCamera.calls = 0
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), MjpegCamera) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/video"
        server.shutdown()
        thread.join()


async def test_a_network_source_that_stops_is_opened_again(camera: str) -> None:
    said: list[str] = []
    source = open_network(camera, reconnect=SOON)
    assert source.live
    async with SourceReader(source, say=said.append) as reader:
        times = [(await anext(reader)).timestamp_ms]
        while MjpegCamera.calls < 4:
            times.append((await anext(reader)).timestamp_ms)
    assert times == sorted(set(times))
    assert "no frames come, opening it again in 0.0 s (attempt 1)" in said[0]
    assert "(attempt 2)" in said[1]
    assert "frames come again after" in said[2]


async def test_a_network_source_that_stays_away_is_given_up(camera: str) -> None:
    said: list[str] = []
    source = open_network(camera, reconnect=Reconnect(first_s=0.1, give_up_s=0.0))
    async with SourceReader(source, say=said.append) as reader:
        with pytest.raises(SourceError, match="stopped giving frames after"):
            async for _ in reader:
                pass
    assert said == [f"{camera}: gave up after 0 attempts to open it again"]


async def test_stopping_does_not_wait_for_the_next_attempt(camera: str) -> None:
    source = open_network(camera, reconnect=Reconnect(first_s=30.0, longest_s=30.0, give_up_s=99))
    told = threading.Event()
    start_s = time.monotonic()
    async with SourceReader(source, say=lambda text: told.set()) as reader:
        async for _ in reader:
            if told.is_set():
                break
            if MjpegCamera.calls and reader.position_ms >= 0 and source._stopped.is_set():
                break
            reader._loop.call_later(1.0, reader.stop)
    assert time.monotonic() - start_s < 10


def test_a_file_is_not_opened_again(make_video: MakeVideo) -> None:
    assert len(list(open_file(make_video(frames=4)).grab())) == 4
