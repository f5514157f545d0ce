"""How the server listens: its socket, and what uvicorn is told. Knows no route."""

import socket

import uvicorn
from fastapi import FastAPI

from ovoad_server.settings import Settings


def open_listener(settings: Settings, *, shared: bool = False) -> socket.socket:
    """Bind before the model loads, so that a port in use is told at once; raises OSError.

    shared: other processes of this user may listen there too, and Linux shares out connections.
    A peer that takes nothing for `send_timeout_s` is cut off by the system, so that a client that
    stops reading holds no connection (Linux: RFC 5482's user timeout).
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    user_timeout = getattr(socket, "TCP_USER_TIMEOUT", None)
    if user_timeout is not None:
        timeout_ms = max(1, int(settings.send_timeout_s * 1000))
        listener.setsockopt(socket.IPPROTO_TCP, user_timeout, timeout_ms)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise OSError(f"cannot bind {settings.host}:{settings.port}: {error.strerror}") from error
    return listener


def uvicorn_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Return uvicorn's settings.

    No keepalive pings: while a lossless session is read no further, the pong waits behind its
    frames, and uvicorn would take the client for dead. `idle_timeout_s` and the user timeout end
    what is dead indeed.
    """
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        http="h11",  # whatever else is installed: one parser, the one that is tested
        ws="websockets-sansio",
        ws_max_size=settings.max_frame_bytes * 4 // 3 + 65_536,
        ws_ping_interval=None,
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=10,
    )
