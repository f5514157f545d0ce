"""Keys and origins: who may connect."""

import base64
from collections.abc import Sequence

import pytest

from ovoad_server.auth import origin_allowed, presented_key, tries_a_key

HOST = "127.0.0.1:8000"


def key_matches(headers: dict[str, str], key: str, *, subprotocols: Sequence[str] = ()) -> bool:
    """Tell whether a request presents this key."""
    return presented_key(headers, subprotocols) == key.encode()


@pytest.mark.parametrize(
    "header", ["Bearer right", "bearer right", "BEARER right", "Bearer  right"]
)
def test_bearer_token_matches(header: str) -> None:
    assert key_matches({"authorization": header}, "right")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "right",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        "Bearer righ",
        "Bearer rightt",
        "Bearer Right",
        "Basic right",
        "Bearer right right",
    ],
)
def test_anything_else_does_not_match(header: str) -> None:
    assert not key_matches({"authorization": header}, "right")
    assert not key_matches({}, "right")


def offer(key: bytes) -> str:
    return "ovoad.key." + base64.urlsafe_b64encode(key).decode().rstrip("=")


@pytest.mark.parametrize("key", ["k", "ke", "key", "right", "~~~???>>>", "ü"])
def test_key_as_a_subprotocol_matches(key: str) -> None:
    offered = offer(key.encode())
    assert "=" not in offered
    assert key_matches({}, key, subprotocols=[offered])
    assert key_matches({}, key, subprotocols=["ovoad.v1", offered])
    assert key_matches({}, key, subprotocols=[offered, "ovoad.v1"])


def test_key_as_a_subprotocol_is_base64url() -> None:
    assert key_matches({}, "??>>", subprotocols=["ovoad.key.Pz8-Pg"])
    assert key_matches({}, "???", subprotocols=["ovoad.key.Pz8_"])


@pytest.mark.parametrize(
    "subprotocol",
    [
        "ovoad.v1",
        "ovoad.key.",
        "ovoad.key.right",
        "ovoad.key.r",
        "ovoad.key.é",
        "right",
        offer(b""),
        offer(b"wrong"),
        offer(b"Right"),
        offer(b"righ"),
        offer(b"rightt"),
        offer(b"\xff"),
        offer(b"right").upper(),
        offer(b"right").replace("ovoad.key.", "ovoad.v1."),
    ],
)
def test_any_other_subprotocol_is_no_key(subprotocol: str) -> None:
    assert not key_matches({}, "right", subprotocols=[subprotocol])
    assert not key_matches({}, "right", subprotocols=["ovoad.v1", subprotocol])


def test_first_key_offered_is_the_one_that_counts() -> None:
    both = [offer(b"wrong"), offer(b"right")]
    assert not key_matches({}, "right", subprotocols=both)
    assert key_matches({}, "right", subprotocols=both[::-1])


def test_bearer_token_goes_before_the_subprotocol() -> None:
    wrong, right = {"authorization": "Bearer wrong"}, {"authorization": "Bearer right"}
    assert not key_matches(wrong, "right", subprotocols=[offer(b"right")])
    assert key_matches(right, "right", subprotocols=[offer(b"wrong")])


@pytest.mark.parametrize(
    ("headers", "subprotocols", "tries"),
    [
        ({}, [], False),
        ({"host": "x"}, ["ovoad.v1"], False),
        ({"authorization": "Basic x"}, [], True),
        ({"authorization": "Bearer"}, [], True),
        ({}, ["ovoad.v1", "ovoad.key.r"], True),
    ],
)
def test_request_that_means_to_present_a_key_is_known(
    headers: dict[str, str], subprotocols: list[str], tries: bool
) -> None:
    assert presented_key(headers, subprotocols) is None
    assert tries_a_key(headers, subprotocols) is tries


# ---- origins -----------------------------------------------------------------------------------


def may_connect(
    origin: str, *, host: str = HOST, bound: str = "127.0.0.1", allowed: Sequence[str] = ()
) -> bool:
    return origin_allowed({"host": host, "origin": origin}, allowed, bound=bound)


@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0"])
def test_program_without_origin_may_connect(bound: str) -> None:
    assert origin_allowed({"host": HOST}, [], bound=bound)
    assert origin_allowed({"host": "rebound.example:8000"}, [], bound=bound)


@pytest.mark.parametrize("bound", ["127.0.0.1", "::1", "localhost", "0.0.0.0"])
@pytest.mark.parametrize("host", [HOST, "localhost:8000", "[::1]:8000", "localhost"])
def test_own_page_may_connect(host: str, bound: str) -> None:
    assert may_connect(f"http://{host}", host=host, bound=bound)
    assert may_connect(f"https://{host}", host=host, bound=bound)


@pytest.mark.parametrize(
    "origin",
    [
        "https://elsewhere.example",
        "http://127.0.0.1:9000",
        "http://127.0.0.1",
        "http://localhost:8000",
        "null",
        "",
        "http://[",
        HOST,
        f"http://elsewhere.example/{HOST}",
        f"http://{HOST}.elsewhere.example",
        f"http://user@{HOST}",
    ],
)
@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0"])
def test_other_pages_may_not_connect(origin: str, bound: str) -> None:
    assert not may_connect(origin, bound=bound)


@pytest.mark.parametrize(
    "host",
    [
        "rebound.example:8000",
        "rebound.example",
        "localhost.rebound.example:8000",
        "127.0.0.1.rebound.example:8000",
        "localhost@rebound.example:8000",
        "192.168.1.7:8000",
        "0.0.0.0:8000",
    ],
)
@pytest.mark.parametrize("bound", ["127.0.0.1", "::1", "localhost"])
def test_foreign_name_made_to_point_to_loopback_may_not_connect(host: str, bound: str) -> None:
    assert not may_connect(f"http://{host}", host=host, bound=bound)
    assert may_connect(f"http://{host}", host=host, bound=bound, allowed=[f"http://{host}"])


def test_page_under_a_public_name_may_connect_where_the_bind_is_public() -> None:
    host = "camera.example:8000"
    assert may_connect(f"http://{host}", host=host, bound="0.0.0.0")
    assert not may_connect("http://elsewhere.example:8000", host=host, bound="0.0.0.0")


def test_listed_page_may_connect() -> None:
    origin = "https://friend.example"
    assert may_connect(origin, allowed=[origin])
    assert not may_connect(origin, allowed=["https://friend.example.org", "friend.example"])


@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize("headers", [{"origin": "null"}, {"origin": "null", "host": ""}])
def test_page_without_origin_matches_no_missing_host(headers: dict[str, str], bound: str) -> None:
    assert not origin_allowed(headers, [], bound=bound)
