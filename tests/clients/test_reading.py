"""Tests of the threaded reader: pacing, its bounded queue and its ends."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from ovoad_client.captures import open_file
from ovoad_client.errors import SourceError
from ovoad_client.reading import QUEUED_FRAMES, SourceReader
from ovoad_client.sources import open_source

if TYPE_CHECKING:
    from tests.clients.conftest import MakeVideo


async def test_every_frame_comes_when_the_source_may_wait(make_video: MakeVideo) -> None:
    source = open_source(str(make_video(frames=30, fps=10.0)))
    async with SourceReader(source, pace="fast", keep="all", max_side=32) as reader:
        frames = [frame async for frame in reader]
    assert [frame.timestamp_ms for frame in frames] == list(range(0, 3000, 100))
    assert reader.skipped == 0
    first = cv2.imdecode(np.frombuffer(frames[0].jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert first is not None
    assert first.shape == (24, 32, 3)


async def test_frames_come_at_the_files_own_rate(make_video: MakeVideo) -> None:
    source = open_source(str(make_video(frames=9, fps=40.0)))
    start_s = time.monotonic()
    async with SourceReader(source, pace="source") as reader:
        frames = [frame async for frame in reader]
    assert len(frames) == 9
    assert time.monotonic() - start_s >= 0.2


async def test_a_slow_taker_gets_the_newest_frames_and_the_rest_is_counted(
    make_video: MakeVideo,
) -> None:
    source = open_source(str(make_video(frames=20, fps=200.0)))
    async with SourceReader(source, pace="source", keep="newest") as reader:
        while reader.position_ms < 95:  # nothing is taken until the last frame has been read
            await asyncio.sleep(0)
        frames = [frame async for frame in reader]
    assert len(frames) <= QUEUED_FRAMES + 1
    assert frames[-1].timestamp_ms == 95
    assert reader.skipped + len(frames) == 20


async def test_a_source_that_may_wait_reads_no_further_than_its_queue(
    make_video: MakeVideo,
) -> None:
    source = open_file(make_video(frames=40, fps=100.0))
    async with SourceReader(source, pace="fast", keep="all") as reader:
        taken = await anext(reader)
        await asyncio.to_thread(source._capture.get, 3)
        assert taken.timestamp_ms == 0
        assert reader.position_ms <= 10 * (QUEUED_FRAMES + 2)


async def test_stopping_ends_the_iteration_at_once(make_video: MakeVideo) -> None:
    source = open_source(str(make_video(frames=20, fps=2.0)))  # 10 s
    start_s = time.monotonic()
    times = []
    async with SourceReader(source) as reader:
        async for frame in reader:
            times.append(frame.timestamp_ms)
            reader.stop()
    assert times == [0]
    assert time.monotonic() - start_s < 5


async def test_a_file_cut_short_is_noted(make_video: MakeVideo, tmp_path: Path) -> None:
    whole = make_video(frames=40, name="whole.avi", size=(320, 240))
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    source = open_source(str(cut))
    source.frame_count = 40  # what the header of a whole file says
    async with SourceReader(source, pace="fast", keep="all") as reader:
        frames = [frame async for frame in reader]
    assert 0 < len(frames) < 36
    assert reader.note is not None
    assert f"ends after {len(frames)} of 40 frames" in reader.note


async def test_a_live_source_that_stops_is_an_error(make_video: MakeVideo) -> None:
    source = open_file(make_video(frames=3))
    source.live, source.may_end, source.name = True, False, "camera 0"
    async with SourceReader(source) as reader:
        with pytest.raises(SourceError, match="camera 0 stopped giving frames after 3 frames"):
            [frame async for frame in reader]
