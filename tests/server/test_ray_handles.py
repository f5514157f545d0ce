"""What Ray raises, as the engine knows it."""

from typing import Any

import pytest

from ovoad_server.engine.interface import WorkerLostError
from ovoad_server.on_ray.messages import AnotherModelError

of_ray: Any = pytest.importorskip("ray.exceptions", reason="ray is not installed")
of_serve: Any = pytest.importorskip("ray.serve.exceptions", reason="ray is not installed")


class Handle:
    """A handle of Ray Serve's whose calls fail."""

    def __init__(self, error: Exception) -> None:
        self.beat = self
        self._error = error

    async def remote(self, *arguments: object) -> None:
        raise self._error


def faults() -> list[tuple[Exception, type[Exception], str]]:
    told = of_ray.RayTaskError("beat", "traceback", ValueError("a picture hurts"))
    other = of_ray.RayTaskError("beat", "traceback", AnotherModelError("found another"))
    return [
        (of_ray.ActorDiedError(), WorkerLostError, "died: ActorDiedError"),
        (
            of_ray.ActorUnavailableError("gone", bytes(16)),
            WorkerLostError,
            "died: ActorUnavailableError",
        ),
        (of_serve.RayServeException("gone"), WorkerLostError, "died: RayServeException"),
        (told, RuntimeError, "ValueError"),
        (told.as_instanceof_cause(), RuntimeError, "ValueError"),
        (other.as_instanceof_cause(), WorkerLostError, "its successor has another model"),
        (AnotherModelError("plain"), WorkerLostError, "its successor has another model"),
        (ValueError("plain"), RuntimeError, "ValueError"),
    ]


@pytest.mark.parametrize("row", range(8))
async def test_lost_replicas_are_told_from_faults_of_the_model(row: int) -> None:
    from ovoad_server.on_ray.handles import EncoderHandle

    error, expected, text = faults()[row]
    with pytest.raises(expected, match=text) as caught:
        await EncoderHandle(Handle(error)).beat("f")
    assert type(caught.value) is expected
