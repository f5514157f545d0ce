"""Parts of clips by themselves: raw pixels, containers, the form, the decoder's process."""

import asyncio
import contextlib
import json
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from ovoad_server.clips.containers import container_of
from ovoad_server.clips.decoder import Decoded, Decoder, Position, Record
from ovoad_server.clips.decoder_link import Ended, Opened, Task
from ovoad_server.clips.refusals import ClipRefusedError
from ovoad_server.clips.sampling import shrink
from ovoad_server.clips.spool import Spool, open_file
from ovoad_server.clips.upload import Form
from ovoad_server.engine.images import ImageError, decode_image
from ovoad_server.engine.raw_image import RawImage

from .clip_parts import WORDS, write_video
from .harness import WAIT_S, occurs

LIMITS = Task(
    descriptor=-1,
    container="AVI",
    fps=4.0,
    threads=1,
    max_pixels=10**6,
    least_side=0,
    max_frames=10**6,
    max_duration_s=100.0,
)


def test_raw_image_gives_its_pixels_back_and_only_as_such() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    image = RawImage(RawImage.head(5, 7) + pixels.tobytes())
    sent = pickle.loads(pickle.dumps(image, protocol=5))
    found = decode_image(sent, max_pixels=1)
    assert np.array_equal(found, pixels)
    assert found.flags.writeable
    with pytest.raises(ImageError, match="expected JPEG, PNG or WebP"):
        decode_image(bytes(image), max_pixels=100)  # as a client could send them


def test_server_process_loads_no_decoder() -> None:
    code = (
        "import sys, ovoad_server.clips.routes\n"
        "sys.exit(' '.join(m for m in ('cv2', 'av') if m in sys.modules) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "head",
    [
        b"#EXTM3U\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'>",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\n",
        b"\xff\xd8\xff\xe0\x00\x10JFIF",
        b"GIF89a",
        b"RIFF\x00\x00\x00\x00WAVE",
        b"RIFF\x00\x00\x00\x00WEBP",
        b"YUV4MPEG2 W1 H1",
        b"PK\x03\x04",
        b"",
    ],
)
def test_what_is_no_container_of_video_is_not_taken_for_one(head: bytes) -> None:
    assert container_of(head.ljust(400, b"\x00") if head else head) is None


@pytest.mark.parametrize("piece", [1, 7, 1000])
async def test_form_may_come_in_pieces_of_any_size(tmp_path: Path, piece: int) -> None:
    content = write_video(tmp_path / "a.mp4", ["red"] * 2).read_bytes()
    head = '--b\r\nContent-Disposition: form-data; name="{}"; filename="ä.mp4"\r\n\r\n'
    words = json.dumps(WORDS).encode()
    body = head.format("request").encode() + words + b"\r\n"
    body += head.format("file").encode() + content + b"\r\n--b--\r\n"
    spool = Spool(tmp_path / "spool", max_bytes=10**6)
    file = spool.open()
    form = Form("multipart/form-data; boundary=b", file, max_bytes=10**6)
    for at in range(0, len(body), piece):
        await form.take(body[at : at + piece])
    upload = await form.end()
    assert (upload.name, upload.container) == ("ä.mp4", "MP4 or QuickTime")
    assert upload.request.vocabulary.labels == ["red", "blue"]
    assert file.read(0, len(content) + 1) == content
    file.close()
    assert (spool.used_bytes, spool.files) == (0, 0)


async def read_all(path: Path, **limits: Any) -> list[Record]:
    """Decode a file with the limits given."""
    with path.open("rb") as file, ThreadPoolExecutor(1) as readers:
        task = replace(LIMITS, descriptor=file.fileno(), **limits)
        decoder = await Decoder.start(task, readers)
        records: list[Record] = []
        try:
            async with asyncio.timeout(WAIT_S):
                while not records or not isinstance(records[-1], Ended):
                    records.append(await decoder.read())
        finally:
            await decoder.end()
    return records


OPEN = """
import sys
from ovoad_server.clips import decoder_process as process
if sys.argv[2] == "bounded":
    process.restrict_ffmpeg()
print(process.cv2.VideoCapture(sys.argv[1], process.cv2.CAP_FFMPEG).isOpened())
"""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.ffconcat", "ffconcat version 1.0\nfile a.ts\n"),
        ("a.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na.ts\n#EXT-X-ENDLIST\n"),
    ],
)
@pytest.mark.parametrize(("mode", "opens"), [("free", "True"), ("bounded", "False")])
def test_ffmpeg_opens_no_file_that_another_names(
    tmp_path: Path, name: str, content: str, mode: str, opens: str
) -> None:
    """Without our bounds the same lists do open: what is tested is not the name alone."""
    write_video(tmp_path / "a.ts", ["red"] * 8, codec="libx264")
    (tmp_path / name).write_text(content)
    command = [sys.executable, "-c", OPEN, str(tmp_path / name), mode]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == opens


async def test_estimated_length_refuses_nothing_and_a_known_one_does(tmp_path: Path) -> None:
    """Frames at 0 and 40 ms, then one at 20 s: FFmpeg estimates 500 frames."""
    times_ms = [0, 40, 80, 20_000]
    path = write_video(tmp_path / "a.mkv", ["red"] * 4, times_ms=times_ms, step_ms=40)
    opened, *_, ended = await read_all(path, container="Matroska or WebM", max_frames=4)
    assert isinstance(opened, Opened)
    assert opened.frame_count is not None
    assert opened.frame_count > 100
    assert ended == Ended(frames=4, expected=opened.frame_count, last_ms=20_000)
    counted = write_video(tmp_path / "a.avi", ["red"] * 16)
    with pytest.raises(ClipRefusedError, match="found 4 s of video or more"):
        await read_all(counted, max_duration_s=3.0)


async def test_decoder_learns_no_setting_and_is_the_first_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVOAD_API_KEY", "correct-horse")
    path = write_video(tmp_path / "a.mp4", ["red"] * 200, size=(640, 480))
    with path.open("rb") as file, ThreadPoolExecutor(1) as readers:
        decoder = await Decoder.start(replace(LIMITS, descriptor=file.fileno()), readers)
        assert isinstance(await decoder.read(), Opened)  # the pipe holds but one frame more
        process = Path(f"/proc/{decoder.process_id}")
        assert b"OVOAD_" not in (process / "environ").read_bytes()
        assert (process / "oom_score_adj").read_text() == "1000\n"
        await decoder.end()


async def test_closing_waits_for_the_write_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that is cancelled leaves its write to the thread; nothing is counted for ever."""
    spool = Spool(tmp_path, max_bytes=1000)
    write, entered, go_on = os.write, threading.Event(), threading.Event()

    def held(descriptor: int, data: bytes) -> int:
        if len(data) == 300:
            entered.set()
            assert go_on.wait(WAIT_S)
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", held)
    async with contextlib.AsyncExitStack() as files:
        file = await open_file(spool, files)
        writing = asyncio.create_task(asyncio.to_thread(file.write, bytes(300)))
        await occurs(entered)
        writing.cancel()
        await asyncio.wait([writing])
        asyncio.get_running_loop().call_later(0.05, go_on.set)
    assert go_on.is_set()
    assert (spool.used_bytes, spool.files) == (0, 0)
    for work in (lambda: file.write(b"late"), lambda: file.read(0, 1)):
        with pytest.raises(ValueError, match="found a closed file"):
            work()
    assert spool.used_bytes == 0


async def test_decoder_opens_gives_frames_and_ends(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", ["red", "blue"])
    opened, *frames, ended = await read_all(path)
    assert opened == Opened(width=32, height=24, fps=4.0, duration_ms=500, frame_count=2)
    assert ended == Ended(frames=2, expected=2, last_ms=250)
    for frame, timestamp_ms, channel in zip(frames, (0, 250), (0, 2), strict=True):
        assert isinstance(frame, Decoded)
        assert frame.timestamp_ms == timestamp_ms
        assert frame.image.pixels().mean(axis=(0, 1)).argmax() == channel


async def test_decoder_frees_its_descriptors(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", ["red"] * 4)
    await read_all(path)
    before = len(os.listdir("/proc/self/fd"))
    await read_all(path)
    with pytest.raises(ClipRefusedError, match="found 4 frames or more, expected at most 3"):
        await read_all(path, max_frames=3)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_pictures_that_grow_on_the_way_keep_the_first_size(tmp_path: Path) -> None:
    """Write an AVI of JPEGs, the second half of which are larger pictures."""
    small = cv2.imencode(".jpg", np.zeros((24, 32, 3), np.uint8))[1].tobytes()
    large = cv2.imencode(".jpg", np.zeros((1200, 1600, 3), np.uint8))[1].tobytes()
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuvj420p"
        for number, picture in enumerate([small] * 40 + [large] * 40):
            packet = av.Packet(picture)
            packet.stream, packet.time_base = stream, Fraction(1, 25)
            packet.pts = packet.dts = number
            packet.is_keyframe = True
            container.mux(packet)
    opened, *frames, _ = await read_all(path)
    assert isinstance(opened, Opened)
    assert (opened.width, opened.height) == (32, 24)
    assert len(frames) == 14
    for frame in frames:
        assert isinstance(frame, Decoded)
        assert frame.image.pixels().shape == (24, 32, 3)


async def test_decoder_that_works_long_shows_that_it_gets_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "a.mp4", ["red"] * 400, step_ms=40, size=(1280, 720))
    records = await read_all(path, fps=0.1)
    assert len([each for each in records if isinstance(each, Decoded)]) == 3
    positions = [each.timestamp_ms for each in records if isinstance(each, Position)]
    assert positions == sorted(positions)


@pytest.mark.parametrize(
    ("size", "least_side", "expected"),
    [
        ((480, 640), 260, (480, 640)),
        ((520, 640), 260, (260, 320)),
        ((1080, 1920), 260, (270, 480)),
        ((1079, 1919), 260, (270, 480)),
        ((2160, 3840), 260, (270, 480)),
        ((2160, 3840), 0, (2160, 3840)),
        ((3840, 2160), 224, (480, 270)),
    ],
)
def test_large_pictures_shrink_to_what_the_encoder_needs(
    size: tuple[int, int], least_side: int, expected: tuple[int, int]
) -> None:
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[:, size[1] // 2 :] = (200, 100, 50)
    shrunk = shrink(pixels, least_side=least_side)
    assert shrunk.shape == (*expected, 3)
    assert np.allclose(shrunk.mean(axis=(0, 1)), pixels.mean(axis=(0, 1)), atol=0.5)
    assert shrunk.flags.c_contiguous
