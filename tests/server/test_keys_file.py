"""The file of keys: what is read, what is refused, how it is replaced."""

import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from ovoad_server.keys.file import (
    MOST_BYTES,
    MOST_KEYS,
    KeysFileError,
    locked,
    parse_keys,
    read_keys,
    write_keys,
)
from ovoad_server.keys.secret import (
    LEAST_CHARACTERS,
    PREFIX,
    check_strength,
    digest_of,
    generate_key,
    read_secret,
)

from .key_parts import FIRST, SECOND, key

PATH = Path("keys.json")
HASH = "a" * 64


def document(*keys: dict[str, Any], **fields: object) -> bytes:
    """Return a file of these keys."""
    return json.dumps({"version": 1, "keys": list(keys), **fields}).encode()


def refusal(data: bytes) -> str:
    """Return why a file is refused, without its beginning."""
    with pytest.raises(KeysFileError) as refused:
        parse_keys(data, PATH)
    return str(refused.value).removeprefix("cannot use the keys file keys.json: ")


def test_keys_that_are_written_are_read(tmp_path: Path) -> None:
    keys = (key("door", FIRST, sessions=2, fps=2.5, labels=10), key("yard", SECOND))
    write_keys(tmp_path / "keys.json", keys)
    found, status = read_keys(tmp_path / "keys.json")
    assert found == keys
    assert status.st_size == (tmp_path / "keys.json").stat().st_size


def test_file_holds_hashes_and_is_its_owner_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text("{}")
    path.chmod(0o666)
    write_keys(path, [key("door", FIRST)])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert FIRST not in path.read_text()
    assert os.listdir(tmp_path) == ["keys.json"], "nothing is left beside it"


def test_reader_sees_the_old_file_or_the_new_one_and_nothing_between(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    one, many = [key("door", FIRST)], [key(f"key-{n}", f"{SECOND}-{n}") for n in range(300)]
    write_keys(path, one)
    over = threading.Event()

    def write() -> None:
        for _ in range(20):
            write_keys(path, many)
            write_keys(path, one)
        over.set()

    writing = threading.Thread(target=write)
    writing.start()
    while not over.is_set():
        assert len(read_keys(path)[0]) in (1, 300)
    writing.join()


def test_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "keys.json"
    link.symlink_to(tmp_path / "real" / "keys.json")
    write_keys(link, [key("door", FIRST)])
    assert link.is_symlink()
    assert [each.name for each in read_keys(tmp_path / "real" / "keys.json")[0]] == ["door"]


def test_writers_take_turns(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    write_keys(path, [])

    def add(number: int) -> None:
        with locked(path):
            write_keys(path, [*read_keys(path)[0], key(f"key-{number}", f"secret-{number}")])

    adding = [threading.Thread(target=add, args=[number]) for number in range(12)]
    for each in adding:
        each.start()
    for each in adding:
        each.join()
    assert len(read_keys(path)[0]) == 12


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "Invalid JSON: EOF while parsing a value at line 1 column 0"),
        (b'{"version": 1, "ke', "Invalid JSON: EOF while parsing a string at line 1 column 18"),
        (b"\xff\xfe", "Invalid JSON: expected value at line 1 column 1"),
        (b"[]", "Input should be an object"),
        (document(version=2), "version: Input should be 1"),
        (document(extra=1), "extra: Extra inputs are not permitted"),
        (document({"name": "door"}), "keys.0.sha256: Field required"),
        (
            document({"name": "door", "sha256": FIRST}),
            "keys.0.sha256: String should match pattern '^[0-9a-f]{64}$'",
        ),
        (
            document({"name": "a door", "sha256": HASH}),
            "keys.0.name: String should match pattern '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'",
        ),
        (
            document({"name": "door", "sha256": HASH, "sessions": 0}),
            "keys.0.sessions: Input should be greater than or equal to 1",
        ),
        (
            document({"name": "door", "sha256": HASH, "fps": 0}),
            "keys.0.fps: Input should be greater than 0",
        ),
        (
            document({"name": "default", "sha256": HASH}),
            "found a key named default, which is OVOAD_API_KEY's name",
        ),
        (
            document({"name": "door", "sha256": HASH}, {"name": "door", "sha256": "b" * 64}),
            "found name door twice, expected each name once",
        ),
        (
            document({"name": "door", "sha256": HASH}, {"name": "yard", "sha256": HASH}),
            "found the same key as door and as yard, expected one name for a key",
        ),
    ],
)
def test_broken_file_is_told(data: bytes, reason: str) -> None:
    assert refusal(data) == reason


def test_key_in_the_wrong_place_is_not_told() -> None:
    secret = generate_key()
    for data in (
        document({"name": "door", "sha256": secret}),
        document({"name": f"the door {secret}", "sha256": HASH}),
        document({"name": "door", "sha256": HASH, secret: 1}),
        json.dumps({secret: []}).encode(),
        secret.encode(),
    ):
        assert secret not in refusal(data)


def test_too_many_keys_and_bytes_are_told(tmp_path: Path) -> None:
    keys = [{"name": f"key-{n}", "sha256": f"{n:064x}"} for n in range(MOST_KEYS + 1)]
    assert len(parse_keys(document(*keys[:-1]), PATH)) == MOST_KEYS
    assert refusal(document(*keys)).startswith("keys: Tuple should have at most 1000 items")
    path = tmp_path / "keys.json"
    path.write_bytes(b" " * (MOST_BYTES + 1))
    with pytest.raises(KeysFileError, match=f"found more than {MOST_BYTES} bytes"):
        read_keys(path)


def test_file_that_cannot_be_read_or_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(KeysFileError, match=r"cannot read .*keys\.json: no such file"):
        read_keys(tmp_path / "keys.json")
    with pytest.raises(KeysFileError, match="is a directory"):
        read_keys(tmp_path)
    with pytest.raises(KeysFileError, match=r"cannot write .*: no such file"):
        write_keys(tmp_path / "nowhere" / "keys.json", [])
    with pytest.raises(KeysFileError, match="cannot open the folder"), locked(tmp_path / "a" / "b"):
        pass


# ---- secrets -------------------------------------------------------------------------------------


def test_generated_keys_have_the_prefix_and_192_bits() -> None:
    keys = [generate_key() for _ in range(100)]
    assert len(set(keys)) == 100
    for each in keys:
        assert each.startswith(PREFIX)
        assert len(each) == len(PREFIX) + 192 // 6
        check_strength(each)
    assert len(digest_of(b"x")) == 32


@pytest.mark.parametrize("weak", ["", "short", "a" * 40, "with blanks " * 4, "ümlaut" * 10])
def test_weak_key_from_elsewhere_is_refused(weak: str) -> None:
    with pytest.raises(ValueError, match=r"^found "):
        check_strength(weak)
    check_strength("abcdefgh0123456789-_AB"[:LEAST_CHARACTERS])


def test_secret_is_the_one_line_of_its_file(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    for text in ("correct-horse", "correct-horse\n", "correct-horse\r\n"):
        file.write_text(text, newline="")
        assert read_secret(file) == "correct-horse"
    file.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="not ASCII"):
        read_secret(file)
    file.write_bytes(b"a" * 5000)
    with pytest.raises(ValueError, match="found more than 4096 bytes"):
        read_secret(file)
    with pytest.raises(ValueError, match=r"cannot read .*: no such file"):
        read_secret(tmp_path / "nothing")
