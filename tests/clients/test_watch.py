"""Tests of `ovoad watch`: a real video, a server on loopback, files written, exit statuses."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ovoad_client import watch as watch_module
from ovoad_client.board import Board
from ovoad_client.errors import BrokenError, UnreachableError
from ovoad_client.interrupts import Interrupts
from ovoad_client.lines import LineView
from ovoad_client.notices import StreamMessage
from ovoad_client.protocol import (
    EventSettings,
    Prediction,
    SessionClosed,
    SessionCreated,
)
from ovoad_client.reconnecting import Reconnect
from ovoad_client.recording import read_recording
from ovoad_client.sources import open_source
from ovoad_client.watch import build_parser, options_from, parse_events
from ovoad_client.watching import WatchOptions, WatchSummary, percentile, summary_lines, watch

from .scripted import AT_ONCE, LABELS, Peer, playing

if TYPE_CHECKING:
    from tests.clients.conftest import FakeServer, MakeVideo


class KeepingView:
    """A view that keeps what it was given."""

    def __init__(self) -> None:
        self.told: list[StreamMessage] = []
        self.said: list[str] = []
        self.refreshed = 0

    def __enter__(self) -> KeepingView:
        return self

    def __exit__(self, *details: object) -> None:
        pass

    def refresh(self, board: Board) -> None:
        self.refreshed += 1

    def tell(self, message: StreamMessage) -> None:
        self.told.append(message)

    def say(self, text: str) -> None:
        self.said.append(text)


async def run(
    video: Path, options: WatchOptions, *, view: KeepingView | None = None
) -> WatchSummary:
    """Watch a video to its end."""
    return await watch(open_source(str(video)), options, view or KeepingView(), Interrupts())


async def test_every_frame_of_a_file_is_predicted_when_as_fast_as_answers_come(
    server: FakeServer, make_video: MakeVideo
) -> None:
    view = KeepingView()
    options = WatchOptions(url=server.url, labels=["waving"], pace="fast")
    summary = await run(make_video(frames=12), options, view=view)
    assert (summary.sent, summary.predicted, summary.skipped) == (12, 12, 0)
    assert server.most_unanswered == 1
    assert view.refreshed >= 1
    assert view.said[0] == "v.mp4: 64x48, JPEG quality 85, 20 frames/s, 0.6 s"
    assert not any("warning" in text for text in view.said)


async def test_lossless_uses_all_frames_in_flight_and_loses_none(
    server: FakeServer, make_video: MakeVideo
) -> None:
    options = WatchOptions(url=server.url, labels=["waving"], pace="fast", policy="lossless")
    summary = await run(make_video(frames=30), options)
    assert (summary.sent, summary.predicted) == (30, 30)
    assert server.most_unanswered <= 3


async def test_large_frames_are_shrunk_and_that_is_said(
    server: FakeServer, make_video: MakeVideo
) -> None:
    view = KeepingView()
    options = WatchOptions(url=server.url, labels=["waving"], pace="fast", max_side=32)
    await run(make_video(frames=3), options, view=view)
    assert "64x48 sent as 32x24" in view.said[0]


async def test_recording_holds_every_message_and_picture_is_drawn(
    server: FakeServer, make_video: MakeVideo, tmp_path: Path
) -> None:
    save, plot = tmp_path / "out.jsonl", tmp_path / "out.png"
    server.drop_every = 3
    options = WatchOptions(url=server.url, labels=["waving"], pace="fast", save=[save], plot=plot)
    summary = await run(make_video(frames=9), options)
    messages = list(read_recording(save))
    assert isinstance(messages[0], SessionCreated)
    assert isinstance(messages[-1], SessionClosed)
    kinds = Counter(message.type for message in messages)
    assert (kinds["prediction"], kinds["frame.dropped"]) == (6, 3) == (summary.predicted, 3)
    assert plot.stat().st_size > 10_000


async def test_duration_ends_the_session_in_order(
    server: FakeServer, make_video: MakeVideo
) -> None:
    options = WatchOptions(url=server.url, labels=["waving"], pace="fast", duration_s=0.2)
    summary = await run(make_video(frames=20, fps=20.0), options)
    assert summary.sent == 4


async def test_warnings_and_differing_counts_are_said(
    server: FakeServer, make_video: MakeVideo
) -> None:
    server.warnings, server.miscount = ["label 'waving' is close to background"], 2
    view = KeepingView()
    options = WatchOptions(url=server.url, labels=["waving"], pace="fast")
    await run(make_video(frames=3), options, view=view)
    assert "warning: label 'waving' is close to background" in view.said
    assert "warning: the server counted 5 received, this client 3" in view.said


async def test_a_server_that_goes_in_the_middle_is_told_and_nothing_is_lost(
    server: FakeServer, make_video: MakeVideo, tmp_path: Path
) -> None:
    server.break_after = 4
    save, plot = tmp_path / "out.jsonl", tmp_path / "out.png"
    options = WatchOptions(
        url=server.url, labels=["waving"], pace="fast", save=[save], plot=plot, reconnect=None
    )
    summary = await run(make_video(frames=12), options)
    assert isinstance(summary.failure, BrokenError)
    assert "fault in the server (1011)" in str(summary.failure)
    assert summary.predicted == 4
    assert sum(isinstance(message, Prediction) for message in read_recording(save)) == 4
    assert plot.exists()


async def test_breaks_are_told_and_a_lossless_video_is_predicted_whole(
    make_video: MakeVideo,
) -> None:
    async def breaks(peer: Peer) -> None:
        await peer.open()
        await peer.expect_frames(0, 1, 2)
        await peer.predict(0)
        await peer.cut()

    async def begins_anew(peer: Peer) -> None:
        await peer.open()
        await peer.expect_frames(1, 2)
        await peer.predict(1, 2)
        await peer.end(received=2, predicted=2)

    shown = io.StringIO()
    async with playing(breaks, begins_anew) as server:
        options = WatchOptions(
            url=server.url, labels=LABELS, policy="lossless", pace="fast", reconnect=AT_ONCE
        )
        source = open_source(str(make_video(frames=3)))
        summary = await watch(source, options, LineView(out=shown), Interrupts())
    host = server.url.split("/")[2]
    why = f"connection to {host} broke; frames with no answer: 2"
    assert f"connection broke, reconnecting in 0.0 s ({why})" in shown.getvalue()
    assert "fresh session, the window warms up again; 2 frames sent again" in shown.getvalue()
    assert "warning" not in shown.getvalue()
    assert summary.failure is None
    assert (summary.sent, summary.predicted, summary.lost) == (3, 3, 0)
    assert "reconnected once; frames sent again: 2, lost: 0" in summary_lines(summary)


async def test_a_session_that_the_server_ends_is_told(
    server: FakeServer, make_video: MakeVideo
) -> None:
    server.end_after = 4
    options = WatchOptions(url=server.url, labels=["waving"], pace="fast")
    summary = await run(make_video(frames=12), options)
    assert str(summary.failure) == "the server ended the session: idle"


async def test_interrupt_ends_in_order(server: FakeServer, make_video: MakeVideo) -> None:
    source = open_source(str(make_video(frames=60, fps=10.0)))  # 6 s
    options = WatchOptions(url=server.url, labels=["waving"])
    view = KeepingView()
    with Interrupts() as interrupts:
        watching = asyncio.create_task(watch(source, options, view, interrupts))
        while not view.told:
            await asyncio.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        summary = await watching
    assert interrupts.interrupted
    assert 1 <= summary.sent < 30
    assert summary.predicted == summary.sent
    assert isinstance(view.told[-1], SessionClosed)


async def test_second_interrupt_does_not_wait() -> None:
    stopped: list[str] = []

    async def stuck() -> None:
        with Interrupts() as interrupts:
            interrupts.stop = lambda: stopped.append("once")
            interrupts.interrupt()
            interrupts.interrupt()
            await asyncio.sleep(60)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(stuck())
    assert stopped == ["once"]


async def test_no_server_is_told(make_video: MakeVideo) -> None:
    with pytest.raises(UnreachableError, match="start it with: ovoad serve"):
        await run(make_video(), WatchOptions(url="127.0.0.1:1", labels=["waving"]))


def test_reconnecting_can_be_switched_off() -> None:
    parse = build_parser().parse_args
    assert options_from(parse(["0", "--labels", "a"])).reconnect == Reconnect()
    assert options_from(parse(["0", "--labels", "a", "--no-reconnect"])).reconnect is None


def test_labels_may_be_given_several_at_once_and_several_times() -> None:
    arguments = build_parser().parse_args(
        ["v.mp4", "--labels", "riding a bicycle", "waving", "--labels", "sitting"]
    )
    options = options_from(arguments)
    assert options.labels == ["riding a bicycle", "waving", "sitting"]
    assert (options.policy, options.pace, options.max_side) == ("realtime", "source", 640)


def test_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVOAD_API_KEY", "secret")
    assert options_from(build_parser().parse_args(["0", "--labels", "a"])).api_key == "secret"


def test_event_thresholds_are_parsed() -> None:
    assert parse_events("0.6,0.2,250") == EventSettings(enter=0.6, exit=0.2, min_duration_ms=250)


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["v.mp4"], "--labels"),
        (["--labels", "a"], "SOURCE"),
        (["v.mp4", "--labels", "a", "--events", "1"], "found '1', expected ENTER,EXIT,MIN_MS"),
        (["v.mp4", "--labels", "a", "--events", "0.2,0.5,0"], "expected exit <= enter"),
        (["v.mp4", "--labels", "a", "--duration", "0"], "expected more than 0"),
        (["v.mp4", "--labels", "a", "--policy", "best"], "--policy"),
    ],
)
def test_bad_usage_ends_with_2(
    flags: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        watch_module.main(flags)
    assert caught.value.code == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "status", "text"),
    [
        (["nope.mp4", "--labels", "a"], 1, "ovoad watch: cannot read video 'nope.mp4': file does"),
        (["VIDEO", "--labels", "a", "--url", "ftp://x"], 2, "found server address 'ftp://x'"),
        (["VIDEO", "--labels", "a", "a"], 2, "found label 'a' twice"),
        (["VIDEO", "--labels", "a", "--url", "127.0.0.1:1"], 1, "is the server running?"),
        (["VIDEO", "--labels", "a", "--plot", "out.xyz"], 2, "expected a name ending in"),
    ],
)
def test_problems_end_with_one_line_and_a_status(
    flags: Sequence[str],
    status: int,
    text: str,
    make_video: MakeVideo,
    capsys: pytest.CaptureFixture[str],
) -> None:
    video = str(make_video(frames=3))
    assert watch_module.main([video if flag == "VIDEO" else flag for flag in flags]) == status
    error = capsys.readouterr().err
    assert text in error
    assert error.count("\n") == 1


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(number) for number in range(1, 101)]
    assert percentile(values, 50) == 50.0
    assert percentile(values, 99) == 99.0
    assert percentile([7.0], 99) == 7.0


def test_summary_tells_all_counts() -> None:
    summary = WatchSummary(
        sent=10,
        skipped=2,
        predicted=8,
        dropped=Counter({"busy": 2}),
        errors=0,
        latencies_ms=[10.0, 20.0, 30.0],
        wall_s=1.25,
        first_prediction_s=0.5,
        failure=None,
    )
    assert summary_lines(summary) == [
        "10 frames sent in 1.2 s: 8 predictions, dropped: busy 2, errors: 0; 2 more skipped before "
        "sending, to keep up with the source",
        "latency from sending to prediction: median 20.0 ms, p99 30.0 ms",
    ]


def test_summary_tells_lost_frames() -> None:
    summary = WatchSummary(
        sent=10,
        skipped=0,
        predicted=7,
        dropped=Counter(),
        errors=0,
        latencies_ms=[],
        wall_s=1.0,
        first_prediction_s=0.5,
        failure=None,
        lost=3,
        reconnects=2,
    )
    assert summary_lines(summary) == [
        "10 frames sent in 1.0 s: 7 predictions, dropped: none, errors: 0, lost: 3",
        "reconnected 2 times; frames sent again: 0, lost: 3",
    ]
