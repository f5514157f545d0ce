"""`ovoad serve --on ray`: start the application on Ray Serve, and end it in order.

Without RAY_ADDRESS it starts a Ray of its own on this machine, which ends with it.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final

from ovoad_server.listener import open_listener
from ovoad_server.on_ray.scale import Scale
from ovoad_server.settings import Settings

NAME: Final = "ovoad"
FLAGS: Final = ("host", "port", "encoder", "scorer", "weights", "runtime")
VARIABLES: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray's default of 15 is for work that can wait; replicas serve
    "RAY_USE_UVLOOP": "0",  # it cannot start the process that decodes clips as asyncio's loop can
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",  # calls cost half of what they do through Ray's tasks
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(256 * 2**20),  # windows, frames and words
    "OPENBLAS_NUM_THREADS": "1",  # as in `ovoad serve`
}
LOOPBACK_ALONE: Final = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # 0: on 127.0.0.1, on Linux too
OBJECT_STORE_BYTES: Final = 200 * 2**20  # of a Ray of our own: batches of windows pass through it


class OnRayError(Exception):
    """Ray is not installed, or cannot start the application; the text says why."""


def serve_on_ray(settings: Settings) -> None:
    """Serve until a signal; raises OSError and OnRayError."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
    if not os.environ.get("RAY_ADDRESS"):
        os.environ.setdefault(LOOPBACK_ALONE, "0")
    try:
        import ray
        from ray import serve
    except ImportError as error:
        raise OnRayError(
            f"Ray Serve cannot be imported ({error}), expected pip install 'ovoad[scale]'"
        ) from error
    from ovoad_server.on_ray.application import build

    scale = Scale()
    with _reserved_port(settings) as port:
        os.environ.update(_variables(settings, port))
        _start_ray(settings, scale, port)
        try:
            with _until_signal() as stopped:
                serve.start(proxy_location="Disabled")
                serve.run(build(scale), name=NAME, route_prefix=None)
                print(f"ovoad_server listening on http://{_host(settings)}:{port}", flush=True)
                stopped.wait()
                serve.delete(NAME)  # replicas drain
        except RuntimeError as error:
            raise OnRayError(f"Ray cannot start the application: {error}") from error
        finally:
            ray.shutdown()


def _start_ray(settings: Settings, scale: Scale, port: int) -> None:
    """Join the cluster of RAY_ADDRESS, or start Ray here."""
    import ray

    variables = {"env_vars": _variables(settings, port)}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(runtime_env=variables)
        return
    ray.init(
        address="local",
        num_cpus=max(os.cpu_count() or 1, int(scale.cpus_at_most) + 1),  # as Ray counts them
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
    )


@contextlib.contextmanager
def _reserved_port(settings: Settings) -> Iterator[int]:
    """Hold the port that the replicas will share; raises OSError where somebody listens there."""
    open_listener(settings).close()
    with open_listener(settings, shared=True) as held:  # bound only: it gets no connections
        yield held.getsockname()[1]


def _variables(settings: Settings, port: int) -> dict[str, str]:
    """Return the settings that flags may have set, as replicas read them. No secret among them."""
    values = {name: getattr(settings, name) for name in FLAGS} | {"port": port}
    given = {f"OVOAD_{name.upper()}": str(value) for name, value in values.items() if value}
    return given | {name: os.environ[name] for name in VARIABLES}


@contextlib.contextmanager
def _until_signal() -> Iterator[threading.Event]:
    """Set an event on the first SIGINT or SIGTERM; the second ends the process as usual."""
    stopped = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopped.set()
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    yield stopped


def _host(settings: Settings) -> str:
    return f"[{settings.host}]" if ":" in settings.host else settings.host
