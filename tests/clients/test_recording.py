"""Tests of recordings of server messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from ovoad_client.protocol import Pong, SessionWasReset
from ovoad_client.recording import Recording, RecordingError, read_recording


def test_lines_are_on_disk_at_once_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "out.jsonl"
    with Recording(path) as recording:
        recording.write(Pong(nonce="骑").to_json())
        assert list(read_recording(path)) == [Pong(nonce="骑")]
        recording.write('{"type":\n"session.was_reset"}')
        assert recording.lines == 2
    assert list(read_recording(path)) == [Pong(nonce="骑"), SessionWasReset()]


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"cannot write '.*': is a directory"):
        Recording(tmp_path)


def test_a_missing_recording_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"cannot read '.*': no such file"):
        list(read_recording(tmp_path / "none.jsonl"))


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text('{"type":"pong"}\n{"type":"po')
    with pytest.raises(RecordingError, match="line 2: "):
        list(read_recording(path))
