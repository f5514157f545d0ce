"""Frames that leave side by side while few wait, for encoders that have lanes for them."""

import asyncio
from collections.abc import Sequence

import pytest

from ovoad_model.arrays import Float32Array, Frame
from ovoad_model.detector import Detector
from ovoad_model.scorers import frame_scorer
from ovoad_server.engine.replies import Scored

from .bench import Bench
from .harness import ColourEncoder, running, until


class CountingEncoder(ColourEncoder):
    """Tells the sizes of the calls that have begun."""

    def __init__(self) -> None:
        super().__init__()
        self.begun: list[int] = []

    def encode_frames(self, frames: Sequence[Frame]) -> Float32Array:
        self.begun.append(len(frames))
        return super().encode_frames(frames)


@pytest.fixture
def encoder() -> CountingEncoder:
    return CountingEncoder()


@pytest.fixture
def lanes(encoder: CountingEncoder) -> Bench:
    """Return an engine over a worker with two lanes."""
    return Bench(Detector(encoder, (frame_scorer(encoder),)), max_batch=8, lanes=2)


async def test_second_frame_leaves_while_the_first_is_encoded(
    lanes: Bench, encoder: CountingEncoder
) -> None:
    async with running(lanes.engine):
        desks = [lanes.open(name) for name in "abcd"]
        encoder.hold.clear()
        desks[0].submit(0)
        await until(lambda: len(encoder.begun) == 1)
        desks[1].submit(0)
        await until(lambda: len(encoder.begun) == 2)
        for desk in desks[2:]:
            desk.submit(0)
        await asyncio.sleep(0.05)
        assert encoder.begun == [1, 1], "both lanes are taken"
        encoder.hold.set()
        for desk in desks:
            await desk.answers(1)
    assert sum(encoder.begun) == 4
    assert [name for name, _ in lanes.order[:2]] == ["a", "b"]


async def test_lanes_have_one_batch_each_to_go_on_with(
    lanes: Bench, encoder: CountingEncoder
) -> None:
    async with running(lanes.engine):
        desks = [lanes.open(name) for name in "abcdefg"]
        encoder.hold.clear()
        desks[0].submit(0)
        await until(lambda: encoder.begun == [1])
        desks[1].submit(0)
        await until(lambda: encoder.begun == [1, 1])
        for desk in desks[2:]:
            desk.submit(0)
        await until(lambda: lanes.engine.waiting == 2)
        assert encoder.begun == [1, 1], "the batches to go on with wait for their lanes"
        encoder.hold.set()
        for desk in desks:
            await desk.answers(1)
    assert sorted(encoder.begun) == [1, 1, 1, 1, 1, 2], "batches share what waits when they leave"


async def test_no_more_than_one_largest_batch_is_under_way(
    lanes: Bench, encoder: CountingEncoder
) -> None:
    async with running(lanes.engine):
        clip, camera = lanes.open("clip"), lanes.open("camera")
        encoder.hold.clear()
        clip.submit(*range(30))
        await until(lambda: lanes.engine.waiting == 30 - lanes.engine.largest_batch)
        camera.submit(0)
        encoder.hold.set()
        await camera.answers(1)
        await clip.answers(30)
    before = lanes.order.index(("camera", 0))
    assert before <= lanes.engine.largest_batch + 1, "the clip's next frame, then the camera's"
    assert max(encoder.begun) > 1, "many frames leave in batches"


async def test_frames_of_one_session_keep_their_order(
    lanes: Bench, encoder: CountingEncoder
) -> None:
    async with running(lanes.engine):
        desk = lanes.open("a")
        for seq in range(12):
            desk.submit(seq, colour=("red", "blue")[seq % 2])
            await asyncio.sleep(0.001)
            if seq >= 4:
                await desk.answers(seq - 4)
        await desk.answers(12)
    scored = desk.scored()
    assert [reply.seq for reply in scored] == list(range(12))
    assert [reply.scores.probabilities.argmax() for reply in scored] == [0, 1] * 6
    assert all(isinstance(reply, Scored) for reply in desk.replies)
