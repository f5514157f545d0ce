"""Tests of watching several sources at once: sessions, files, counts and failures of their own."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from ovoad_client.board import Board
from ovoad_client.captures import open_file
from ovoad_client.errors import UnreachableError, UsageError
from ovoad_client.interrupts import Interrupts
from ovoad_client.lines import NamedLines
from ovoad_client.protocol import SessionCreated
from ovoad_client.recording import read_recording
from ovoad_client.several import Watched, numbered, total_line, watch_several
from ovoad_client.several_table import SharedScreen
from ovoad_client.watch import build_parser, open_sources, options_from, unique_names
from ovoad_client.watching import WatchOptions

if TYPE_CHECKING:
    from tests.clients.conftest import FakeServer, MakeVideo


def views(out: io.StringIO, count: int) -> list[NamedLines]:
    """Return a view for each source."""
    return [NamedLines(f"source {number}", out=out) for number in range(count)]


async def test_each_source_has_its_own_session_files_and_counts(
    server: FakeServer, make_video: MakeVideo, tmp_path: Path
) -> None:
    sources = [open_file(make_video(frames=count, name=f"{count}.mp4")) for count in (3, 5, 7)]
    save = [tmp_path / name for name in ("out.jsonl", "out.events.csv", "out.mp4")]
    options = WatchOptions(url=server.url, labels=["waving"], pace="fast", save=save)
    out = io.StringIO()
    watched = await watch_several(sources, options, views(out, 3), Interrupts())
    assert [one.summary.predicted for one in watched if one.summary is not None] == [3, 5, 7]
    assert len(server.sockets) == 3
    for number, count in enumerate((3, 5, 7), start=1):
        kinds = [message.type for message in read_recording(tmp_path / f"out.{number}.jsonl")]
        assert kinds.count("prediction") == count
        assert (tmp_path / f"out.{number}.events.csv").exists()
        assert (tmp_path / f"out.{number}.mp4").stat().st_size > 1000
    assert total_line(watched) == (
        "3 sources: 15 frames sent, 15 predictions, dropped: none, errors: 0"
    )
    assert "[source 0] 3.mp4: 64x48" in out.getvalue()


async def test_one_that_fails_ends_none_of_the_others(
    server: FakeServer, make_video: MakeVideo, tmp_path: Path
) -> None:
    (tmp_path / "cut.mp4").write_bytes(make_video(frames=30).read_bytes())
    sources = [open_file(tmp_path / "cut.mp4"), open_file(make_video(frames=5, name="b.mp4"))]
    sources[0]._capture.release()  # gives no frame
    options = WatchOptions(url=server.url, labels=["waving"], pace="fast")
    watched = await watch_several(sources, options, views(io.StringIO(), 2), Interrupts())
    assert "no video frames found" in str(watched[0].failure)
    assert watched[1].failure is None
    assert watched[1].summary is not None
    assert watched[1].summary.predicted == 5
    assert total_line(watched).endswith("; 1 sources failed")


async def test_no_server_is_told_of_each(make_video: MakeVideo) -> None:
    sources = [open_file(make_video(name=name)) for name in ("a.mp4", "b.mp4")]
    options = WatchOptions(url="127.0.0.1:1", labels=["waving"])
    out = io.StringIO()
    watched = await watch_several(sources, options, views(out, 2), Interrupts())
    assert all(isinstance(one.failure, UnreachableError) for one in watched)
    assert out.getvalue().count("ended: cannot reach") == 2


async def test_an_interrupt_stops_all_in_order(server: FakeServer, make_video: MakeVideo) -> None:
    names = ("a.mp4", "b.mp4")
    sources = [open_file(make_video(frames=60, fps=10.0, name=name)) for name in names]
    options = WatchOptions(url=server.url, labels=["waving"])
    interrupts = Interrupts()
    watching = asyncio.create_task(
        watch_several(sources, options, views(io.StringIO(), 2), interrupts)
    )
    while len({id(socket) for socket in server.sockets}) < 2 or len(server.frames) < 4:
        await asyncio.sleep(0.01)
    interrupts.interrupt()
    watched = await watching
    for one in watched:
        assert one.failure is None
        assert one.summary is not None
        assert 0 < one.summary.predicted == one.summary.sent < 40


async def test_an_interrupt_before_a_session_opens_ends_it(make_video: MakeVideo) -> None:
    interrupts = Interrupts()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        interrupts.interrupt()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(never, "127.0.0.1", 0) as listener:
        port = listener.sockets[0].getsockname()[1]
        options = WatchOptions(url=f"127.0.0.1:{port}", labels=["waving"])
        sources = [open_file(make_video(frames=3))]
        watched = await watch_several(sources, options, views(io.StringIO(), 1), interrupts)
    assert watched == [Watched("v.mp4", watched[0].options, None, None)]
    sources[0].close()


def test_files_get_the_number_before_their_ending() -> None:
    save = [Path("a.b.mp4"), Path("dir.x/out.events.csv")]
    options = numbered(WatchOptions(url="", labels=[], save=save, plot=Path("p.q.png")), 2)
    assert options.save == [Path("a.b.2.mp4"), Path("dir.x/out.2.events.csv")]
    assert options.plot == Path("p.q.2.png")


def test_several_sources_are_parsed_and_named(make_video: MakeVideo) -> None:
    arguments = build_parser().parse_args(
        ["a.mp4", "0", "--labels", "x", "--save", "a.csv", "b.srt", "--save", "c.mp4"]
    )
    assert arguments.source == ["a.mp4", "0"]
    assert options_from(arguments).save == [Path("a.csv"), Path("b.srt"), Path("c.mp4")]
    video = str(make_video())
    sources = open_sources([video, video], fps=None, again=None)
    assert unique_names(sources) == ["1: v.mp4", "2: v.mp4"]
    with pytest.raises(UsageError, match=r"found standard input \(-\) twice"):
        open_sources(["-", "-"], fps=None, again=None)


def test_all_tables_share_one_screen(board: Board) -> None:
    console = Console(file=io.StringIO(), width=100, height=40, force_terminal=True)
    with SharedScreen(console=console) as screen:
        first, second = screen.view("camera 0"), screen.view("street.mp4", duration_ms=9000)
        first.refresh(board)
        second.say("warning: a word")
        drawn = Console(file=io.StringIO(), width=100)
        drawn.print(screen.render())
        assert "camera 0 · fake · average" in drawn.file.getvalue()  # type: ignore[attr-defined]
        assert "street.mp4: no frame yet" in drawn.file.getvalue()  # type: ignore[attr-defined]
        second.refresh(board)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "[street.mp4] warning: a word" in shown
    assert "street.mp4 · fake" in shown


@pytest.fixture
def board(created: SessionCreated) -> Board:
    """Return a board without frames."""
    return Board(created)
