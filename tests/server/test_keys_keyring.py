"""Which key is valid: look-up, the file followed, broken files borne."""

import asyncio
import contextlib
import hmac
import logging
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import SecretStr

from ovoad_server.keys.file import ApiKey, KeysFileError, write_keys
from ovoad_server.keys.keyring import Keyring, open_keyring
from ovoad_server.settings import Settings

from .harness import until
from .key_parts import FIRST, OLD, SECOND, follow_closely, key, keys_file

DOOR, YARD = key("door", FIRST), key("yard", SECOND)


@pytest.mark.parametrize(("secret", "found"), [(FIRST, DOOR), (SECOND, YARD)])
def test_right_key_is_found(secret: str, found: ApiKey) -> None:
    assert Keyring(None, Path("x"), [DOOR, YARD]).find(secret.encode()) == found


@pytest.mark.parametrize("wrong", ["", "wrong", FIRST[:-1], f"{FIRST}x", FIRST.upper()])
def test_any_other_is_not(wrong: str) -> None:
    keyring = Keyring(key("default", OLD), Path("x"), [DOOR, YARD])
    assert keyring.find(wrong.encode()) is None
    assert keyring.find(None) is None


def test_hash_of_a_key_is_no_key() -> None:
    keyring = Keyring(None, Path("x"), [DOOR])
    assert keyring.find(DOOR.sha256.encode()) is None
    assert keyring.find(bytes.fromhex(DOOR.sha256)) is None


def test_every_digest_is_compared_whichever_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    compare_digest = hmac.compare_digest

    def compare(found: bytes, expected: bytes) -> bool:
        compared.append((found, expected))
        return compare_digest(found, expected)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    keyring = Keyring(None, Path("x"), [DOOR, YARD, key("old", OLD)])
    for presented in (FIRST, SECOND, "wrong", "x" * 1000, ""):
        keyring.find(presented.encode())
    assert len(compared) == 15
    assert {len(digest) for pair in compared for digest in pair} == {32}, "lengths tell nothing"


def test_key_holds_under_its_name_and_hash_whatever_its_limits() -> None:
    keyring = Keyring(None, Path("x"), [key("door", FIRST, sessions=1)])
    assert keyring.holds(DOOR)
    assert not keyring.holds(key("yard", FIRST))
    assert not keyring.holds(key("door", SECOND))


# ---- at the start --------------------------------------------------------------------------------


def test_one_key_of_the_settings_is_named_default() -> None:
    keyring = open_keyring(Settings(api_key=SecretStr(OLD)))
    found = keyring.find(OLD.encode())
    assert found is not None
    assert (found.name, found.sessions, found.fps, found.labels) == ("default", None, None, None)
    assert keyring.required
    assert not open_keyring(Settings()).required


def test_file_goes_beside_the_one_key(tmp_path: Path) -> None:
    path = keys_file(tmp_path, DOOR)
    keyring = open_keyring(Settings(api_key=SecretStr(OLD), keys_file=path))
    names = {found.name for secret in (OLD, FIRST) if (found := keyring.find(secret.encode()))}
    assert names == {"default", "door"}
    assert len(keyring) == 2


def test_missing_empty_and_doubled_keys_are_told_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    with pytest.raises(KeysFileError, match="cannot read the keys file"):
        open_keyring(Settings(keys_file=path))
    write_keys(path, [])
    with pytest.raises(KeysFileError, match=r"found no key in .*: ovoad keys add NAME --file "):
        open_keyring(Settings(keys_file=path))
    write_keys(path, [DOOR])
    with pytest.raises(KeysFileError, match="found OVOAD_API_KEY in the keys file too, as door"):
        open_keyring(Settings(api_key=SecretStr(FIRST), keys_file=path))


# ---- while it is followed ------------------------------------------------------------------------


@dataclass
class Followed:
    """A keyring that follows its file; how often it changed, and how often reading it failed."""

    keyring: Keyring
    path: Path
    changes: int = 0
    failures: int = 0

    def changed(self) -> None:
        self.changes += 1

    def failed(self) -> None:
        self.failures += 1

    def opens(self, secret: str) -> bool:
        return self.keyring.find(secret.encode()) is not None


@contextlib.asynccontextmanager
async def following(path: Path) -> AsyncIterator[Followed]:
    followed = Followed(open_keyring(Settings(keys_file=path)), path)
    task = asyncio.create_task(
        followed.keyring.follow(changed=followed.changed, failed=followed.failed)
    )
    try:
        yield followed
        assert not task.done()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture(autouse=True)
def closely(monkeypatch: pytest.MonkeyPatch) -> None:
    follow_closely(monkeypatch)


async def test_replaced_file_is_taken_over(tmp_path: Path) -> None:
    async with following(keys_file(tmp_path, DOOR)) as followed:
        keys_file(tmp_path, DOOR, YARD)
        await until(lambda: followed.opens(SECOND))
        keys_file(tmp_path, YARD)
        await until(lambda: not followed.opens(FIRST))
        assert followed.opens(SECOND)
        assert (followed.changes, followed.failures) == (2, 0)


async def test_last_key_can_be_revoked_and_nobody_is_let_in(tmp_path: Path) -> None:
    async with following(keys_file(tmp_path, DOOR)) as followed:
        keys_file(tmp_path)
        await until(lambda: not followed.opens(FIRST))
        assert followed.keyring.required


async def test_file_written_in_place_with_the_same_size_is_taken_over(tmp_path: Path) -> None:
    path = keys_file(tmp_path, DOOR)
    written = path.read_text()
    async with following(path) as followed:
        path.write_text(written.replace(DOOR.sha256, YARD.sha256))
        await until(lambda: followed.opens(SECOND))


async def test_two_changes_within_one_tick_of_the_clock_are_both_seen(tmp_path: Path) -> None:
    path = keys_file(tmp_path, DOOR)
    written, status = path.read_text(), path.stat()
    async with following(path) as followed:
        path.write_text(written.replace(DOOR.sha256, YARD.sha256))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        await until(lambda: followed.opens(SECOND))


async def test_same_keys_again_are_no_change(tmp_path: Path) -> None:
    path = keys_file(tmp_path, DOOR)
    async with following(path) as followed:
        keys_file(tmp_path, DOOR)
        keys_file(tmp_path, DOOR, YARD)
        await until(lambda: followed.changes == 1)
        for _ in range(20):
            await asyncio.sleep(0.005)
        assert followed.changes == 1


@pytest.mark.parametrize("broken", ["", '{"version": 1, "keys": [{"na', "\x00\x01", "[]"])
async def test_broken_file_changes_nothing_is_told_once_and_mended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    caplog.set_level(logging.INFO, "ovoad_server")
    path = keys_file(tmp_path, DOOR)
    async with following(path) as followed:
        path.write_text(broken)
        await until(lambda: followed.failures >= 3)
        assert followed.opens(FIRST)
        (told,) = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert told.getMessage().startswith(f"cannot use the keys file {path}: ")
        assert told.getMessage().endswith("; the 1 keys read before stay valid")
        keys_file(tmp_path, YARD)
        await until(lambda: followed.opens(SECOND))
        assert not followed.opens(FIRST)
        failures = followed.failures
        path.write_text(broken)
        await until(lambda: followed.failures > failures)
        assert followed.opens(SECOND)


async def test_file_that_is_gone_or_locked_away_changes_nothing(tmp_path: Path) -> None:
    path = keys_file(tmp_path, DOOR)
    async with following(path) as followed:
        path.unlink()
        await until(lambda: followed.failures >= 2)
        path.mkdir()
        failures = followed.failures
        await until(lambda: followed.failures > failures)
        assert followed.opens(FIRST)
        path.rmdir()
        keys_file(tmp_path, DOOR, YARD)
        await until(lambda: followed.opens(SECOND))


async def test_key_of_the_settings_in_the_file_is_refused(tmp_path: Path) -> None:
    path = keys_file(tmp_path, DOOR)
    keyring = open_keyring(Settings(api_key=SecretStr(OLD), keys_file=path))
    followed = Followed(keyring, path)
    task = asyncio.create_task(keyring.follow(changed=followed.changed, failed=followed.failed))
    keys_file(tmp_path, YARD, key("mine", OLD))
    await until(lambda: followed.failures >= 1)
    assert followed.opens(FIRST)
    assert not followed.opens(SECOND)
    task.cancel()
