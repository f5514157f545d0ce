"""Frames that leave side by side while few wait, for encoders that have lanes for them."""

import asyncio
from collections.abc import Sequence

import pytest

from ovoad_model.arrays import Float32Array, Frame
from ovoad_model.detector import Detector
from ovoad_model.scorers import frame_scorer
from ovoad_server.engine.batches import Batch
from ovoad_server.engine.capacity import CostModel
from ovoad_server.engine.replies import Failed, Scored

from .bench import Bench, ScriptedWorker
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
        await until(lambda: lanes.engine.waiting == 1)
        assert encoder.begun == [1, 1], "the batches to go on with wait for their lanes"
        encoder.hold.set()
        for desk in desks:
            await desk.answers(1)
    assert sorted(encoder.begun) == [1, 1, 1, 2, 2], "batches are of even size"


async def test_no_more_than_one_largest_batch_is_under_way(
    lanes: Bench, encoder: CountingEncoder
) -> None:
    async with running(lanes.engine):
        clip, camera = lanes.open("clip"), lanes.open("camera")
        encoder.hold.clear()
        clip.submit(*range(30))
        await until(lambda: lanes.engine.waiting == 30 - lanes.engine.largest_batch)
        await until(lambda: encoder.begun == [2, 2])
        camera.submit(0)
        encoder.hold.set()
        await camera.answers(1)
        await clip.answers(30)
    before = lanes.order.index(("camera", 0))
    assert before <= lanes.engine.largest_batch + 1, "the clip's next frame, then the camera's"


async def test_scheduler_sleeps_while_all_lanes_are_taken(
    lanes: Bench, encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    look = lanes.engine._room

    def count(encoding: Sequence[Batch]) -> int:
        looks.append(len(encoding))
        return look(encoding)

    monkeypatch.setattr(lanes.engine, "_room", count)
    lanes.engine.cost = CostModel.from_trial([(1, 1.0)] * 20)  # batches are expected to end soon
    async with running(lanes.engine):
        encoder.hold.clear()
        desks = [lanes.open(str(number)) for number in range(4)]
        for desk in desks:
            desk.submit(*range(20))
        await until(lambda: len(encoder.begun) == 2)
        await asyncio.sleep(0.1)
        assert len(looks) < 20
        encoder.hold.set()
        for desk in desks:
            await desk.answers(20)


async def test_frames_enter_the_window_in_order_though_a_batch_between_them_fails(
    lanes: Bench,
) -> None:
    scripted = ScriptedWorker(lanes.detector, calls=3)
    lanes.engine.worker = scripted
    async with running(lanes.engine):
        first, other = lanes.open("first"), lanes.open("other")
        first.submit(0)
        await until(lambda: scripted.asked == [1])
        other.submit(0)
        await until(lambda: scripted.asked == [1, 1])
        first.submit(1, colour="blue")
        await until(lambda: scripted.asked == [1, 1, 1])
        scripted.turns[1].set_result(RuntimeError("nobody foresaw this"))
        scripted.turns[2].set_result(None)
        await other.answers(1)
        assert first.replies == []
        scripted.turns[0].set_result(None)
        await first.answers(2)
    assert [(reply.seq, reply.window.frames) for reply in first.scored()] == [(0, 1), (1, 2)]
    assert other.replies == [Failed(0, "internal", "the engine failed")]
    scripted.close()


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
