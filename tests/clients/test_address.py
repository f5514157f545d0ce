"""Tests of the forms of a server's address."""

import pytest

from ovoad_client.address import is_loopback, stream_address
from ovoad_client.errors import UsageError


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ws://10.0.0.1:8000/v1/stream", "ws://10.0.0.1:8000/v1/stream"),
        ("http://localhost:8000", "ws://localhost:8000/v1/stream"),
        ("http://localhost:8000/", "ws://localhost:8000/v1/stream"),
        ("https://example.org", "wss://example.org/v1/stream"),
        ("wss://example.org/cameras/v1/stream", "wss://example.org/cameras/v1/stream"),
        ("127.0.0.1:9000", "ws://127.0.0.1:9000/v1/stream"),
        ("[::1]:9000", "ws://[::1]:9000/v1/stream"),
    ],
)
def test_an_address_may_be_written_in_several_forms(url: str, expected: str) -> None:
    assert stream_address(url) == expected


@pytest.mark.parametrize("url", ["ftp://host:1", "", "ws://", "host:port", "ws://h:99999"])
def test_an_address_that_cannot_be_says_what_is_expected(url: str) -> None:
    with pytest.raises(UsageError, match=r"found server address .*expected ws://HOST:PORT"):
        stream_address(url)


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match="found a user name in the server address") as caught:
        stream_address("ws://me:hunter2@host:1")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("ws://127.0.0.1:1/", True),
        ("ws://localhost/", True),
        ("ws://[::1]:8/", True),
        ("ws://10.0.0.1/", False),
        ("ws://example.org/", False),
    ],
)
def test_loopback_is_known(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected
