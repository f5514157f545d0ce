"""Tests of what must neither hang, nor overwrite a source, nor end in a traceback."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import os
import socket
import subprocess
import sys
import threading
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import pytest

from ovoad_client import clip, clip_sending, screen, watch
from ovoad_client.annotated_video import AnnotatedVideo, VideoError
from ovoad_client.answering import _UnderWay
from ovoad_client.background import BackgroundLoop
from ovoad_client.captures import open_file
from ovoad_client.clip_sources import _quoted, check_source, open_clip
from ovoad_client.conformance.check import Check, run_check
from ovoad_client.conformance.command import main as conformance_main
from ovoad_client.conformance.target import Target
from ovoad_client.errors import BrokenError, SourceError, UsageError
from ovoad_client.frame_reading import ThreadedIterator
from ovoad_client.images import decode_image
from ovoad_client.interrupts import Interrupts
from ovoad_client.lines import NamedLines
from ovoad_client.outputs import Outputs
from ovoad_client.pictures import picture_paths
from ovoad_client.protocol import Prediction, SessionCreated
from ovoad_client.reading import SourceReader
from ovoad_client.recording import Recording, RecordingError
from ovoad_client.several import watch_several
from ovoad_client.watching import WatchOptions

if TYPE_CHECKING:
    from tests.clients.conftest import FakeServer, MakeVideo

CONTENT = b"a video"


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Return a source that must stay as it is."""
    path = tmp_path / "street.mp4"
    path.write_bytes(CONTENT)
    return path


# ---- outputs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["--save", "--plot"])
@pytest.mark.parametrize("linked", [False, True])
def test_watch_writes_over_no_source(
    video: Path, flag: str, linked: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    output = video.with_name("out.mp4" if flag == "--save" else "out.png")
    source = video if flag == "--save" and not linked else output
    if linked:
        output.symlink_to(video)
        source = video
    elif flag == "--plot":
        video.rename(output)
    target = output if linked or flag == "--plot" else video
    assert watch.main([str(source), "--labels", "a", flag, str(target)]) == 2
    assert "that is the source" in capsys.readouterr().err
    assert target.read_bytes() == CONTENT


def test_watch_writes_over_no_source_by_a_numbered_name(
    video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = video.with_name("street.2.mp4")
    second.write_bytes(CONTENT)
    assert watch.main([str(second), str(second), "--labels", "a", "--save", str(video)]) == 2
    assert "street.2.mp4' that is the source" in capsys.readouterr().err
    assert second.read_bytes() == CONTENT


def test_clip_writes_over_no_source(video: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert clip.main([str(video), "--labels", "a", "--output", str(video)]) == 2
    assert "that is the source" in capsys.readouterr().err
    assert video.read_bytes() == CONTENT


def test_a_failed_output_is_closed(
    created: SessionCreated, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []

    def refuse(recording: Recording, text: str) -> None:
        raise RecordingError("the disk is full")

    monkeypatch.setattr(Recording, "write", refuse)
    close = Recording.close

    def close_told(recording: Recording) -> None:
        closed.append(recording.path.name)
        close(recording)

    monkeypatch.setattr(Recording, "close", close_told)
    outputs = Outputs([tmp_path / "out.jsonl"], created)
    assert [str(error) for error in outputs.failures] == ["the disk is full"]
    assert closed == ["out.jsonl"]


def test_a_failed_video_gives_its_file_back(
    created: SessionCreated,
    predict: Callable[..., Prediction],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    made = AnnotatedVideo(tmp_path / "out.mp4", created)
    closed: list[bool] = []
    monkeypatch.setattr(made._drawing, "draw", fail)
    monkeypatch.setattr(made._drawing, "abandon", lambda: closed.append(True))
    made.push_frame(0, 0, b"")
    made.take(predict(0, 0, [0.5] * len(created.labels)))
    with pytest.raises(VideoError, match="no space left"):
        made.close()
    assert closed == [True]
    made._drawing._container.close()


async def test_an_interrupt_lets_a_source_at_its_end_draw_its_plot(
    server: FakeServer, make_video: MakeVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupts, drawing = Interrupts(), threading.Event()
    loop, drawn = asyncio.get_running_loop(), []

    def draw(timeline: object, path: Path) -> None:
        loop.call_soon_threadsafe(interrupts.interrupt)
        loop.call_soon_threadsafe(drawing.set)
        assert drawing.wait(5)
        drawn.append(path.name)

    monkeypatch.setattr("ovoad_client.watching.draw_timeline", draw)
    options = WatchOptions(
        url=server.url, labels=["waving"], pace="fast", plot=tmp_path / "out.png"
    )
    view = NamedLines("a", out=io.StringIO())
    watched = await watch_several([open_file(make_video(frames=2))], options, [view], interrupts)
    assert drawn == ["out.1.png"]
    assert watched[0].summary is not None


# ---- clips -------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["http://[x", "http://a:b/c", "http:///c.mp4"])
def test_a_malformed_address_is_wrong_usage(address: str) -> None:
    with pytest.raises(UsageError, match="found address"):
        check_source(address)


def test_blanks_and_letters_of_an_address_are_quoted() -> None:
    assert (
        _quoted("http://h:1/my clip%20é.mp4?a=b c") == "http://h:1/my%20clip%20%C3%A9.mp4?a=b%20c"
    )


def test_an_answer_that_is_no_http_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*_: object, **__: object) -> None:
        raise http.client.BadStatusLine("nonsense")

    monkeypatch.setattr("urllib.request.OpenerDirector.open", answer)
    with (
        pytest.raises(SourceError, match=r"cannot read 'a\.mp4': nonsense"),
        open_clip("http://h/a.mp4"),
    ):
        pass


def test_the_size_of_a_pipe_is_unknown(tmp_path: Path) -> None:
    pipe = tmp_path / "clip.mp4"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(CONTENT,))
    writer.start()
    with open_clip(str(pipe)) as opened:
        assert opened.size is None
        assert opened.file.read() == CONTENT
    writer.join()


def test_connecting_takes_seconds_at_most_and_the_answer_may_take_longer() -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        connection = clip_sending._connect(f"http://127.0.0.1:{port}/v1/clips")
        assert connection.timeout == clip_sending.CONNECT_TIMEOUT_S
        assert connection.sock.gettimeout() == clip_sending.SILENCE_TIMEOUT_S
        connection.close()


# ---- sources -----------------------------------------------------------------------------------


def test_a_picture_that_opencv_refuses_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise cv2.error("pixels > CV_IO_MAX_IMAGE_PIXELS")

    monkeypatch.setattr(cv2, "imdecode", refuse)
    assert decode_image(b"a head") is None


def test_a_folder_named_as_a_picture_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").mkdir()
    (tmp_path / "b.jpg").touch()
    assert picture_paths(tmp_path) == [tmp_path / "b.jpg"]


def test_a_display_that_goes_is_told() -> None:
    mss = pytest.importorskip("mss")

    class Gone:
        def grab(self, region: object) -> None:
            raise mss.ScreenShotError("XGetImage() failed")

    with pytest.raises(SourceError, match=r"pictures of the screen: xgetimage\(\) failed"):
        screen._grabbed(mss, Gone(), {})


async def test_what_a_library_raises_ends_a_source_in_one_line(make_video: MakeVideo) -> None:
    source = open_file(make_video(frames=3))

    def fail() -> None:
        raise RuntimeError("two\nlines")

    source.retrieve = fail  # type: ignore[method-assign]
    async with SourceReader(source, pace="fast") as reader:
        with pytest.raises(SourceError, match=r"cannot read .*: RuntimeError: two lines"):
            await anext(reader)


@pytest.mark.parametrize("text", ["inf", "nan", "0", "1001"])
def test_a_rate_is_at_most_a_frame_a_millisecond(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="expected"):
        watch._rate(text)
    assert watch._rate("1000") == 1000


# ---- threads and loops -------------------------------------------------------------------------


def test_frames_under_way_take_no_more_room_than_they_are() -> None:
    under_way = _UnderWay()
    under_way.settle((7,))  # of somebody else
    for seq in range(8, 1000):
        if seq % 2:
            under_way.settle((seq,))  # before send() returned
        under_way.add(seq)
        under_way.settle(() if seq % 2 else (seq,))
    assert under_way == _UnderWay()


async def test_a_blocking_iterator_is_read_in_one_daemon_thread() -> None:
    never, threads = threading.Event(), []

    def frames() -> Iterator[int]:
        for number in range(2):
            threads.append(threading.current_thread())
            yield number
        never.wait()

    iterator = ThreadedIterator(frames())
    assert [await iterator.next(), await iterator.next()] == [0, 1]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(iterator.next(), 0.05)
    assert len(set(threads)) == 1
    assert threads[0].daemon
    iterator.stop()
    never.set()
    threads[0].join(5)
    assert not threads[0].is_alive()


def test_a_loop_that_cannot_be_made_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(asyncio.events, "new_event_loop", fail)
    monkeypatch.setattr(asyncio, "new_event_loop", fail)
    with pytest.raises(BrokenError, match="cannot start an event loop"), BackgroundLoop():
        pass


# ---- conformance -------------------------------------------------------------------------------


async def test_a_check_that_stumbles_has_failed() -> None:
    async def stumble(target: Target) -> None:
        raise KeyError("labels")

    target = Target(address="ws://h/v1/stream", api_key=None, timeout_s=1, slow=False)
    outcome = await run_check(Check("a", "b", stumble), target)
    assert (outcome.status, outcome.found) == ("fail", "KeyError: 'labels'")


def test_a_report_that_cannot_be_written_is_told_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert conformance_main(["127.0.0.1:1", "--json", str(tmp_path / "none" / "a.json")]) == 2
    assert "cannot write" in capsys.readouterr().err


def test_a_reader_that_has_left_ends_the_checks_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "ovoad_client.conformance", "--list"]
    ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, timeout=20, check=False)
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, b"")
