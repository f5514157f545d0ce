"""Wrong keys: counted, slowed by address in bounded memory; right keys never are."""

import asyncio
import sys
import time

import httpx
import pytest
from starlette.datastructures import Address
from websockets.typing import Subprotocol

from ovoad_client import protocol
from ovoad_server.keys import wrong_keys
from ovoad_server.keys.wrong_keys import (
    FORGET_S,
    LONGEST_DELAY_S,
    MOST_WAITING,
    MOST_WAITING_OF_ONE,
    PLACES,
    WrongKeys,
    client_address,
    network_of,
)

from .harness import WAIT_S, Serve, Server, is_still_served, until
from .key_parts import as_key, get
from .resume_parts import Clock

RIGHT = "right-key-0123456789"
TEXT = "found no valid API key, expected the header Authorization: Bearer KEY"


def test_delay_doubles_up_to_a_bound() -> None:
    wrong = WrongKeys(now_s=Clock())
    delays = [wrong.next_delay_s("192.0.2.1") for _ in range(9)]
    assert delays[:6] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2])
    assert delays[6:] == pytest.approx([LONGEST_DELAY_S] * 3)


def test_doublings_are_forgotten_one_by_one() -> None:
    clock = Clock()
    wrong = WrongKeys(now_s=clock)
    for _ in range(20):
        wrong.next_delay_s("192.0.2.1")
    clock.now_s += 3 * FORGET_S
    assert wrong.next_delay_s("192.0.2.1") == pytest.approx(LONGEST_DELAY_S / 8)
    clock.now_s += 60 * FORGET_S
    assert wrong.next_delay_s("192.0.2.1") == pytest.approx(0.1)


def test_addresses_are_slowed_apart_and_networks_of_ipv6_together() -> None:
    wrong = WrongKeys(now_s=Clock())
    for _ in range(9):
        wrong.next_delay_s("192.0.2.1")
        wrong.next_delay_s("2001:db8::1")
    others = [wrong.next_delay_s(f"192.0.2.{n}") for n in range(2, 52)]
    assert sum(delay > 0.1 for delay in others) <= 5, "few share a place by chance"
    assert wrong.next_delay_s("2001:db8::ffff") == pytest.approx(LONGEST_DELAY_S)


def test_million_addresses_take_no_memory() -> None:
    wrong = WrongKeys(now_s=Clock())

    def size() -> int:
        return sum(sys.getsizeof(part) for part in vars(wrong).values())

    before = size()
    for number in range(20_000):
        wrong.next_delay_s(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert size() == before
    assert before < 24 * PLACES


async def test_waiting_answers_are_bounded_for_one_address_and_in_all() -> None:
    wrong = WrongKeys()
    addresses = [f"10.0.{n // 250}.{n % 250}" for n in range(4 * MOST_WAITING)]
    one = [asyncio.create_task(wrong.slow("192.0.2.1")) for _ in range(MOST_WAITING_OF_ONE + 5)]
    await asyncio.sleep(0)
    assert wrong.waiting == MOST_WAITING_OF_ONE
    many = [asyncio.create_task(wrong.slow(address)) for address in addresses]
    await asyncio.sleep(0)
    assert wrong.waiting == MOST_WAITING
    wrong.release()
    assert (await asyncio.gather(*one)).count(False) == 5
    assert (await asyncio.gather(*many)).count(True) == MOST_WAITING - MOST_WAITING_OF_ONE
    assert wrong.waiting == 0
    assert not wrong._waiting_at


async def test_client_that_leaves_gives_its_place_back() -> None:
    wrong = WrongKeys()
    waiting = asyncio.create_task(wrong.slow("192.0.2.1"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert wrong.waiting == 0


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("ovoad_secret in a header", "unknown"),
        ("", "unknown"),
    ],
)
def test_address_is_one_or_unknown(host: str, address: str) -> None:
    assert client_address(Address(host, 1)) == address
    assert client_address(None) == "unknown"
    assert network_of("2001:db8::1") == "2001:db8::/64"


# ---- over real sockets ---------------------------------------------------------------------------


async def guess(server: Server, secret: str) -> tuple[int, float]:
    """Ask with a key over HTTP; returns the status and the seconds that it took."""
    began_s = time.monotonic()
    answer = await get(server, "/v1/config", secret)
    return answer.status_code, time.monotonic() - began_s


async def guess_stream(server: Server, secret: str) -> tuple[protocol.Error, int]:
    """Connect with a key; returns the error and the close code."""
    async with server.connect(**as_key(secret)) as client:
        refused = await client.expect(protocol.Error)
        code, _ = await client.ended()
    return refused, code


async def test_guesses_one_after_the_other_take_at_least_the_sum(serve: Serve) -> None:
    async with serve(api_key=RIGHT) as server:
        began_s = time.monotonic()
        for number in range(2):
            assert (await guess(server, f"wrong-{number}"))[0] == 401
            refused, code = await guess_stream(server, f"wrong-{number}")
            assert (refused.code, refused.message, code) == ("unauthorised", TEXT, 4401)
        assert time.monotonic() - began_s >= 0.1 + 0.2 + 0.4 + 0.8


async def test_guesses_at_once_are_slowed_too_and_a_right_key_is_not(serve: Serve) -> None:
    async with serve(api_key=RIGHT) as server:
        guesses = [asyncio.create_task(guess(server, f"wrong-{n}")) for n in range(8)]
        await until(lambda: server.metric("ovoad_key_answers_waiting") >= 5)
        status, right_s = await guess(server, RIGHT)
        assert status == 200
        async with server.connect(**as_key(RIGHT)) as client:
            began_s = time.monotonic()
            await client.create()
            assert time.monotonic() - began_s < 1.0
            await is_still_served(client, 0)
            await client.close()
        assert right_s < 1.0
        assert not guesses[-1].done(), "the slow ones still wait"
        server.hub.key_check.wrong_keys.release()
        assert {status for status, _ in await asyncio.gather(*guesses)} == {401}
        assert server.metric("ovoad_key_failures_total", reason="unknown") == 8


@pytest.mark.slow
async def test_many_guesses_take_as_long_as_the_bounds_say(serve: Serve) -> None:
    """From one address at most 16 answers wait at once, and soon each of them waits 5 s."""
    async with serve(api_key=RIGHT) as server:
        began_s = time.monotonic()
        done = 0
        for _ in range(2):
            answers = await asyncio.gather(
                *(guess(server, f"wrong-{n}") for n in range(MOST_WAITING_OF_ONE))
            )
            assert {status for status, _ in answers} == {401}
            done += len(answers)
        assert time.monotonic() - began_s >= 2 * LONGEST_DELAY_S
        assert done == 32


async def test_guesses_beyond_the_bound_are_sent_away_untold(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wrong_keys, "MOST_WAITING_OF_ONE", 2)
    monkeypatch.setattr(wrong_keys, "FIRST_DELAY_S", 4.0)
    async with serve(api_key=RIGHT) as server:
        waiting = [asyncio.create_task(guess(server, "wrong")) for _ in range(2)]
        await until(lambda: server.metric("ovoad_key_answers_waiting") == 2)
        answer = await get(server, "/metrics", "wrong")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        assert answer.json() == {
            "error": {
                "code": "capacity",
                "message": "found 2 connections that wait after a wrong API key, expected fewer; "
                "try again later",
                "retry_after_ms": 5000,
            }
        }
        refused, code = await guess_stream(server, "wrong")
        assert (refused.code, refused.retry_after_ms, code) == ("capacity", 5000, 1013)
        assert (await guess(server, RIGHT))[0] == 200
        server.hub.key_check.wrong_keys.release()
        await asyncio.gather(*waiting)


async def test_failures_are_counted_by_reason_and_only_guesses_are_slowed(serve: Serve) -> None:
    async with serve(api_key=RIGHT) as server:
        began_s = time.monotonic()
        for _ in range(6):
            assert (await get(server, "/v1/config")).status_code == 401
        async with httpx.AsyncClient(timeout=WAIT_S, trust_env=False) as http:
            for scheme in ("Basic", "Bearer"):
                headers = {"Authorization": scheme}
                answer = await http.get(f"{server.url}/v1/config", headers=headers)
                assert answer.status_code == 401
        names = [Subprotocol("ovoad.key.r")]
        async with server.connect(subprotocols=names) as client:
            assert (await client.expect(protocol.Error)).code == "unauthorised"
        assert time.monotonic() - began_s < 3.0
        await guess(server, "wrong")
        counts = {
            reason: server.metric("ovoad_key_failures_total", reason=reason)
            for reason in ("missing", "malformed", "unknown")
        }
        assert counts == {"missing": 6, "malformed": 3, "unknown": 1}


async def test_server_that_stops_waits_for_no_slow_answer(serve: Serve) -> None:
    async with serve(api_key=RIGHT) as server:
        for _ in range(9):
            server.hub.key_check.wrong_keys.next_delay_s("127.0.0.1")
        guesses = [
            asyncio.create_task(guess(server, "wrong")),
            asyncio.create_task(guess_stream(server, "wrong")),
        ]
        await until(lambda: server.metric("ovoad_key_answers_waiting") == 2)
        began_s = time.monotonic()
        await server.hub.drain(serve_on_s=0.0, settle_s=1.0)
        await asyncio.gather(*guesses)
        assert time.monotonic() - began_s < LONGEST_DELAY_S / 2


async def test_server_without_a_key_counts_nobody(serve: Serve) -> None:
    async with serve() as server:
        assert (await get(server, "/v1/config", "whatever")).status_code == 200
        for reason in ("missing", "malformed", "unknown"):
            assert server.metric("ovoad_key_failures_total", reason=reason) == 0
