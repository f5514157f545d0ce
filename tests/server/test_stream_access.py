"""Who may connect: keys, origins of pages, capacity; over real sockets."""

import base64
import logging

import pytest
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from ovoad_client import protocol

from .harness import Serve, error, is_still_served, until


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Basic right", "right", "Bearer "])
async def test_wrong_key_is_told_and_closed_with_4401(serve: Serve, header: str | None) -> None:
    async with serve(api_key="right") as server:
        headers = {} if header is None else {"Authorization": header}
        async with server.connect(additional_headers=headers) as client:
            text = "found no valid API key, expected the header Authorization: Bearer KEY"
            assert await client.receive() == error("unauthorised", text, fatal=True)
            assert await client.ended() == (protocol.CLOSE_UNAUTHORISED, "unauthorised")
        async with server.connect(additional_headers={"Authorization": "Bearer right"}) as client:
            await client.create()
            await is_still_served(client, 0)


def as_subprotocol(key: str) -> Subprotocol:
    """Return the key as a page offers it."""
    return Subprotocol("ovoad.key." + base64.urlsafe_b64encode(key.encode()).decode().rstrip("="))


@pytest.mark.parametrize("key_first", [True, False])
async def test_key_as_a_subprotocol_is_let_in_and_never_echoed(
    serve: Serve, caplog: pytest.LogCaptureFixture, key_first: bool
) -> None:
    caplog.set_level(logging.INFO)
    offered = [as_subprotocol("right"), Subprotocol(protocol.SUBPROTOCOL)]
    async with (
        serve(api_key="right") as server,
        server.connect(
            subprotocols=offered if key_first else offered[::-1], origin=server.url
        ) as client,
    ):
        assert client.socket.subprotocol == protocol.SUBPROTOCOL
        assert client.socket.response is not None
        for text in ("right", as_subprotocol("right")):
            assert text not in str(client.socket.response.headers)
            assert text not in caplog.text
        await client.create()
        await is_still_served(client, 0)


@pytest.mark.parametrize("key", ["right", "wrong"])
async def test_key_that_is_the_only_subprotocol_is_not_accepted_as_one(
    serve: Serve, key: str
) -> None:
    async with (
        serve(api_key="right") as server,
        server.connect(subprotocols=[as_subprotocol(key)]) as client,
    ):
        assert client.socket.subprotocol is None
        if key == "right":
            await client.create()
        else:
            assert (await client.expect(protocol.Error)).code == "unauthorised"


@pytest.mark.parametrize(
    "offered",
    [
        as_subprotocol("wrong"),
        as_subprotocol("Right"),
        Subprotocol("ovoad.key."),
        Subprotocol("ovoad.key.r"),
        Subprotocol("ovoad.key.right"),
    ],
)
async def test_wrong_key_as_a_subprotocol_is_told_and_closed_with_4401(
    serve: Serve, offered: Subprotocol
) -> None:
    async with serve(api_key="right") as server:
        names = [Subprotocol(protocol.SUBPROTOCOL), offered]
        async with server.connect(subprotocols=names) as client:
            assert client.socket.subprotocol == protocol.SUBPROTOCOL
            text = "found no valid API key, expected the header Authorization: Bearer KEY"
            assert await client.receive() == error("unauthorised", text, fatal=True)
            assert await client.ended() == (protocol.CLOSE_UNAUTHORISED, "unauthorised")
        assert server.metric("ovoad_sessions_rejected_total", reason="unauthorised") == 1
        await server.is_empty()


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", "http://[", "x"])
async def test_page_from_elsewhere_is_refused(serve_undisturbed: Serve, origin: str) -> None:
    async with serve_undisturbed() as server:
        with pytest.raises(InvalidStatus) as refused:
            async with server.connect(origin=origin):
                pass
        assert refused.value.response.status_code == 403
        assert server.metric("ovoad_sessions_rejected_total", reason="origin") == 1


async def test_foreign_name_made_to_point_here_is_refused(serve_undisturbed: Serve) -> None:
    async with serve_undisturbed() as server:
        port = server.address.rpartition(":")[2]
        rebound = f"rebound.example:{port}"
        with pytest.raises(InvalidStatus) as refused:
            async with server.connect_as(rebound, origin=f"http://{rebound}"):
                pass
        assert refused.value.response.status_code == 403
        assert server.metric("ovoad_sessions_rejected_total", reason="origin") == 1
        own = f"localhost:{port}"
        async with server.connect_as(own, origin=f"http://{own}") as client:
            await client.create()


async def test_own_and_listed_pages_are_let_in(serve: Serve) -> None:
    async with serve(allowed_origins=("https://friend.example",)) as server:
        for origin in ("https://friend.example", server.url):
            async with server.connect(origin=origin) as client:
                await client.create()


async def test_session_above_capacity_is_told_to_come_back(serve_undisturbed: Serve) -> None:
    async with serve_undisturbed(max_sessions=2) as server:
        async with server.session() as second:
            async with server.connect() as client:
                assert await client.receive() == protocol.Error(
                    code="capacity",
                    message="found 2 sessions open, expected fewer than 2; try again later",
                    fatal=True,
                    transient=True,
                    retry_after_ms=5000,
                )
                assert await client.ended() == (protocol.CLOSE_CAPACITY, "capacity")
            assert server.metric("ovoad_sessions_rejected_total", reason="capacity") == 1
            await is_still_served(second, 0)
        await until(lambda: server.metric("ovoad_sessions_active") == 1)
        async with server.session() as client:
            await is_still_served(client, 0)
