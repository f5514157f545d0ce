"""Batches, fairness, policies and leaving, with a fake encoder that the engine can be held in."""

import pytest

from ovoad_server.engine.replies import Dropped, Scored

from .bench import Bench, hold
from .harness import ColourEncoder, running, until

# ---- batches -------------------------------------------------------------------------------------


async def test_idle_engine_answers_a_frame_at_once(bench: Bench) -> None:
    async with running(bench.engine):
        desk = bench.open("a")
        desk.submit(0)
        (scored,) = await desk.answers(1)
    assert isinstance(scored, Scored)
    assert scored.scores.probabilities.argmax() == 0
    assert scored.backlog == 0
    timing = scored.timing
    parts = timing.queue + timing.decode + timing.encode + timing.score
    assert 0 < parts <= timing.total


async def test_batches_form_while_one_runs(bench: Bench, encoder: ColourEncoder) -> None:
    async with running(bench.engine):
        desks = [bench.open(name) for name in "abc"]
        await hold(encoder, desks[0], 0)
        for desk in desks:
            desk.submit(1)
        encoder.hold.set()
        for desk in desks:
            await desk.answers(1)
        await until(lambda: len(bench.records) == 2)
    assert [len(batch) for batch in encoder.batches] == [1, 3]
    assert [record.size for record in bench.records] == [1, 3]


async def test_batch_is_never_larger_than_max_batch(bench: Bench, encoder: ColourEncoder) -> None:
    async with running(bench.engine):
        desk = bench.open("a")
        await hold(encoder, desk, 0)
        desk.submit(*range(1, 10))
        encoder.hold.set()
        await desk.answers(10)
    assert [len(batch) for batch in encoder.batches] == [1, 4, 4, 1]
    assert [seq for _, seq in bench.order] == list(range(10))


async def test_each_session_gives_one_frame_a_round(bench: Bench, encoder: ColourEncoder) -> None:
    async with running(bench.engine):
        busy, calm = bench.open("busy"), bench.open("calm")
        await hold(encoder, busy, 0)
        busy.submit(*range(1, 7))
        calm.submit(0)
        encoder.hold.set()
        await busy.answers(7)
    assert bench.order[:3] == [("busy", 0), ("busy", 1), ("calm", 0)]


async def test_nobody_is_passed_over_when_sessions_outnumber_the_batch(
    bench: Bench, encoder: ColourEncoder
) -> None:
    async with running(bench.engine):
        desks = [bench.open(str(index)) for index in range(10)]
        await hold(encoder, desks[0], 0)
        for desk in desks:
            desk.submit(1, 2)
        encoder.hold.set()
        for desk in desks:
            await desk.answers(2)
        await desks[0].answers(3)
    rounds = [name for name, _ in bench.order[1:]]
    assert sorted(rounds[:10]) == sorted(rounds[10:]) == [str(index) for index in range(10)]


async def test_one_batch_serves_different_scorers_and_words(
    bench: Bench, encoder: ColourEncoder
) -> None:
    async with running(bench.engine):
        first = bench.open("a", scorer="frame", labels=("red", "blue"))
        second = bench.open("b", scorer="average", labels=("green", "blue", "red"))
        first.submit(0, colour="blue")
        second.submit(0, colour="blue")
        await first.answers(1)
        await second.answers(1)
        await hold(encoder, first, 1)
        first.submit(2, colour="red")
        second.submit(2, colour="red")
        encoder.hold.set()
        await first.answers(3)
        await second.answers(2)
    assert encoder.batches[-1] == ["red", "red"]
    assert first.scored()[2].scores.similarities == pytest.approx([1, 0], abs=1e-6)
    half = 0.5**0.5
    assert second.scored()[1].scores.similarities == pytest.approx([0, half, half], abs=1e-6)


async def test_answers_do_not_depend_on_who_shares_the_batch(
    bench: Bench, encoder: ColourEncoder
) -> None:
    colours = ["red", "green", "blue", "red", "blue"]
    async with running(bench.engine):
        alone = bench.open("alone", scorer="average")
        for seq, colour in enumerate(colours):
            alone.submit(seq, colour=colour)
            await alone.answers(seq + 1)
        shared = [bench.open(str(index), scorer="average") for index in range(3)]
        for seq, colour in enumerate(colours):
            for index, desk in enumerate(shared):
                desk.submit(seq, colour=colour if index == 0 else "green")
        for desk in shared:
            await desk.answers(len(colours))
    for one, other in zip(alone.scored(), shared[0].scored(), strict=True):
        assert one.scores.probabilities == pytest.approx(other.scores.probabilities, abs=1e-6)
        assert one.window == other.window


async def test_engine_sleeps_while_the_rate_lets_nothing_through(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    collect = bench.engine._collect

    def counting(now_s: float, most: int) -> object:
        looks.append(now_s)
        return collect(now_s, most)

    monkeypatch.setattr(bench.engine, "_collect", counting)
    async with running(bench.engine):
        desk = bench.open("a", policy="realtime", max_fps=20)
        for seq in range(4):
            desk.submit(seq)
            await desk.answers(seq + 1)
    assert len(desk.scored()) == 4
    assert looks[-1] - looks[0] >= 0.1
    assert len(looks) < 25


async def test_lossless_session_is_not_held_to_the_rate(
    bench: Bench, encoder: ColourEncoder
) -> None:
    async with running(bench.engine):
        desk = bench.open("a", max_fps=0.01)
        await hold(encoder, desk, 0)
        desk.submit(*range(1, 9))
        encoder.hold.set()
        await desk.answers(9)
    assert [scored.seq for scored in desk.scored()] == list(range(9))


# ---- policies ------------------------------------------------------------------------------------


async def test_realtime_session_gets_the_newest_frame_scored(
    bench: Bench, encoder: ColourEncoder
) -> None:
    async with running(bench.engine):
        desk = bench.open("a", policy="realtime")
        await hold(encoder, desk, 0)
        desk.submit(1, 2, 3)
        encoder.hold.set()
        await desk.answers(4)
    assert [(type(r), r.seq) for r in desk.replies if isinstance(r, Scored | Dropped)] == [
        (Dropped, 1),
        (Dropped, 2),
        (Scored, 0),
        (Scored, 3),
    ]


# ---- leaving -------------------------------------------------------------------------------------


async def test_session_that_left_is_scored_no_more(bench: Bench, encoder: ColourEncoder) -> None:
    async with running(bench.engine):
        leaving, staying = bench.open("leaving"), bench.open("staying")
        await hold(encoder, leaving, 0)
        leaving.submit(1, 2)
        staying.submit(1)
        bench.engine.remove(leaving.session)
        encoder.hold.set()
        await staying.answers(1)
        assert (bench.engine.sessions, bench.engine.waiting) == (1, 0)
    assert [scored.seq for scored in leaving.scored()] == [0]
    assert len(encoder.batches) == 2


async def test_waiting_counts_frames_of_all_sessions(bench: Bench, encoder: ColourEncoder) -> None:
    async with running(bench.engine):
        first, second = bench.open("a"), bench.open("b")
        await hold(encoder, first, 0)
        first.submit(1, 2)
        second.submit(0)
        assert bench.engine.waiting == 3
        encoder.hold.set()
        await first.answers(3)
