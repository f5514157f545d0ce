"""The conversation of one connection, over real sockets: what a well-behaved client sees."""

import base64

import pytest
from websockets.typing import Subprotocol

from ovoad_client import protocol

from .harness import ColourEncoder, Serve, occurs, picture, until

# ---- create --------------------------------------------------------------------------------------


async def test_session_created_tells_model_words_and_limits(serve: Serve) -> None:
    async with serve(max_fps=30, max_session_s=3600) as server, server.connect() as client:
        created = await client.create(["red", "blue"])
        assert created.model == protocol.ModelInfo(
            encoder="colours", scorer="average", fingerprint="c0105"
        )
        assert (created.labels, created.vocabulary_version) == (["red", "blue"], 1)
        assert (created.protocol, created.policy, created.resumed) == (1, "lossless", False)
        assert created.limits == protocol.Limits(
            max_frame_bytes=4 * 2**20,
            max_pixels=4096 * 4096,
            max_labels=1000,
            max_inflight=16,
            max_fps=30,
            idle_timeout_ms=60_000,
            max_session_ms=3_600_000,
        )
        assert created.window == protocol.WindowShape(fps=4, past=24, neighbours=8)
        assert created.warnings == []


async def test_policy_is_realtime_unless_asked_otherwise(serve: Serve) -> None:
    async with serve() as server, server.connect() as client:
        await client.send({"type": "session.create", "vocabulary": {"labels": ["red"]}})
        assert (await client.expect(protocol.SessionCreated)).policy == "realtime"


async def test_sessions_have_ids_and_tokens_of_their_own(serve: Serve) -> None:
    async with serve() as server, server.connect() as one, server.connect() as other:
        first, second = await one.create(), await other.create()
    names = {first.session_id, first.resume_token, second.session_id, second.resume_token}
    assert len(names) == 4
    assert min(map(len, names)) >= 16


@pytest.mark.parametrize("offered", [["ovoad.v1"], ["other", "ovoad.v1"]])
async def test_subprotocol_is_taken_where_offered(serve: Serve, offered: list[str]) -> None:
    async with serve() as server:
        names = [Subprotocol(name) for name in offered]
        async with server.connect(subprotocols=names) as client:
            assert client.socket.subprotocol == "ovoad.v1"
        async with server.connect() as client:
            assert client.socket.subprotocol is None


async def test_words_that_the_encoder_does_not_speak_are_warned_of(serve: Serve) -> None:
    async with serve() as server, server.connect() as client:
        created = await client.create(["red", "跑步"])
        assert created.warnings == ["label '跑步' is not English"]
        await client.send({"type": "vocabulary.update", "vocabulary": {"labels": ["يركض"]}})
        updated = await client.expect(protocol.VocabularyUpdated)
        assert updated.warnings == ["label 'يركض' is not English"]


# ---- frames --------------------------------------------------------------------------------------


async def test_binary_frame_is_answered_by_a_prediction(serve: Serve) -> None:
    async with serve() as server, server.session(["red", "blue"]) as client:
        await client.frame(7, picture("blue"), timestamp_ms=-5)
        prediction = await client.expect(protocol.Prediction)
        assert (prediction.seq, prediction.timestamp_ms) == (7, -5)
        assert prediction.similarities == [0.0, 1.0]
        assert prediction.probabilities is not None
        assert sum(prediction.probabilities) + prediction.background == pytest.approx(1, abs=1e-5)
        assert prediction.probabilities[1] > 0.9
        assert (prediction.vocabulary_version, prediction.backlog) == (1, 0)
        assert prediction.window == protocol.WindowState(
            frames=1, span_ms=0, gaps=0, warming_up=True
        )
        assert (prediction.top, prediction.grouping) == (None, None)
        assert prediction.timing_ms.total > 0


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
async def test_base64_frame_says_the_same_as_a_binary_one(serve: Serve, suffix: str) -> None:
    image = picture("blue", suffix=suffix)
    async with serve() as server, server.session(scorer="frame") as client:
        await client.frame(0, image)
        binary = await client.expect(protocol.Prediction)
        text = base64.b64encode(image).decode()
        await client.send(protocol.FrameMessage(seq=1, timestamp_ms=250, image_base64=text))
        assert (await client.expect(protocol.Prediction)).similarities == binary.similarities


async def test_top_k_sends_the_best_labels_in_place_of_all(serve: Serve) -> None:
    async with serve() as server, server.session(["red", "blue", "green"], top_k=2) as client:
        await client.frame(0, picture("blue"))
        prediction = await client.expect(protocol.Prediction)
        assert (prediction.probabilities, prediction.similarities) == (None, None)
        assert prediction.top is not None
        assert [ranked.label for ranked in prediction.top] == ["blue", "red"]
        assert prediction.top[0].similarity == 1.0
        assert prediction.top[0].probability > 0.9


async def test_top_k_above_the_number_of_labels_sends_all(serve: Serve) -> None:
    async with serve() as server, server.session(["red", "blue"], top_k=1000) as client:
        await client.frame(0)
        prediction = await client.expect(protocol.Prediction)
        assert prediction.top is not None
        assert len(prediction.top) == 2


@pytest.mark.parametrize("scorer", ["frame", "average", "cluster"])
async def test_session_has_the_scorer_that_it_asks_for(serve: Serve, scorer: str) -> None:
    async with serve() as server, server.connect() as client:
        assert (await client.create(scorer=scorer)).model.scorer == scorer
        for seq, colour in enumerate(["red", "blue"]):
            await client.frame(seq, picture(colour))
            prediction = await client.expect(protocol.Prediction)
        half = round(0.5**0.5, 6)
        assert prediction.similarities == ([half, half] if scorer == "average" else [0.0, 1.0])


async def test_user_can_replace_templates_and_background(serve: Serve) -> None:
    async with serve() as server, server.connect() as client:
        words = {"labels": ["red"], "templates": ["a thing in {}"], "background": ["blue"]}
        await client.create(vocabulary=words)
        await client.frame(0, picture("blue"))
        assert (await client.expect(protocol.Prediction)).background > 0.9


async def test_window_reports_gaps_and_warming_up(serve: Serve) -> None:
    async with serve() as server, server.session() as client:
        for seq, timestamp_ms in enumerate((0, 250, 1000, 60_000)):
            await client.frame(seq, timestamp_ms=timestamp_ms)
        states = [(await client.expect(protocol.Prediction)).window for _ in range(4)]
        assert [(s.frames, s.span_ms, s.gaps, s.warming_up) for s in states] == [
            (1, 0, 0, True),
            (2, 250, 0, True),
            (3, 1000, 2, True),
            (1, 0, 31, False),
        ]


# ---- policies ------------------------------------------------------------------------------------


async def test_realtime_answers_the_replaced_frames_busy(
    serve: Serve, encoder: ColourEncoder
) -> None:
    async with serve() as server, server.session(policy="realtime") as client:
        encoder.entered.clear()
        encoder.hold.clear()
        await client.frame(0)
        await occurs(encoder.entered)
        for seq in (1, 2, 3):
            await client.frame(seq)
        for seq in (1, 2):
            assert await client.receive() == protocol.FrameDropped(
                seq=seq, timestamp_ms=seq * 250, reason="busy"
            )
        encoder.hold.set()
        first = await client.expect(protocol.Prediction)
        assert (first.seq, first.backlog) == (0, 1)
        assert (await client.expect(protocol.Prediction)).seq == 3


async def test_realtime_answers_frames_above_the_rate_and_the_newest_always(serve: Serve) -> None:
    async with serve(max_fps=2) as server, server.session(policy="realtime") as client:
        for seq in (0, 1):
            await client.frame(seq)
            await client.expect(protocol.Prediction)
        for seq in range(2, 40):
            await client.frame(seq)
        for seq in range(2, 39):
            assert await client.receive() == protocol.FrameDropped(
                seq=seq, timestamp_ms=seq * 250, reason="rate"
            )
        assert (await client.expect(protocol.Prediction)).seq == 39


async def test_lossless_is_read_no_further_than_max_inflight(
    serve: Serve, encoder: ColourEncoder
) -> None:
    async with (
        serve(max_inflight=2) as server,
        server.session() as client,
        server.session() as other,
    ):
        encoder.entered.clear()
        encoder.hold.clear()
        for seq in range(6):
            await client.frame(seq)
        await occurs(encoder.entered)
        await until(lambda: server.metric("ovoad_frames_received_total") == 2)
        for _ in range(20):
            await other.send(protocol.Ping())
            await other.expect(protocol.Pong)
        assert server.metric("ovoad_frames_received_total") == 2
        encoder.hold.set()
        assert [(await client.expect(protocol.Prediction)).seq for _ in range(6)] == [*range(6)]


# ---- events --------------------------------------------------------------------------------------


async def test_events_start_and_end_with_the_session_s_rule(serve: Serve) -> None:
    rule = {"enter": 0.8, "exit": 0.3, "min_duration_ms": 250}
    async with serve() as server, server.session(scorer="frame", events=rule) as client:
        colours = ["green", "red", "red", "green", "blue", "blue"]
        for seq, colour in enumerate(colours):
            await client.frame(seq, picture(colour))
        await client.send(protocol.SessionClose())
        messages = await client.rest()
        events = [
            (m.kind, m.label, m.timestamp_ms, m.start_ms)
            for m in messages
            if isinstance(m, protocol.Event)
        ]
        assert events == [
            ("start", "red", 500, 250),
            ("end", "red", 750, 250),
            ("start", "blue", 1250, 1000),
            ("end", "blue", 1250, 1000),
        ]
        assert [m.type for m in messages[-2:]] == ["event", "session.closed"]
