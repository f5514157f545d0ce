"""Failures stay with the frame and the session that caused them; the engine goes on."""

import pytest

from ovoad_model.detector import Detector
from ovoad_server.engine.batches import BatchRecord
from ovoad_server.engine.images import decode_image
from ovoad_server.engine.interface import WorkerLostError
from ovoad_server.engine.replies import Failed, Scored

from .bench import Bench, ScriptedWorker, hold
from .harness import ColourEncoder, running, until


async def test_frame_that_hurts_the_model_fails_alone(
    bench: Bench, encoder: ColourEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    encoder.fail_on = "green"
    async with running(bench.engine):
        good, bad = bench.open("good"), bench.open("bad")
        await hold(encoder, good, 0)
        good.submit(1)
        bad.submit(1, colour="green")
        good.submit(2)
        encoder.hold.set()
        await good.answers(3)
        await bad.answers(1)
    assert [scored.seq for scored in good.scored()] == [0, 1, 2]
    assert bad.replies == [Failed(1, "internal", "the model failed (RuntimeError)")]
    assert "a batch of 3 failed (this colour hurts), trying its halves" in caplog.text


async def test_frame_that_is_no_image_fails_alone_and_leaves_the_window(bench: Bench) -> None:
    async with running(bench.engine):
        desk = bench.open("a")
        desk.submit(0)
        desk.submit(1, image=b"no image")
        desk.submit(2)
        await desk.answers(3)
    assert [type(reply) for reply in desk.replies] == [Scored, Failed, Scored]
    assert desk.replies[1] == Failed(
        1, "bad_image", "found 8 bytes starting b'no image', expected JPEG, PNG or WebP"
    )
    assert desk.scored()[1].window.frames == 2


async def test_fault_in_decoding_fails_one_frame_not_the_engine(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(data: bytes, **options: int) -> object:
        if data == b"fault":
            raise MemoryError
        return decode_image(data, **options)

    monkeypatch.setattr("ovoad_server.engine.inference.decode_image", decode)
    async with running(bench.engine):
        desk = bench.open("a")
        desk.submit(0, image=b"fault")
        desk.submit(1)
        await desk.answers(2)
    assert desk.replies[0] == Failed(0, "internal", "the decoder failed (MemoryError)")
    assert isinstance(desk.replies[1], Scored)


async def test_fault_of_the_observer_costs_no_answer_and_the_engine_goes_on(
    detector: Detector, caplog: pytest.LogCaptureFixture
) -> None:
    def observe(record: BatchRecord) -> None:
        raise RuntimeError("nobody foresaw this")

    bench = Bench(detector, max_batch=4, observe=observe)
    async with running(bench.engine):
        desk = bench.open("a")
        for seq in range(3):
            desk.submit(seq)
            await desk.answers(seq + 1)
        await until(lambda: caplog.text.count("a batch of 1 was not observed") == 3)
    assert bench.order == [("a", 0), ("a", 1), ("a", 2)], "each frame is answered once"
    assert len(desk.scored()) == 3


async def test_fault_in_one_session_s_reply_harms_no_other(
    bench: Bench, encoder: ColourEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(bench.engine):
        broken, other = bench.open("broken"), bench.open("other")
        await hold(encoder, other, 0)
        broken.fails_to_reply = True
        broken.submit(1, 2)
        other.submit(1, 2)
        encoder.hold.set()
        await other.answers(3)
        broken.fails_to_reply = False
        broken.submit(3)
        await broken.answers(1)
    assert encoder.batches == [["red"], ["red"] * 4, ["red"]]
    assert [scored.seq for scored in other.scored()] == [0, 1, 2]
    assert [scored.seq for scored in broken.scored()] == [3]
    for seq in (1, 2):
        assert f"frame {seq} of a session was not answered" in caplog.text


async def test_fault_in_one_session_s_window_fails_its_frames_alone(
    bench: Bench, encoder: ColourEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def push(timestamp_ms: int, feature: object) -> None:
        raise RuntimeError("nobody foresaw this")

    async with running(bench.engine):
        first, second = bench.open("first"), bench.open("second")
        await hold(encoder, first, 0)
        encoder.hold.set()
        await first.answers(1)
        with monkeypatch.context() as patched:
            patched.setattr(first.session.window, "push", push)
            await hold(encoder, second, 0)
            for desk in (first, second):
                desk.submit(1, 2)
            encoder.hold.set()
            await first.answers(3)
            await second.answers(3)
        first.submit(3)
        await first.answers(4)
    assert first.replies[1:3] == [Failed(seq, "internal", "the engine failed") for seq in (1, 2)]
    assert [scored.seq for scored in first.scored()] == [0, 3]
    assert [scored.seq for scored in second.scored()] == [0, 1, 2]


@pytest.mark.parametrize(("call", "scored"), [("encode", [2]), ("score", [0, 2])])
async def test_call_that_fails_unforeseen_is_answered_and_the_engine_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, call: str, scored: list[int]
) -> None:
    """A session's first frame is scored by the call that encodes it, the second by another."""

    async def fail(*arguments: object) -> object:
        raise RuntimeError("nobody foresaw this")

    async with running(bench.engine):
        desk = bench.open("a")
        with monkeypatch.context() as patched:
            patched.setattr(bench.worker, call, fail)
            desk.submit(0, 1)
            await desk.answers(2)
        desk.submit(2)
        await desk.answers(3)
    failed = sorted({0, 1} - set(scored))
    assert [reply for reply in desk.replies if isinstance(reply, Failed)] == [
        Failed(seq, "internal", "the engine failed") for seq in failed
    ]
    assert [reply.seq for reply in desk.scored()] == scored
    assert desk.session.counts.unanswered == 0


async def test_frame_that_fails_unforeseen_when_tried_again_fails_alone(bench: Bench) -> None:
    scripted = ScriptedWorker(bench.detector, calls=4)
    bench.engine.worker = scripted
    async with running(bench.engine):
        first, good, bad = (bench.open(name) for name in ("first", "good", "bad"))
        first.submit(0)
        await until(lambda: scripted.asked == [1])
        good.submit(0)
        bad.submit(0)
        scripted.turns[0].set_result(None)
        await until(lambda: scripted.asked == [1, 2])
        scripted.turns[1].set_result(WorkerLostError("the worker died"))
        scripted.turns[2].set_result(None)
        scripted.turns[3].set_result(RuntimeError("nobody foresaw this"))
        await bad.answers(1)
        await good.answers(1)
    assert scripted.asked == [1, 2, 1, 1]
    assert [reply.seq for reply in good.scored()] == [0]
    assert bad.replies == [Failed(0, "internal", "the engine failed")]
    assert good.session.counts.unanswered == bad.session.counts.unanswered == 0
    scripted.close()
