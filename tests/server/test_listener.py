"""The listening socket and uvicorn's settings."""

import socket

import pytest
from fastapi import FastAPI

from ovoad_server.listener import open_listener, uvicorn_config
from ovoad_server.settings import Settings


def test_port_0_takes_a_free_one_on_loopback() -> None:
    with open_listener(Settings(port=0)) as listener:
        host, port = listener.getsockname()
    assert host == "127.0.0.1"
    assert port > 0


def test_port_in_use_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = f"cannot bind 127.0.0.1:{port}: Address already in use"
        with pytest.raises(OSError, match=message):
            open_listener(Settings(port=port))


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_colons_in_the_host_mean_ipv6() -> None:
    try:
        listener = open_listener(Settings(host="::1", port=0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with listener:
        assert listener.family == socket.AF_INET6


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has it")
def test_peer_that_takes_nothing_is_cut_off_by_the_system() -> None:
    with open_listener(Settings(port=0, send_timeout_s=1.5)) as listener:
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1500


def test_session_that_is_not_read_for_long_is_not_taken_for_dead() -> None:
    assert uvicorn_config(FastAPI(), Settings()).ws_ping_interval is None


def test_largest_frame_fits_into_a_message_as_base64() -> None:
    settings = Settings(max_frame_bytes=3_000_000)
    assert uvicorn_config(FastAPI(), settings).ws_max_size > 4_000_000
