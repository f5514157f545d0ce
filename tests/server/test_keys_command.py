"""`ovoad keys`: add, revoke, list; a key is shown once and never again."""

import io
import re
import stat
from pathlib import Path

import pytest

from ovoad_server.keys.command import main
from ovoad_server.keys.file import read_keys
from ovoad_server.keys.keyring import Keyring

from .key_parts import key, keys_file

Out = pytest.CaptureFixture[str]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a file of keys, named by the environment and not there yet."""
    path = tmp_path / "keys.json"
    monkeypatch.setenv("OVOAD_KEYS_FILE", str(path))
    return path


def test_added_key_is_shown_once_and_opens(path: Path, capsys: Out) -> None:
    assert main(["add", "door", "--sessions", "2", "--fps", "2.5", "--labels", "10"]) == 0
    shown = capsys.readouterr()
    assert re.fullmatch(r"ovoad_[A-Za-z0-9_-]{32}\n", shown.out)
    secret = shown.out.strip()
    assert shown.err == f"added key door to {path}; it is shown this once\n"
    (added,) = read_keys(path)[0]
    assert (added.name, added.sessions, added.fps, added.labels) == ("door", 2, 2.5, 10)
    assert Keyring(None, path, [added]).find(secret.encode()) == added
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret not in path.read_text()
    assert main(["list"]) == 0
    assert main(["revoke", "door"]) == 0
    later = capsys.readouterr()
    assert secret not in later.out + later.err


def test_list_shows_names_and_limits(path: Path, capsys: Out) -> None:
    keys_file(path.parent, key("door", "a", sessions=12, fps=2.5, labels=1_000_000), key("y", "b"))
    assert main(["list"]) == 0
    assert capsys.readouterr().out == (
        "NAME  SESSIONS  FPS  LABELS   CREATED\n"
        "door  12        2.5  1000000\n"
        "y     -         -    -\n"
    )


def test_revoked_key_is_gone_the_others_stay(path: Path, capsys: Out) -> None:
    for name in ("door", "yard"):
        assert main(["add", name]) == 0
    assert main(["revoke", "door"]) == 0
    assert [each.name for each in read_keys(path)[0]] == ["yard"]
    assert f"revoked key door in {path}, 1 left\n" in capsys.readouterr().err
    assert main(["revoke", "yard"]) == 0
    assert read_keys(path)[0] == ()


def test_key_from_elsewhere_is_taken_and_not_shown(
    path: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "x7Gk2mPq9RtVw4ZbNc8DfHjL"
    monkeypatch.setattr("sys.stdin", io.StringIO(secret + "\n"))
    assert main(["add", "door", "--from-stdin"]) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", f"added key door to {path}\n")
    assert Keyring(None, path, read_keys(path)[0]).find(secret.encode()) is not None


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["add", "door"], "found a key named door in {path}, expected another name "),
        (["add", "default"], "found name default, which is that of OVOAD_API_KEY"),
        (["add", "a door"], "name: string should match pattern "),
        (["add", "yard", "--sessions", "0"], "sessions: input should be greater than or equal "),
        (["add", "yard", "--fps", "nan"], "fps: input should be a finite number"),
        (["add", "yard", "--labels", "-1"], "labels: input should be greater than or equal to 1"),
        (["revoke", "yard"], "found no key named yard in {path}, expected one of: door"),
    ],
)
def test_wrong_usage_is_told_and_changes_nothing(
    path: Path, capsys: Out, arguments: list[str], reason: str
) -> None:
    keys_file(path.parent, key("door", "a"))
    before = path.read_bytes()
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"ovoad keys: {reason.format(path=path)}")
    assert path.read_bytes() == before


@pytest.mark.parametrize("secret", ["short", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa", ""])
def test_weak_key_from_elsewhere_is_refused_and_not_repeated(
    path: Path, capsys: Out, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(secret + "\n"))
    assert main(["add", "door", "--from-stdin"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("ovoad keys: found ")
    assert not secret or secret not in told
    assert not path.exists()


def test_broken_file_is_left_as_it_is(path: Path, capsys: Out) -> None:
    path.write_text('{"version": 1, "ke')
    for arguments in (["add", "door"], ["revoke", "door"], ["list"]):
        assert main(arguments) == 1
        assert capsys.readouterr().err.startswith(f"ovoad keys: cannot use the keys file {path}: ")
    assert path.read_text() == '{"version": 1, "ke'


def test_file_must_be_named(capsys: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OVOAD_KEYS_FILE", raising=False)
    assert main(["list"]) == 2
    assert capsys.readouterr().err == (
        "ovoad keys: found no file of keys, expected --file FILE or OVOAD_KEYS_FILE\n"
    )


def test_flag_goes_before_the_environment(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    assert main(["add", "door", "--file", str(other)]) == 0
    assert other.exists()
    assert not path.exists()


def test_name_given_as_a_key_is_no_way_to_import_one(path: Path, capsys: Out) -> None:
    with pytest.raises(SystemExit) as left:
        main(["add", "door", "--key", "x7Gk2mPq9RtVw4ZbNc8DfHjL"])
    assert left.value.code == 2
    capsys.readouterr()
    assert not path.exists()
