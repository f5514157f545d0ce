"""POST /v1/clips: however a clip ends, nothing of it is left, and others are served on."""

import asyncio
import contextlib
import json
import logging
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import httpx
import pytest
from starlette.types import Message

from ovoad_client import protocol
from ovoad_server.clips import decoder as decoder_module
from ovoad_server.clips import upload as upload_module
from ovoad_server.clips.answers import LinesAnswer, ObjectAnswer, Pieces
from ovoad_server.clips.decoder import Decoder
from ovoad_server.clips.refusals import ClipRefusedError
from ovoad_server.clips.schema import ClipOpened
from ovoad_server.clips.scoring import ClipSession
from ovoad_server.clips.spool import Spool

from .clip_parts import (
    NDJSON,
    WORDS,
    error_of,
    lines,
    parts_of,
    send_clip,
    times,
    write_video,
)
from .harness import WAIT_S, ColourEncoder, Serve, Server, occurs, picture, until

HEAD = "POST /v1/clips HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; boundary=b\r\n"
FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
async def server(serve_undisturbed: Serve, folder: Path) -> AsyncIterator[Server]:
    async with serve_undisturbed(clip_spool=folder) as server:
        yield server
        await nothing_is_left(server, folder, sessions=1)


@pytest.fixture
def red(tmp_path: Path) -> bytes:
    return write_video(tmp_path / "red.mp4", ["red"] * 60).read_bytes()


async def nothing_is_left(server: Server, folder: Path, *, sessions: int = 0) -> None:
    """Wait until clips hold nothing; no process, file or byte of theirs is left."""
    await until(lambda: len(server.hub.sessions) == sessions == server.hub.slots.used)
    await until(lambda: server.metric("ovoad_clips_active") == 0)
    assert server.metric("ovoad_clip_spool_bytes") == 0
    await until(lambda: not children())
    assert list(folder.iterdir() if folder.exists() else []) == []
    assert open_files_in(folder) == []


def children() -> list[int]:
    """Return the decoders' processes that still run."""
    found = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    numbers = [int(each) for path in found for each in path.read_text().split()]
    return [number for number in numbers if b"decoder_process" in command_line(number)]


def command_line(number: int) -> bytes:
    try:
        return Path(f"/proc/{number}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def open_files_in(folder: Path) -> list[str]:
    """Return the files below a folder that this process holds, named or not."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        try:
            found.append(os.readlink(each))
        except FileNotFoundError:
            continue
    return [name for name in found if name.startswith(str(folder))]


# ---- clients that leave ------------------------------------------------------------------------


async def test_upload_cut_off_half_way_leaves_nothing(server: Server, folder: Path) -> None:
    host, _, port = server.address.partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = HEAD + "Content-Length: 9000000\r\n\r\n"
    writer.write(head.encode() + FILE + b"\x00\x00\x00\x20ftypisom" + bytes(3_000_000))
    await writer.drain()
    await until(lambda: server.metric("ovoad_clip_spool_bytes") > 1_000_000)
    assert len(open_files_in(folder)) == 1
    assert list(folder.iterdir()) == []  # it has no name that could be left behind
    writer.transport.abort()


@pytest.mark.parametrize("headers", [{}, NDJSON], ids=["object", "lines"])
async def test_client_that_leaves_ends_its_clip(
    server: Server, encoder: ColourEncoder, red: bytes, headers: dict[str, str]
) -> None:
    encoder.entered.clear()
    encoder.hold.clear()
    async with httpx.AsyncClient(timeout=WAIT_S, trust_env=False) as http:
        sending = asyncio.create_task(
            http.post(f"{server.url}/v1/clips", files=parts_of(red), headers=headers)
        )
        await occurs(encoder.entered)
        sending.cancel()
        await asyncio.wait([sending])
    await until(lambda: len(server.hub.sessions) == 1)
    assert server.hub.engine.waiting == 0
    assert server.metric("ovoad_sessions_ended_total", reason="lost") == 1
    encoder.hold.set()


@pytest.mark.parametrize("form", ["object", "lines"])
async def test_client_that_takes_nothing_is_let_go(tmp_path: Path, form: str) -> None:
    left: list[str] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def receive() -> Message:
        return await asyncio.Future()

    held = contextlib.AsyncExitStack()
    held.callback(left.append, "freed")
    answer: LinesAnswer | ObjectAnswer
    if form == "lines":
        session = cast(ClipSession, None)  # not asked: the first line does not get through
        opened = ClipOpened.model_construct(labels=["red"])
        answer = LinesAnswer(opened, session, held, send_timeout_s=0.05)
    else:
        pieces = await Pieces.open(Spool(tmp_path, max_bytes=1000), held)
        answer = ObjectAnswer(pieces, held, send_timeout_s=0.05)
    async with asyncio.timeout(WAIT_S):
        await answer({"type": "http"}, receive, send)
    assert left == ["freed"]


async def test_upload_that_crawls_is_ended(
    serve: Serve, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_module, "FIRST_S", 0.1)
    async with serve(clip_spool=folder) as server:
        host, _, port = server.address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write((HEAD + "Content-Length: 9000\r\n\r\n").encode() + FILE)
        async with asyncio.timeout(WAIT_S):
            assert await reader.readline() == b"HTTP/1.1 408 Request Timeout\r\n"
        writer.close()
        await nothing_is_left(server, folder)


# ---- the server's side -------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, NDJSON], ids=["object", "lines"])
async def test_server_that_stops_says_so(
    serve: Serve, encoder: ColourEncoder, folder: Path, red: bytes, headers: dict[str, str]
) -> None:
    async with serve(clip_spool=folder) as server:
        encoder.entered.clear()
        encoder.hold.clear()
        sending = asyncio.create_task(send_clip(server, red, headers=headers))
        await occurs(encoder.entered)
        draining = asyncio.create_task(server.hub.drain(serve_on_s=0.0, settle_s=WAIT_S))
        await asyncio.sleep(0)
        refused = await send_clip(server, red)
        assert (refused.status_code, error_of(refused)["code"]) == (503, "restarting")
        encoder.hold.set()
        answer = await sending
        if headers:
            last = lines(answer)[-1]
            assert (last["code"], last["transient"]) == ("restarting", True)
        else:
            assert (answer.status_code, error_of(answer)["code"]) == (503, "restarting")
        await draining
        await nothing_is_left(server, folder)
        assert server.metric("ovoad_sessions_ended_total", reason="restarting") == 1


async def test_decoder_that_dies_ends_its_clip_alone(
    server: Server, encoder: ColourEncoder, red: bytes
) -> None:
    encoder.entered.clear()
    encoder.hold.clear()
    sending = asyncio.create_task(send_clip(server, red, headers=NDJSON))
    await occurs(encoder.entered)
    (number,) = children()
    os.kill(number, signal.SIGKILL)
    encoder.hold.set()
    *_, last = lines(await sending)
    # Frames that had left the decoder are scored; a clip as short as this may be through.
    assert last["type"] in ("error", "clip.closed")
    if last["type"] == "error":
        assert (last["code"], last["fatal"]) == ("not_a_video", True)
        assert "the decoder ended with status -9" in last["message"]


async def test_decoder_that_hangs_is_ended(
    server: Server, red: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_module, "SILENCE_TIMEOUT_S", 0.02)  # sooner than it starts
    monkeypatch.setattr(decoder_module, "_read_record", hang_until_the_end)
    answer = await send_clip(server, red)
    assert answer.status_code == 415
    assert "the decoder made no progress for 0.02 s" in error_of(answer)["message"]


async def test_decoder_that_stays_on_without_its_pipe_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process that closed its pipe and does not end, stood in for by a sleeping one."""
    monkeypatch.setattr(decoder_module, "LEAVE_TIMEOUT_S", 0.1)
    process = await asyncio.create_subprocess_exec("sleep", "1000")
    ours, theirs = os.pipe()
    os.close(theirs)
    with ThreadPoolExecutor(1) as readers:
        decoder = Decoder(process, ours, readers)
        with pytest.raises(ClipRefusedError, match="the decoder ended with status -9"):
            await decoder.read()
        await decoder.end()


def hang_until_the_end(pipe: int) -> object:
    """Read what comes and answer nothing, as if it said nothing."""
    while os.read(pipe, 65_536):
        pass
    raise EOFError


async def test_model_that_fails_over_and_over_ends_the_clip(
    serve: Serve, encoder: ColourEncoder, folder: Path, red: bytes
) -> None:
    async with serve(clip_spool=folder) as server:
        encoder.fail_on = "red"
        answer = await send_clip(server, red)
        assert answer.status_code == 503
        error = error_of(answer)
        assert error["code"] == "internal"
        assert "8 frames in a row failed" in error["message"]
        await nothing_is_left(server, folder)
        assert server.metric("ovoad_sessions_ended_total", reason="internal") == 1


async def test_words_that_cannot_be_embedded_cost_nothing_else(
    serve: Serve, encoder: ColourEncoder, folder: Path, red: bytes
) -> None:
    async with serve(clip_spool=folder) as server:
        encoder.fail_on_text = "hurts"
        answer = await send_clip(server, red, words={"vocabulary": {"labels": ["hurts"]}})
        assert (answer.status_code, error_of(answer)["code"]) == (500, "internal")
        assert len(times(await send_clip(server, red))) == 60
        await nothing_is_left(server, folder)


# ---- capacity ----------------------------------------------------------------------------------


async def test_two_hundred_at_once_get_an_answer_each(
    serve: Serve, folder: Path, red: bytes
) -> None:
    async with serve(clip_spool=folder, max_clips=6, max_sessions=3) as server:
        answers = await asyncio.gather(*(send_clip(server, red) for _ in range(200)))
        counts = Counter(answer.status_code for answer in answers)
        assert set(counts) <= {200, 429, 503}
        assert counts[200] >= 3
        assert counts[429] + counts[503] >= 150
        for answer in answers:
            if answer.status_code == 200:
                assert len(times(answer)) == 60
            else:
                assert error_of(answer)["code"] == "capacity"
                assert int(answer.headers["retry-after"]) >= 1
        await nothing_is_left(server, folder)
        assert len(times(await send_clip(server, red))) == 60


async def test_slots_are_those_of_streams(serve: Serve, folder: Path, red: bytes) -> None:
    async with serve(clip_spool=folder, max_sessions=1) as server:
        async with server.session() as client:
            answer = await send_clip(server, red)
            assert answer.status_code == 503
            error = error_of(answer)
            assert error["code"] == "capacity"
            assert error["message"].startswith("found 1 sessions open, expected fewer than 1")
            await client.close()
        await server.is_empty()
        assert len(times(await send_clip(server, red))) == 60
        assert server.metric("ovoad_sessions_rejected_total", reason="capacity") == 1


async def test_clip_delays_a_live_camera_by_no_more_than_a_batch(
    server: Server, encoder: ColourEncoder, red: bytes
) -> None:
    async with server.session(policy="realtime") as camera:
        encoder.entered.clear()
        encoder.hold.clear()
        sending = asyncio.create_task(send_clip(server, red))
        await occurs(encoder.entered)
        await until(lambda: server.hub.engine.waiting >= 8)
        running = len(encoder.batches)
        await camera.frame(0, picture("blue"))
        await until(lambda: server.metric("ovoad_frames_waiting") >= 9)
        encoder.hold.set()
        await camera.expect(protocol.Prediction)
        await sending
        row = next(row for row, batch in enumerate(encoder.batches) if "blue" in batch)
        assert row <= running + 2  # those under way may be two; then its own
        await camera.close()


async def test_spool_is_bounded(serve: Serve, folder: Path, red: bytes) -> None:
    async with serve(clip_spool=folder, clip_spool_bytes=len(red)) as server:
        answer = await send_clip(server, red)  # fits, but not with its answer
        assert answer.status_code == 503
        assert "of clips" not in error_of(answer)["message"]
        assert "bytes for clips in use" in error_of(answer)["message"]
        await nothing_is_left(server, folder)
        assert len(lines(await send_clip(server, red, headers=NDJSON))) >= 62  # needs no room


async def test_folder_that_cannot_be_used_is_told(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    async with serve(clip_spool=tmp_path / "file") as server:
        answer = await send_clip(server, b"")
        assert answer.status_code == 503
        assert "found no room on disk for clips (file exists)" in error_of(answer)["message"]
        assert server.metric("ovoad_clips_active") == 0


def test_full_disk_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, max_bytes=1000)
    file = spool.open()

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(Exception, match="no space left on device") as caught:
        file.write(b"abc")
    assert getattr(caught.value, "status", None) == 503
    file.close()
    file.close()
    assert (spool.used_bytes, spool.files) == (0, 0)


async def test_decoder_that_cannot_start_costs_nothing(
    serve: Serve,
    folder: Path,
    red: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(*arguments: object) -> Decoder:
        raise OSError("no processes left")

    monkeypatch.setattr(Decoder, "start", fail)
    async with serve(clip_spool=folder) as server:
        answer = await send_clip(server, red)
        assert (answer.status_code, error_of(answer)["code"]) == (500, "internal")
        await nothing_is_left(server, folder)
    caplog.set_level(logging.ERROR)
    assert json.dumps(WORDS) not in caplog.text
