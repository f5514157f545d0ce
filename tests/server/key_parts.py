"""Parts of the tests of API keys: a file of keys, headers, a server that follows a file closely."""

import asyncio
from pathlib import Path

import httpx
import pytest

from ovoad_server.keys import keyring
from ovoad_server.keys.file import ApiKey, write_keys
from ovoad_server.keys.secret import digest_of

from .harness import WAIT_S, Server

FIRST, SECOND, OLD = "ovoad_first-of-the-keys-0123456789", "ovoad_second", "ovoad_old"
LOOK_EVERY_S = 0.02
DECODERS_END = "ovoad decoder's end"  # the task that waits for the process


def key(name: str, secret: str, **limits: float) -> ApiKey:
    """Return a key as a file keeps it."""
    fields = {"name": name, "sha256": digest_of(secret.encode()).hex(), **limits}
    return ApiKey.model_validate(fields)


def keys_file(folder: Path, *keys: ApiKey) -> Path:
    """Write these keys, in place of those of before, and return the file."""
    path = folder / "keys.json"
    write_keys(path, keys)
    return path


def bearer(secret: str) -> dict[str, str]:
    """Return the header that presents a key."""
    return {"Authorization": f"Bearer {secret}"}


def as_key(secret: str) -> dict[str, dict[str, str]]:
    """Return the option with which a connection presents a key."""
    return {"additional_headers": bearer(secret)}


async def get(server: Server, path: str, secret: str | None = None) -> httpx.Response:
    """Ask over HTTP."""
    headers = {} if secret is None else bearer(secret)
    async with httpx.AsyncClient(timeout=WAIT_S, trust_env=False) as http:
        return await http.get(f"{server.url}{path}", headers=headers)


async def clips_are_over(server: Server) -> None:
    """Wait until nothing of any session is left, and no decoder's process."""
    await server.is_empty()
    await asyncio.gather(*(t for t in asyncio.all_tasks() if t.get_name() == DECODERS_END))


def follow_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let servers look at their keys file far more often than once a second."""
    monkeypatch.setattr(keyring, "LOOK_EVERY_S", LOOK_EVERY_S)
