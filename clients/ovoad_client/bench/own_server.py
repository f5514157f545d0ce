"""A server of the bench's own, that refuses nobody. Knows it by its command line only."""

import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path

from ovoad_client.bench.resources import allow_files
from ovoad_client.process import running_server


@contextlib.asynccontextmanager
async def bench_server(
    flags: Sequence[str],
    *,
    sessions: int,
    say: Callable[[str], None],
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[str]:
    """Start a server on a free port for up to `sessions` sessions; yield its address.

    It admits without a promise of frames/s, so that loads past its capacity can be measured.
    `settings` are more OVOAD_* variables. Its log is kept only while it runs.
    """
    allow_files(sessions)
    variables = {
        "OVOAD_PROMISED_FPS": "0",
        "OVOAD_MAX_SESSIONS": str(sessions),
        **(settings or {}),
    }
    with tempfile.TemporaryDirectory(prefix="ovoad-bench-") as folder, _environment(variables):
        log = Path(folder) / "server.log"
        arguments = ["--host", "127.0.0.1", "--port", "0", *flags]
        async with running_server(arguments, log=log, say=say) as address:
            yield address


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process, which its children get, and put the old ones back."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
