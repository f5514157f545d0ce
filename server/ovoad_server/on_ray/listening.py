"""Where an ingress replica listens: at a port that replicas of a machine share, and at its own.

Linux gives each new connection at the shared port to one of those that listen there. The own port,
the first free one above it, is for who means this replica: Prometheus, a balancer, a test.
"""

import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Final

from ovoad_server.listener import open_listener
from ovoad_server.settings import Settings

MOST_REPLICAS: Final = 256  # on one machine


class PortError(OSError):
    """No port to listen at; the text says why."""


@contextlib.contextmanager
def open_listeners(settings: Settings) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Bind the shared port and an own one; raises OSError."""
    if settings.port == 0:
        raise PortError("found port 0, expected one that all replicas of a machine can share")
    with open_listener(settings, shared=True) as shared, _open_own(settings) as own:
        yield shared, own


def own_settings(settings: Settings, own: socket.socket) -> Settings:
    """Return the settings of the replica at a port: what must be its own is named by the port."""
    port = own.getsockname()[1]
    return settings.model_copy(
        update={
            "events_folder": settings.events_folder / f"replica-{port}",
            "mqtt_device": f"{settings.mqtt_device}-{port}",
        }
    )


def _open_own(settings: Settings) -> socket.socket:
    """Take the first free port above the shared one.

    It listens at once: until then Linux would let another replica bind the same port.
    """
    last = min(settings.port + MOST_REPLICAS, 65535)
    for port in range(settings.port + 1, last + 1):
        try:
            listener = open_listener(settings.model_copy(update={"port": port}))
        except OSError as error:
            if not _is_taken(error.__cause__):  # open_listener names the cause
                raise
            continue
        try:
            listener.listen()
        except OSError as error:
            listener.close()
            if not _is_taken(error):
                raise
            continue
        return listener
    raise PortError(f"found no free port from {settings.port + 1} to {last}")


def _is_taken(error: BaseException | None) -> bool:
    return isinstance(error, OSError) and error.errno == errno.EADDRINUSE
