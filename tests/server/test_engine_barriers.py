"""New words and resets hold from the next frame on, in an engine with a fake encoder."""

import asyncio

import pytest

from ovoad_server.engine.interface import WordsRequest
from ovoad_server.engine.session import Words

from .bench import Bench, hold
from .harness import ColourEncoder, running


async def test_new_words_hold_from_the_next_frame_on(bench: Bench, encoder: ColourEncoder) -> None:
    async with running(bench.engine):
        desk = bench.open("a")
        await hold(encoder, desk, 0)
        desk.submit(1)
        words = Words(2, None)
        desk.session.change_words(words)
        desk.submit(2, 3)
        encoder.hold.set()
        await desk.answers(2)
        assert desk.session.backlog == 2
        words.vocabulary = bench.detector.vocabulary(("green",), scorer="frame")
        bench.engine.notify(desk.session)
        await desk.answers(4)
    found = [
        (scored.seq, scored.vocabulary_version, len(scored.scores.probabilities))
        for scored in desk.scored()
    ]
    assert found == [(0, 1, 2), (1, 1, 2), (2, 2, 1), (3, 2, 1)]


async def test_session_that_waits_for_words_holds_up_nobody(bench: Bench) -> None:
    async with running(bench.engine):
        waiting, other = bench.open("waiting"), bench.open("other")
        waiting.session.change_words(Words(2, None))
        waiting.submit(0)
        other.submit(*range(5))
        await other.answers(5)
        assert waiting.replies == []


async def test_embedding_of_words_holds_up_no_frames(bench: Bench, encoder: ColourEncoder) -> None:
    async with running(bench.engine):
        desk = bench.open("a")
        encoder.hold_text.clear()
        embedding = asyncio.create_task(bench.engine.embed(WordsRequest(("x",))))
        desk.submit(0)
        await desk.answers(1)
        assert not embedding.done()
        encoder.hold_text.set()
        assert (await embedding).labels == ("x",)


async def test_reset_empties_the_window_for_later_frames_only(
    bench: Bench, encoder: ColourEncoder
) -> None:
    async with running(bench.engine):
        desk = bench.open("a", scorer="average")
        await hold(encoder, desk, 0)
        desk.submit(1)
        desk.session.reset()
        desk.submit(2, 3, colour="blue")
        encoder.hold.set()
        await desk.answers(4)
    assert [scored.window.frames for scored in desk.scored()] == [1, 2, 1, 2]
    assert desk.scored()[2].scores.similarities == pytest.approx([0, 1], abs=1e-6)


async def test_reset_before_a_bad_frame_still_holds(bench: Bench) -> None:
    async with running(bench.engine):
        desk = bench.open("a")
        desk.submit(0)
        desk.session.reset()
        desk.submit(1, image=b"no image")
        desk.submit(2)
        await desk.answers(3)
    assert [scored.window.frames for scored in desk.scored()] == [1, 1]
