"""A key is revoked while its sessions live: told, ended with 4401, freed; the others go on."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from ovoad_client import protocol
from ovoad_client.client import connect as connect_client
from ovoad_client.errors import RefusedError, UnauthorisedError
from ovoad_server.ends import REVOKED_GRACE_S
from ovoad_server.keys import keyring

from .clip_parts import NDJSON, lines, parts_of, send_clip, write_video
from .harness import WAIT_S, Client, ColourEncoder, Serve, is_still_served, occurs, until
from .key_parts import (
    FIRST,
    SECOND,
    as_key,
    bearer,
    clips_are_over,
    follow_closely,
    get,
    key,
    keys_file,
)
from .resume_parts import PARK_S, broken_off, hold_first

DOOR, YARD = key("door", FIRST), key("yard", SECOND)
GOAWAY = protocol.GoAway(reason="key_revoked", time_left_ms=int(REVOKED_GRACE_S * 1000))
REVOKED = "found that the API key of this session was revoked, expected a valid one"


@pytest.fixture(autouse=True)
def closely(monkeypatch: pytest.MonkeyPatch) -> None:
    follow_closely(monkeypatch)


def is_revoked(message: protocol.ServerMessage) -> bool:
    """Tell whether this is the last word to the session of a revoked key."""
    return message == protocol.Error(
        code="unauthorised", message=REVOKED, fatal=True, transient=False
    )


async def sees_its_end(client: Client) -> None:
    """Read goaway, the error and the close."""
    assert await client.receive() == GOAWAY
    assert is_revoked(await client.receive())
    assert await client.ended() == (protocol.CLOSE_UNAUTHORISED, "key_revoked")


async def test_session_of_a_revoked_key_is_told_and_closed_the_other_goes_on(
    serve: Serve, tmp_path: Path
) -> None:
    path = keys_file(tmp_path, DOOR, YARD)
    async with (
        serve(keys_file=path) as server,
        server.connect(**as_key(FIRST)) as door,
        server.connect(**as_key(SECOND)) as yard,
    ):
        for client in (door, yard):
            await client.create()
            await is_still_served(client, 0)
        keys_file(tmp_path, YARD)
        await sees_its_end(door)
        await is_still_served(yard, 1)
        async with server.connect(**as_key(FIRST)) as client:
            assert (await client.expect(protocol.Error)).code == "unauthorised"
        await yard.close()
        await server.is_empty()
        assert server.hub.key_slots.used(DOOR) == 0
        assert server.metric("ovoad_sessions_ended_total", reason="key_revoked") == 1
        assert server.metric("ovoad_keys") == 1


async def test_at_the_usual_pace_it_takes_less_than_three_seconds(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "LOOK_EVERY_S", 1.0)
    path = keys_file(tmp_path, DOOR)
    async with serve(keys_file=path) as server, server.connect(**as_key(FIRST)) as client:
        await client.create()
        began_s = time.monotonic()
        keys_file(tmp_path)
        await sees_its_end(client)
        assert time.monotonic() - began_s < 3.0


async def test_frames_are_answered_until_the_end_each_once(
    serve: Serve, tmp_path: Path, encoder: ColourEncoder
) -> None:
    path = keys_file(tmp_path, DOOR)
    async with serve(keys_file=path) as server, server.connect(**as_key(FIRST)) as client:
        await client.create()
        await hold_first(client, encoder, 0, 1, 2)
        keys_file(tmp_path)
        assert await client.receive() == GOAWAY
        encoder.hold.set()
        await client.frame(3)
        messages = await client.rest()
        assert is_revoked(messages[-1])
        answered = [
            m.seq for m in messages if isinstance(m, protocol.Prediction | protocol.FrameDropped)
        ]
        assert sorted(answered) == [0, 1, 2, 3]
        assert isinstance(messages[0], protocol.Prediction)
        await server.is_empty()


async def test_frames_that_the_worker_holds_are_dropped_in_the_end(
    serve: Serve, tmp_path: Path, encoder: ColourEncoder
) -> None:
    path = keys_file(tmp_path, DOOR)
    async with serve(keys_file=path) as server, server.connect(**as_key(FIRST)) as client:
        await client.create()
        await hold_first(client, encoder, 0, 1, 2)
        keys_file(tmp_path)
        messages = await client.rest()
        dropped = [m.seq for m in messages if isinstance(m, protocol.FrameDropped)]
        assert sorted(dropped) == [0, 1, 2]
        assert is_revoked(messages[-1])
        encoder.hold.set()
        await server.is_empty()


async def test_parked_session_is_freed_at_once(serve: Serve, tmp_path: Path) -> None:
    path = keys_file(tmp_path, DOOR)
    async with serve(keys_file=path, resume_s=PARK_S) as server:
        async with server.connect(**as_key(FIRST)) as client:
            await client.create()
            await broken_off(server, client)
        keys_file(tmp_path)
        await until(lambda: server.hub.slots.used == 0)
        assert not server.hub.sessions
        assert server.hub.engine.sessions == 0
        assert server.metric("ovoad_sessions_ended_total", reason="key_revoked") == 1


async def test_connection_that_breaks_after_goaway_leaves_nothing(
    serve: Serve, tmp_path: Path
) -> None:
    path = keys_file(tmp_path, DOOR)
    async with serve(keys_file=path, resume_s=PARK_S) as server:
        async with server.connect(**as_key(FIRST)) as client:
            await client.create()
            keys_file(tmp_path)
            assert await client.receive() == GOAWAY
            client.break_off()
        await server.is_empty()


async def test_key_replaced_under_its_name_ends_the_sessions_of_the_old_one(
    serve: Serve, tmp_path: Path
) -> None:
    path = keys_file(tmp_path, DOOR)
    async with serve(keys_file=path) as server, server.connect(**as_key(FIRST)) as client:
        await client.create()
        keys_file(tmp_path, key("door", SECOND))
        await sees_its_end(client)
        async with server.connect(**as_key(SECOND)) as again:
            await again.create()


async def test_change_of_limits_ends_nobody_and_holds_for_new_sessions(
    serve: Serve, tmp_path: Path
) -> None:
    path = keys_file(tmp_path, DOOR)
    async with serve(keys_file=path) as server, server.connect(**as_key(FIRST)) as client:
        assert (await client.create()).limits.max_fps == 60.0
        keys_file(tmp_path, key("door", FIRST, fps=2, sessions=1))
        await until(lambda: server.hub.keyring.find(FIRST.encode()) != DOOR)
        await is_still_served(client, 0)
        async with server.connect(**as_key(FIRST)) as second:
            await second.send({"type": "session.create", "vocabulary": {"labels": ["red"]}})
            assert (await second.expect(protocol.Error)).code == "capacity"
        await client.close()
        await until(lambda: server.hub.slots.used == 0)
        async with server.connect(**as_key(FIRST)) as third:
            assert (await third.create()).limits.max_fps == 2.0


async def test_key_revoked_before_the_first_message_opens_nothing(
    serve: Serve, tmp_path: Path
) -> None:
    path = keys_file(tmp_path, DOOR, YARD)
    async with serve(keys_file=path) as server, server.connect(**as_key(FIRST)) as client:
        await until(lambda: server.hub.slots.used == 1)
        keys_file(tmp_path, YARD)
        await until(lambda: len(server.hub.keyring) == 1)
        await client.send({"type": "session.create", "vocabulary": {"labels": ["red"]}})
        assert is_revoked(await client.receive())
        assert await client.ended() == (protocol.CLOSE_UNAUTHORISED, "unauthorised")
        await server.is_empty()


async def test_key_revoked_while_the_words_are_embedded_opens_nothing(
    serve: Serve, tmp_path: Path, encoder: ColourEncoder
) -> None:
    path = keys_file(tmp_path, DOOR)
    async with serve(keys_file=path) as server, server.connect(**as_key(FIRST)) as client:
        encoder.entered_text.clear()
        encoder.hold_text.clear()
        await client.send({"type": "session.create", "vocabulary": {"labels": ["blue"]}})
        await occurs(encoder.entered_text)
        keys_file(tmp_path)
        await until(lambda: len(server.hub.keyring) == 0)
        encoder.hold_text.set()
        assert is_revoked(await client.receive())
        assert await client.ended() == (protocol.CLOSE_UNAUTHORISED, "unauthorised")
        await server.is_empty()
        assert server.hub.key_slots.used(DOOR) == 0


# ---- resuming ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("secret", "resumed"), [(FIRST, True), (SECOND, False)])
async def test_session_is_resumed_with_a_key_of_its_name_alone(
    serve: Serve, tmp_path: Path, secret: str, resumed: bool
) -> None:
    path = keys_file(tmp_path, DOOR, YARD)
    async with serve(keys_file=path, resume_s=PARK_S) as server:
        async with server.connect(**as_key(FIRST)) as client:
            created = await client.create()
            await broken_off(server, client)
        async with server.connect(**as_key(secret)) as client:
            again = await client.create(resume={"token": created.resume_token})
            assert again.resumed is resumed
            await is_still_served(client, 0)
        if not resumed:
            assert created.resume_token in server.hub.sessions, "it waits for its own key"


# ---- clips and clients ---------------------------------------------------------------------------


async def test_clip_of_a_revoked_key_breaks_off_and_says_why(
    serve: Serve, tmp_path: Path, encoder: ColourEncoder
) -> None:
    content = write_video(tmp_path / "a.mp4", ["red", "blue"] * 40).read_bytes()
    path = keys_file(tmp_path, DOOR)
    async with serve(keys_file=path, clip_spool=tmp_path / "spool") as server:
        for headers in (NDJSON, {}):
            encoder.entered.clear()
            encoder.hold.clear()
            asking = asyncio.create_task(
                send_clip(server, content, headers={**headers, **bearer(FIRST)})
            )
            await occurs(encoder.entered)
            keys_file(tmp_path)
            await until(lambda: len(server.hub.keyring) == 0)
            answer = await asking
            encoder.hold.set()
            if headers:
                last = lines(answer)[-1]
                assert (last["type"], last["code"], last["message"]) == (
                    "error",
                    "unauthorised",
                    REVOKED,
                )
            else:
                assert answer.status_code == 401
                assert answer.headers["www-authenticate"] == "Bearer"
                assert answer.json()["error"]["message"] == REVOKED
            await clips_are_over(server)
            keys_file(tmp_path, DOOR)
            await until(lambda: len(server.hub.keyring) == 1)
        assert server.metric("ovoad_sessions_ended_total", reason="key_revoked") == 2


async def test_clip_whose_key_is_revoked_during_the_upload_is_not_scored(
    serve: Serve, tmp_path: Path
) -> None:
    content = write_video(tmp_path / "a.mp4", ["red"] * 4).read_bytes()
    path = keys_file(tmp_path, DOOR)
    async with serve(keys_file=path, clip_spool=tmp_path / "spool") as server:
        async with httpx.AsyncClient(timeout=WAIT_S, trust_env=False) as http:
            request = http.build_request(
                "POST",
                f"{server.url}/v1/clips",
                files=parts_of(content),
                headers=bearer(FIRST),
            )
            body = request.read()

            async def slowly() -> AsyncIterator[bytes]:
                yield body[: len(body) // 2]
                keys_file(tmp_path)
                await until(lambda: len(server.hub.keyring) == 0)
                yield body[len(body) // 2 :]

            answer = await http.post(
                f"{server.url}/v1/clips",
                content=slowly(),
                headers={"Content-Type": request.headers["content-type"], **bearer(FIRST)},
            )
        assert answer.status_code == 401
        assert answer.json()["error"]["message"] == REVOKED
        await clips_are_over(server)


async def test_python_client_takes_it_for_final_and_says_why(serve: Serve, tmp_path: Path) -> None:
    path = keys_file(tmp_path, DOOR)
    async with serve(keys_file=path) as server:
        heard: list[object] = []

        async def watch() -> None:
            async with connect_client(server.address, ["red"], api_key=FIRST) as stream:
                keys_file(tmp_path)
                async for message in stream:
                    heard.append(message)

        with pytest.raises(RefusedError) as refused:
            await watch()
        assert heard[0] == GOAWAY
        assert "Reconnecting" not in {type(each).__name__ for each in heard}
        assert str(refused.value) == f"server refused: {REVOKED} (unauthorised)"
        with pytest.raises(UnauthorisedError, match="the API key is not the server's"):
            async with connect_client(server.address, ["red"], api_key=FIRST):
                pass


async def test_config_of_a_revoked_key_is_refused(serve: Serve, tmp_path: Path) -> None:
    path = keys_file(tmp_path, DOOR)
    async with serve(keys_file=path) as server:
        assert (await get(server, "/v1/config", FIRST)).status_code == 200
        keys_file(tmp_path)
        await until(lambda: len(server.hub.keyring) == 0)
        assert (await get(server, "/v1/config", FIRST)).status_code == 401
        assert (await get(server, "/v1/config")).status_code == 401, "without keys it is not open"
