"""Limits of a key: sessions, frames/s and labels; for streams, clips and /v1/config."""

import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from ovoad_client import protocol

from .clip_parts import WORDS, error_of, send_clip, times, write_video
from .harness import NO_EVENTS, Client, ColourEncoder, Serve, error, is_still_served, until, words
from .key_parts import FIRST, OLD, SECOND, as_key, bearer, clips_are_over, get, key, keys_file
from .resume_parts import PARK_S, broken_off, hold_first

CREATE: dict[str, Any] = {
    "type": "session.create",
    "vocabulary": {"labels": ["red", "blue"]},
    "policy": "lossless",
    "events": NO_EVENTS,
}


async def is_over_its_limit(client: Client, found: int, limit: int) -> None:
    """Ask for a session; the key has as many as it may have."""
    await client.send(CREATE)
    assert await client.receive() == protocol.Error(
        code="capacity",
        message=f"found {found} sessions of key door open, expected fewer than {limit}, "
        "the limit of this key; try again later",
        fatal=True,
        transient=True,
        retry_after_ms=5000,
    )
    assert await client.ended() == (protocol.CLOSE_CAPACITY, "capacity")


# ---- sessions ------------------------------------------------------------------------------------


async def test_session_above_the_key_s_limit_is_refused_other_keys_are_not(
    serve: Serve, tmp_path: Path
) -> None:
    path = keys_file(tmp_path, key("door", FIRST, sessions=2), key("yard", SECOND))
    async with serve(keys_file=path, api_key=SecretStr(OLD)) as server:
        async with (
            server.connect(**as_key(FIRST)) as one,
            server.connect(**as_key(FIRST)) as two,
        ):
            await one.create()
            await two.create()
            async with server.connect(**as_key(FIRST)) as three:
                await is_over_its_limit(three, 2, 2)
            for secret in (SECOND, OLD):
                async with server.connect(**as_key(secret)) as other:
                    await other.create()
                    await other.close()
            await one.close()
            await until(lambda: server.hub.slots.used == 1)
            async with server.connect(**as_key(FIRST)) as three:
                await three.create()
                await is_still_served(three, 0)
                await three.close()
            await is_still_served(two, 0)
            await two.close()
        await server.is_empty()
        assert server.metric("ovoad_sessions_rejected_total", reason="capacity") == 1


async def test_refused_words_cost_no_session_of_the_key(serve: Serve, tmp_path: Path) -> None:
    path = keys_file(tmp_path, key("door", FIRST, sessions=1, labels=1))
    async with serve(keys_file=path) as server:
        for _ in range(3):
            async with server.connect(**as_key(FIRST)) as client:
                await client.send(CREATE)
                assert (await client.expect(protocol.Error)).code == "bad_vocabulary"
        async with server.connect(**as_key(FIRST)) as client:
            await client.create(["red"])


async def test_parked_session_counts_and_can_be_resumed_at_the_limit(
    serve: Serve, tmp_path: Path
) -> None:
    path = keys_file(tmp_path, key("door", FIRST, sessions=1))
    async with serve(keys_file=path, resume_s=PARK_S) as server:
        async with server.connect(**as_key(FIRST)) as client:
            created = await client.create()
            await broken_off(server, client)
        async with server.connect(**as_key(FIRST)) as client:
            await is_over_its_limit(client, 1, 1)
        async with server.connect(**as_key(FIRST)) as client:
            again = await client.create(resume={"token": created.resume_token})
            assert again.resumed
            await client.close()


async def test_page_that_is_loaded_anew_gets_the_session_that_it_left(
    serve: Serve, tmp_path: Path
) -> None:
    path = keys_file(tmp_path, key("door", FIRST, sessions=1))
    async with serve(keys_file=path, resume_s=PARK_S) as server:
        async with server.connect(**as_key(FIRST)) as client:
            await client.create()
            await client.socket.close(1001)
            await until(lambda: server.hub.parked == 1)
        async with server.connect(**as_key(FIRST)) as client:
            await client.create()
            await client.close()
        await server.is_empty()


async def test_connections_that_say_nothing_are_bounded_by_the_limit_too(
    serve: Serve, tmp_path: Path
) -> None:
    path = keys_file(tmp_path, key("door", FIRST, sessions=2))
    async with serve(keys_file=path, max_sessions=4) as server:
        async with server.connect(**as_key(FIRST)), server.connect(**as_key(FIRST)):
            await until(lambda: server.hub.slots.used == 2)
            async with server.connect(**as_key(FIRST)) as third:
                refused = await third.expect(protocol.Error)
                assert (refused.code, refused.retry_after_ms) == ("capacity", 5000)
        await server.is_empty()
        async with server.connect(**as_key(FIRST)) as client:
            await client.create()


async def test_clips_and_streams_share_the_sessions_of_a_key(serve: Serve, tmp_path: Path) -> None:
    content = write_video(tmp_path / "a.mp4", ["red"] * 4).read_bytes()
    path = keys_file(tmp_path, key("door", FIRST, sessions=1))
    async with serve(keys_file=path, clip_spool=tmp_path / "spool") as server:
        async with server.connect(**as_key(FIRST)) as client:
            await client.create()
            answer = await send_clip(server, content, headers=bearer(FIRST))
            assert answer.status_code == 503
            assert error_of(answer) == {
                "code": "capacity",
                "message": "found 1 sessions of key door open, expected fewer than 1, the limit "
                "of this key; try again later",
                "retry_after_ms": 5000,
            }
            await client.close()
        await server.is_empty()
        for _ in range(2):
            answer = await send_clip(server, content, headers=bearer(FIRST))
            assert times(answer) == [0, 250, 500, 750]
        await clips_are_over(server)
        assert not server.hub.key_slots._used


# ---- labels --------------------------------------------------------------------------------------


async def test_labels_above_the_key_s_limit_are_refused(serve: Serve, tmp_path: Path) -> None:
    content = write_video(tmp_path / "a.mp4", ["red"] * 4).read_bytes()
    path = keys_file(tmp_path, key("door", FIRST, labels=2), key("yard", SECOND))
    text = "found 3 labels, expected at most 2"
    async with serve(keys_file=path, clip_spool=tmp_path / "spool") as server:
        three = words("red", "blue", "green")
        async with server.connect(**as_key(FIRST)) as client:
            await client.send({**CREATE, "vocabulary": three})
            assert await client.receive() == error("bad_vocabulary", text, fatal=True)
        async with server.connect(**as_key(FIRST)) as client:
            assert (await client.create()).limits.max_labels == 2
            await client.send({"type": "vocabulary.update", "vocabulary": three})
            assert await client.receive() == error("bad_vocabulary", text)
            await is_still_served(client, 0)
        async with server.connect(**as_key(SECOND)) as client:
            await client.create(["red", "blue", "green"])
        clip = await send_clip(server, content, words={"vocabulary": three}, headers=bearer(FIRST))
        assert (clip.status_code, error_of(clip)["message"]) == (422, text)


async def test_key_allows_no_more_labels_than_the_server(serve: Serve, tmp_path: Path) -> None:
    path = keys_file(tmp_path, key("door", FIRST, labels=5000, fps=1000))
    async with (
        serve(keys_file=path, max_labels=2, max_fps=30.0) as server,
        server.connect(**as_key(FIRST)) as client,
    ):
        limits = (await client.create()).limits
        assert (limits.max_labels, limits.max_fps) == (2, 30.0)


# ---- frames a second -----------------------------------------------------------------------------


async def test_frames_above_the_key_s_rate_are_thinned_as_those_above_the_server_s(
    serve: Serve, tmp_path: Path
) -> None:
    path = keys_file(tmp_path, key("door", FIRST, fps=1))
    async with serve(keys_file=path) as server, server.connect(**as_key(FIRST)) as client:
        created = await client.create(policy="realtime")
        assert created.limits.max_fps == 1.0
        for seq in range(2):  # the second may make up for the time before the first
            await is_still_served(client, seq)
        for seq in range(2, 6):
            await client.frame(seq)
        await client.send(protocol.SessionClose())
        closed = (await client.rest())[-1]
        assert isinstance(closed, protocol.SessionClosed)
        assert closed.dropped.rate == 3
        assert closed.predicted == 3, "of a burst the newest is answered"


async def test_lossless_frames_above_the_key_s_rate_wait_and_none_is_lost(
    serve: Serve, tmp_path: Path
) -> None:
    path = keys_file(tmp_path, key("door", FIRST, fps=10))
    async with serve(keys_file=path) as server, server.connect(**as_key(FIRST)) as client:
        await client.create(policy="lossless")
        began_s = time.monotonic()
        for seq in range(6):
            await client.frame(seq)
        await client.send(protocol.SessionClose())
        closed = (await client.rest())[-1]
        took_s = time.monotonic() - began_s
    assert isinstance(closed, protocol.SessionClosed)
    assert closed.predicted == 6
    assert took_s >= 0.39, "the first two may leave at once, four wait a tenth of a second each"


@pytest.mark.parametrize(("asked", "fps"), [(None, 2.0), (1.0, 1.0), (2.0, 2.0)])
async def test_clip_is_sampled_within_the_key_s_rate(
    serve: Serve, tmp_path: Path, asked: float | None, fps: float
) -> None:
    content = write_video(tmp_path / "a.mp4", ["red"] * 8).read_bytes()
    path = keys_file(tmp_path, key("door", FIRST, fps=2))
    request = WORDS if asked is None else {**WORDS, "fps": asked}
    async with serve(keys_file=path, clip_spool=tmp_path / "spool") as server:
        answer = await send_clip(server, content, words=request, headers=bearer(FIRST))
        assert answer.json()["opened"]["fps"] == fps
        assert times(answer)[:2] == [0, round(1000 / fps)]
        await clips_are_over(server)


async def test_clip_asked_for_above_the_key_s_rate_is_refused(serve: Serve, tmp_path: Path) -> None:
    content = write_video(tmp_path / "a.mp4", ["red"] * 8).read_bytes()
    path = keys_file(tmp_path, key("door", FIRST, fps=2))
    async with serve(keys_file=path, clip_spool=tmp_path / "spool") as server:
        answer = await send_clip(
            server, content, words={**WORDS, "fps": 2.5}, headers=bearer(FIRST)
        )
        assert answer.status_code == 422
        assert error_of(answer) == {
            "code": "bad_request",
            "message": "fps: found 2.5, expected at most 2, the limit of this key",
        }
        await server.is_empty()


# ---- what is told --------------------------------------------------------------------------------


async def test_config_tells_what_each_key_is_granted(serve: Serve, tmp_path: Path) -> None:
    path = keys_file(tmp_path, key("door", FIRST, fps=2.5, labels=7), key("yard", SECOND))
    async with serve(keys_file=path) as server:
        door = (await get(server, "/v1/config", FIRST)).json()["limits"]
        yard = (await get(server, "/v1/config", SECOND)).json()["limits"]
        assert (door["max_fps"], door["max_labels"]) == (2.5, 7)
        assert (yard["max_fps"], yard["max_labels"]) == (60.0, 1000)
        async with server.connect(**as_key(FIRST)) as client:
            assert (await client.create()).limits.model_dump() == door


async def test_every_key_opens_every_route_and_the_page_asks_for_one(
    serve: Serve, tmp_path: Path
) -> None:
    path = keys_file(tmp_path, key("door", FIRST))
    async with serve(keys_file=path, api_key=SecretStr(OLD)) as server:
        for secret in (FIRST, OLD):
            for route in ("/v1/config", "/metrics"):
                assert (await get(server, route, secret)).status_code == 200
        assert (await get(server, "/page.json")).json()["key_required"] is True


async def test_frames_held_by_one_key_leave_the_counts_right(
    serve: Serve, tmp_path: Path, encoder: ColourEncoder
) -> None:
    path = keys_file(tmp_path, key("door", FIRST, sessions=1))
    async with serve(keys_file=path) as server:
        async with server.connect(**as_key(FIRST)) as client:
            await client.create()
            await hold_first(client, encoder, 0, 1)
            client.break_off()
        encoder.hold.set()
        await server.is_empty()
        async with server.connect(**as_key(FIRST)) as client:
            await client.create()
