"""Files that ship with the encoder are checked before they are used."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from ovoad_model.embedded import EmbeddedEncoder
from ovoad_model.embedded.shipped import ASSETS, MANIFEST, open_shipped
from ovoad_model.errors import DamagedFileError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small folder of shipped files."""
    files = {"one.bin": b"first", "two.bin": b"second"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    sums = {name: {"sha256": hashlib.sha256(c).hexdigest()} for name, c in files.items()}
    (tmp_path / MANIFEST).write_text(json.dumps({"files": sums}))
    return tmp_path


def test_whole_files_are_accepted(folder: Path) -> None:
    assert open_shipped(folder).path("one.bin").read_bytes() == b"first"


def test_a_damaged_file_is_named_with_both_checksums(folder: Path) -> None:
    (folder / "two.bin").write_bytes(b"secind")
    with pytest.raises(DamagedFileError) as caught:
        open_shipped(folder)
    expected = hashlib.sha256(b"second").hexdigest()
    found = hashlib.sha256(b"secind").hexdigest()
    assert caught.value.path == folder / "two.bin"
    assert (caught.value.expected_sha256, caught.value.found_sha256) == (expected, found)
    assert str(caught.value) == (
        f"model file {folder / 'two.bin'}: found sha256 {found}, expected sha256 {expected}"
    )


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "one.bin").unlink()
    with pytest.raises(DamagedFileError, match=r"one\.bin: found no such file, expected sha256"):
        open_shipped(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"files": {"one.bin": {}}}', '{"files": 3}'])
def test_a_damaged_manifest_is_named(folder: Path, content: str) -> None:
    (folder / MANIFEST).write_text(content)
    with pytest.raises(DamagedFileError, match=r"manifest\.json"):
        open_shipped(folder)


def test_a_missing_manifest_is_named(folder: Path) -> None:
    (folder / MANIFEST).unlink()
    with pytest.raises(DamagedFileError, match=r"manifest\.json: found no such file"):
        open_shipped(folder)


def test_the_fingerprint_follows_the_files(folder: Path) -> None:
    before = open_shipped(folder).fingerprint
    (folder / "one.bin").write_bytes(b"other")
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["one.bin"]["sha256"] = hashlib.sha256(b"other").hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest))
    assert open_shipped(folder).fingerprint != before


def test_the_encoder_refuses_a_cut_network(tmp_path: Path) -> None:
    for path in ASSETS.iterdir():
        (tmp_path / path.name).symlink_to(path)
    cut = tmp_path / "image.onnx"
    cut.unlink()
    shutil.copy(ASSETS / "image.onnx", cut)
    with cut.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(DamagedFileError, match=r"image\.onnx"):
        EmbeddedEncoder.load(tmp_path)


def test_what_ships_is_small_and_tells_its_origin() -> None:
    assert sum(path.stat().st_size for path in ASSETS.iterdir()) < 40_000_000
    manifest = json.loads((ASSETS / MANIFEST).read_text())
    for entry in manifest["files"].values():
        assert entry["licence"]
        assert entry["made_from"]["package"]
        assert entry["made_from"]["version"]
