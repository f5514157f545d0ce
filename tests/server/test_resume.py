"""Sessions that outlive their connection, over real sockets: what goes on, and for how long."""

import time
from collections.abc import Callable

import pytest

from ovoad_client import protocol

from .harness import ColourEncoder, Serve, is_still_served, occurs, picture, until
from .resume_parts import PARK_S, Clock, broken_off, hold_first, predicted, resuming

# ---- what goes on --------------------------------------------------------------------------------


async def test_window_words_policy_and_counts_go_on(serve: Serve) -> None:
    async with serve(resume_s=PARK_S) as server:
        async with server.connect() as client:
            created = await client.create(["red", "blue"], scorer="average")
            for seq in range(40):
                await client.frame(seq)
            before = await predicted(client, range(40))
            assert not before[-1].window.warming_up
            await broken_off(server, client)
        async with resuming(server, created, 39, policy="realtime", scorer="frame") as (client, on):
            assert (on.resumed, on.next_seq, on.policy) == (True, 40, "lossless")
            assert (on.session_id, on.labels) == (created.session_id, ["red", "blue"])
            assert on.model.scorer == "average"
            assert on.resume_token != created.resume_token
            await client.frame(40)
            (after,) = await predicted(client, [40])
            assert after.window == before[-1].window, "full, no gap, not warming up"
            assert after.probabilities == before[-1].probabilities
            closed = await client.close()
            assert (closed.received, closed.predicted, closed.errors) == (41, 41, 0)
        await server.is_empty()
        assert server.metric("ovoad_sessions_total") == 1
        assert server.metric("ovoad_sessions_resumed_total") == 1
        assert server.metric("ovoad_sessions_ended_total", reason="closed by client") == 1


async def test_lossless_frames_under_way_are_answered_meanwhile(
    serve: Serve, encoder: ColourEncoder
) -> None:
    async with serve(resume_s=PARK_S, max_inflight=4) as server:
        async with server.connect() as client:
            created = await client.create()
            await client.frame(0)
            await predicted(client, [0])
            await hold_first(client, encoder, 1, 2, 3, 4)
            await until(lambda: server.metric("ovoad_frames_received_total") == 5)
            client.break_off()  # is not noticed yet: with 4 in flight, nothing is read
            encoder.hold.set()
            await until(lambda: server.metric("ovoad_frames_predicted_total") == 5)
            await until(lambda: server.hub.parked == 1)
        async with resuming(server, created, 0) as (client, on):
            assert (on.resumed, on.next_seq) == (True, 5)
            replayed = await predicted(client, [1, 2, 3, 4])
            assert [p.window.frames for p in replayed] == [2, 3, 4, 5]
            await client.frame(5)
            await predicted(client, [5])
            closed = await client.close()
            assert (closed.received, closed.predicted) == (6, 6)


async def test_answers_made_after_the_return_follow_those_replayed(
    serve: Serve, encoder: ColourEncoder
) -> None:
    async with serve(resume_s=PARK_S) as server:
        async with server.connect() as client:
            created = await client.create()
            for seq in range(3):
                await client.frame(seq)
            await predicted(client, range(3))
            await hold_first(client, encoder, 3, 4)
            await broken_off(server, client)
        async with resuming(server, created, 0) as (client, on):
            assert on.resumed
            await predicted(client, [1, 2])
            assert on.next_seq is not None
            for seq in range(on.next_seq, 7):
                await client.frame(seq)
            encoder.hold.set()
            await predicted(client, [3, 4, 5, 6])
            assert (await client.close()).predicted == 7


async def test_realtime_answers_every_frame_that_arrived(
    serve: Serve, encoder: ColourEncoder
) -> None:
    async with serve(resume_s=PARK_S, max_fps=1e6) as server:
        async with server.connect() as client:
            created = await client.create(policy="realtime")
            await hold_first(client, encoder, 0, 1, 2, 3)
            await until(lambda: server.metric("ovoad_frames_dropped_total", reason="busy") == 2)
            await broken_off(server, client)
            encoder.hold.set()
            await until(lambda: server.metric("ovoad_frames_predicted_total") == 2)
        async with resuming(server, created, None) as (client, on):
            assert (on.resumed, on.next_seq, on.policy) == (True, 4, "realtime")
            answers = [await client.receive() for _ in range(4)]
            kinds = [(a.type, getattr(a, "seq", None)) for a in answers]
            assert kinds == [
                ("frame.dropped", 1),
                ("frame.dropped", 2),
                ("prediction", 0),
                ("prediction", 3),
            ]
            assert await client.close() == protocol.SessionClosed(
                reason="closed by client",
                received=4,
                predicted=2,
                dropped=protocol.DroppedCounts(busy=2),
                errors=0,
            )


async def test_counts_add_up_over_many_connections(serve: Serve) -> None:
    async with serve(resume_s=PARK_S) as server:
        async with server.connect() as client:
            created = await client.create()
            await broken_off(server, client)
        for number in range(5):
            last_seq = number * 3 - 1 if number else None
            async with resuming(server, created, last_seq) as (client, created):
                assert (created.resumed, created.next_seq) == (True, number * 3)
                for seq in range(number * 3, number * 3 + 2):
                    await client.frame(seq)
                await predicted(client, range(number * 3, number * 3 + 2))
                await client.frame(number * 3 + 2, b"no image")
                assert (await client.expect(protocol.Error)).code == "bad_image"
                await broken_off(server, client)
        async with resuming(server, created, 14) as (client, on):
            assert on.resumed
            closed = await client.close()
        assert (closed.received, closed.predicted, closed.errors) == (15, 10, 5)
        await server.is_empty()


async def test_events_go_on_and_those_missed_come_again(serve: Serve) -> None:
    rule = {"enter": 0.8, "exit": 0.3, "min_duration_ms": 250}
    async with serve(resume_s=PARK_S) as server:
        async with server.connect() as client:
            created = await client.create(["red"], scorer="frame", events=rule)
            for seq in range(2):
                await client.frame(seq)
            await predicted(client, [0, 1])
            start = await client.expect(protocol.Event)
            await broken_off(server, client)
        async with resuming(server, created, 1) as (client, on):
            assert on.resumed
            assert await client.expect(protocol.Event) == start
            await client.frame(2, picture("green"))
            await predicted(client, [2])
            end = await client.expect(protocol.Event)
            assert (end.kind, end.label, end.start_ms) == ("end", "red", start.start_ms)


# ---- words ---------------------------------------------------------------------------------------


async def test_words_changed_before_the_break_hold_after_it(serve: Serve) -> None:
    async with serve(resume_s=PARK_S) as server:
        async with server.connect() as client:
            created = await client.create(["red"])
            await client.frame(0)
            await predicted(client, [0])
            await client.send({"type": "vocabulary.update", "vocabulary": {"labels": ["blue"]}})
            updated = await client.expect(protocol.VocabularyUpdated)
            await broken_off(server, client)
        async with resuming(server, created, 0) as (client, on):
            assert (on.labels, on.vocabulary_version) == (["blue"], 2)
            assert await client.expect(protocol.VocabularyUpdated) == updated
            await client.frame(1, picture("blue"))
            (prediction,) = await predicted(client, [1])
            assert prediction.vocabulary_version == 2
            assert prediction.window.frames == 2


async def test_words_under_way_at_the_break_are_told_after_it(
    serve: Serve, encoder: ColourEncoder
) -> None:
    async with serve(resume_s=PARK_S) as server:
        async with server.connect() as client:
            created = await client.create(["red"])
            encoder.entered_text.clear()
            encoder.hold_text.clear()
            await client.send({"type": "vocabulary.update", "vocabulary": {"labels": ["blue"]}})
            await client.frame(0, picture("blue"))
            await occurs(encoder.entered_text)
            await until(lambda: server.metric("ovoad_frames_received_total") == 1)
            await broken_off(server, client)
        async with resuming(server, created, None) as (client, on):
            assert (on.labels, on.vocabulary_version, on.next_seq) == (["red"], 1, 1)
            encoder.hold_text.set()
            updated = await client.expect(protocol.VocabularyUpdated)
            assert (updated.labels, updated.from_seq) == (["blue"], 0)
            (prediction,) = await predicted(client, [0])
            assert (prediction.vocabulary_version, prediction.similarities) == (2, [1.0])
        await until(lambda: server.hub.parked == 1)


async def test_words_that_cannot_be_embedded_end_a_parked_session(
    serve: Serve, encoder: ColourEncoder
) -> None:
    encoder.fail_on_text = "hurt"
    async with serve(resume_s=PARK_S) as server:
        async with server.connect() as client:
            created = await client.create(["red"])
            encoder.entered_text.clear()
            encoder.hold_text.clear()
            await client.send({"type": "vocabulary.update", "vocabulary": {"labels": ["hurt"]}})
            await occurs(encoder.entered_text)
            await broken_off(server, client)
            encoder.hold_text.set()
            await server.is_empty()
        async with resuming(server, created, None) as (client, on):
            assert not on.resumed


# ---- time ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("after_s", "resumed"), [(1, True), (29, True), (31, False)])
async def test_session_can_be_resumed_for_thirty_seconds(
    serve: Serve, after_s: float, resumed: bool
) -> None:
    async with serve(resume_s=PARK_S) as server:
        server.hub.now_s = clock = Clock()
        async with server.connect() as client:
            created = await client.create()
            await client.frame(0)
            await predicted(client, [0])
            await broken_off(server, client)
        clock.now_s += after_s
        async with resuming(server, created, 0) as (client, on):
            assert (on.resumed, on.next_seq) == (resumed, 1 if resumed else None)
            assert (on.session_id == created.session_id) == resumed
            assert on.labels == (["red", "blue"] if resumed else ["green"])
            await client.frame(1)
            (prediction,) = await predicted(client, [1])
            assert prediction.window.frames == (2 if resumed else 1)


async def test_thirty_seconds_begin_anew_with_each_break(serve: Serve) -> None:
    async with serve(resume_s=PARK_S) as server:
        server.hub.now_s = clock = Clock()
        async with server.connect() as client:
            created = await client.create()
            await broken_off(server, client)
        for _ in range(3):
            clock.now_s += 29
            async with resuming(server, created, None) as (client, created):
                assert created.resumed
                await broken_off(server, client)


async def test_session_that_nobody_comes_back_for_is_freed(
    serve_undisturbed: Serve, encoder: ColourEncoder
) -> None:
    async with serve_undisturbed(resume_s=0.1) as server:
        async with server.connect() as client:
            created = await client.create()
            await hold_first(client, encoder, 0, 1, 2)
            client.break_off()
        await until(lambda: server.metric("ovoad_sessions_ended_total", reason="lost") == 1)
        assert (server.hub.slots.used, server.hub.engine.sessions) == (1, 1)
        assert len(server.hub.sessions) == 1
        encoder.hold.set()
        async with resuming(server, created, None) as (client, on):
            assert not on.resumed
            await client.close()


async def test_session_past_its_time_ends_in_order_at_its_return(serve: Serve) -> None:
    async with serve(resume_s=PARK_S, max_session_s=20) as server:
        server.hub.now_s = clock = Clock()
        async with server.connect() as client:
            created = await client.create()
            await client.frame(0)
            await predicted(client, [0])
            await broken_off(server, client)
        clock.now_s += 21
        async with resuming(server, created, 0) as (client, on):
            assert on.resumed
            closed = await client.expect(protocol.SessionClosed)
            assert (closed.reason, closed.received) == ("expired", 1)
            assert await client.ended() == (protocol.CLOSE_NORMAL, "expired")


@pytest.mark.parametrize("jump_s", [86_400.0, -86_400.0])
async def test_wall_clock_that_jumps_changes_nothing(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    wall: Callable[[], float] = time.time
    async with serve(resume_s=PARK_S) as server:
        async with server.connect() as client:
            created = await client.create(policy="realtime")
            await is_still_served(client, 0)
            monkeypatch.setattr(time, "time", lambda: wall() + jump_s)
            await is_still_served(client, 1)
            await broken_off(server, client)
        async with resuming(server, created, 1) as (client, on):
            assert on.resumed
            await client.frame(2)
            (prediction,) = await predicted(client, [2])
            assert prediction.window.frames == 3
            assert 0 <= prediction.timing_ms.total < 10_000
            assert (await client.close()).received == 3


async def test_timestamps_a_day_ahead_are_a_gap_and_back_again_out_of_order(serve: Serve) -> None:
    day_ms = 86_400_000
    async with serve() as server, server.session() as client:
        for seq in range(3):
            await client.frame(seq)
        await predicted(client, range(3))
        await client.frame(3, timestamp_ms=day_ms)
        (prediction,) = await predicted(client, [3])
        assert prediction.window.frames == 1, "all that came before is out of the window"
        assert prediction.window.gaps == 31
        await client.frame(4, timestamp_ms=1000)
        error = await client.expect(protocol.Error)
        assert (error.code, error.seq, error.fatal) == ("out_of_order", 4, False)
        await client.frame(5, timestamp_ms=day_ms + 250)
        (prediction,) = await predicted(client, [5])
        assert prediction.window.frames == 2
        closed = await client.close()
        assert (closed.received, closed.predicted, closed.errors) == (6, 5, 1)
