"""The servers that are compared: one process, or the same application on Ray Serve."""

import contextlib
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from on_ray.processes import end, until_gone
from ovoad_client.bench.own_server import bench_server
from ovoad_client.bench.resources import descendants

SESSIONS = 256


@dataclass(frozen=True)
class Way:
    """How to serve: replicas None is the single process."""

    name: str
    ingress: int = 1
    encoders: int = 1
    encoder_cpus: int = 1
    on_ray: bool = True
    more: tuple[tuple[str, str], ...] = ()

    @property
    def settings(self) -> dict[str, str]:
        """OVOAD_* variables."""
        if not self.on_ray:
            return {}
        return {
            "OVOAD_RAY_INGRESS": str(self.ingress),
            "OVOAD_RAY_ENCODERS": str(self.encoders),
            "OVOAD_RAY_ENCODER_CPUS": str(self.encoder_cpus),
            **dict(self.more),
        }


SINGLE = Way("ovoad serve", on_ray=False)
ONE_OF_EACH = Way("Ray, 1 ingress, 1 encoder of 2 cores", encoder_cpus=2)
TWO_OF_EACH = Way("Ray, 2 ingress, 2 encoders of 1 core", ingress=2, encoders=2)


@contextlib.asynccontextmanager
async def served(way: Way, *, runtime: str, say: Callable[[str], None]) -> AsyncIterator[str]:
    """Serve in a way; yields the address. Nothing of the server is left afterwards."""
    flags = ["--runtime", runtime, *(["--on", "ray"] if way.on_ray else [])]
    before = set(descendants(os.getpid()))
    started: list[int] = []
    say(f"starting {way.name}")
    try:
        async with bench_server(flags, sessions=SESSIONS, say=say, settings=way.settings) as url:
            yield url
            started = [pid for pid in descendants(os.getpid()) if pid not in before]
    finally:
        end(until_gone(started))
