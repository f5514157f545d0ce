"""Files are written whole or not at all, and a run's log can be read while it is written."""

from pathlib import Path
from typing import BinaryIO

import pytest

from ovoad_model.training.files import write_atomically
from ovoad_model.training.run_log import COLUMNS, LogRow, RunLog

ROW = LogRow(0, 0, 1e-4, 3.5, 2.0, 1.0, 0.5, 0.1, 0.07, 0.07, 100.0)


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.bin"
    write_atomically(path, lambda stream: stream.write(b"new"))
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
def test_whatever_interrupts_a_write_the_old_file_stays(
    tmp_path: Path, failure: BaseException
) -> None:
    path = tmp_path / "b.bin"
    path.write_bytes(b"old")

    def tear(stream: BinaryIO) -> None:
        stream.write(b"ne")
        raise failure

    with pytest.raises(type(failure)):
        write_atomically(path, tear)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_crash_left_behind_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".b.bin.part").write_bytes(b"torn")
    write_atomically(tmp_path / "b.bin", lambda stream: stream.write(b"new"))
    assert [path.name for path in tmp_path.iterdir()] == ["b.bin"]


def test_rows_are_readable_at_once_and_go_to_tensorboard_too(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 0)
    log.add(ROW)
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert lines == [",".join(COLUMNS), "0,0,0.0001,3.5,2,1,0.5,0.1,0.07,0.07,100"]
    log.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert events.stat().st_size > 100
