"""An archive's rows: written once, known afterwards, taken away before they are made again."""

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="archives need the scale extra")

import pyarrow as pa
import pyarrow.parquet as pq

from ovoad_model.archive.errors import ArchiveError
from ovoad_model.archive.progress import Counts, Progress
from ovoad_model.archive.results import Part, Results
from ovoad_model.archive.rows import SCHEMA
from ovoad_model.archive.run import run_archive
from ovoad_model.archive.settings import Description
from ovoad_model.archive.sources import Video
from ovoad_model.archive.storage import Folder

from .archive_parts import rows_of

MADE_WITH = Description('{"labels": ["a"]}\n')


def video(name: str, *, size: int = 10, modified_ns: int = 1) -> Video:
    return Video(f"/videos/{name}", size, modified_ns, "", f"/videos/{name}")


def row(of: Video, *, bad: bool = False) -> pa.Table:
    members = {
        "path": of.path,
        "bytes": of.bytes,
        "modified_ns": of.modified_ns,
        "status": "bad" if bad else "ok",
        "error_code": "not_a_video" if bad else None,
        "error": "found words" if bad else None,
        "frames": None if bad else 7,
    }
    return pa.Table.from_pylist([members], schema=SCHEMA)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    opened = Folder(str(tmp_path / "out"))
    yield opened
    opened.close()


def test_rows_are_written_once_and_known_afterwards(folder: Folder, tmp_path: Path) -> None:
    a, b, c = video("a"), video("b"), video("c")
    results = Results(folder, MADE_WITH, Part(videos=2))
    assert results.pending([a, b, c]) == [a, b, c]
    results.add(row(a))
    assert rows_of(tmp_path / "out") == [], "one row waits"
    assert results.add(row(a)).num_rows == 0, "a second row of the same video"
    results.add(row(b, bad=True))
    assert [each["path"] for each in rows_of(tmp_path / "out")] == [a.path, b.path]
    again = Results(folder, MADE_WITH, Part())
    assert again.pending([a, b, c]) == [c]
    assert again.bad == {b.path: ("not_a_video", "found words")}
    assert again.count == 2


def test_rows_wait_no_longer_than_told(folder: Folder, tmp_path: Path) -> None:
    results = Results(folder, MADE_WITH, Part(seconds=0.0))
    results.add(row(video("a")))
    assert len(rows_of(tmp_path / "out")) == 1


def test_changed_and_bad_videos_leave_before_they_are_scored_again(
    folder: Folder, tmp_path: Path
) -> None:
    a, b, c = video("a"), video("b"), video("c")
    results = Results(folder, MADE_WITH, Part())
    for each in (row(a), row(b, bad=True), row(c)):
        results.add(each)
    results.flush()
    later = replace(c, modified_ns=2)
    again = Results(folder, MADE_WITH, Part())
    assert again.pending([a, b, later]) == [later]
    assert [each["path"] for each in rows_of(tmp_path / "out")] == [a.path, b.path]
    assert again.pending([a, b, later], retry_bad=True) == [b, later]
    assert [each["path"] for each in rows_of(tmp_path / "out")] == [a.path]
    assert again.pending([replace(a, bytes=11)]) == [replace(a, bytes=11)]
    assert rows_of(tmp_path / "out") == []
    assert sorted(os.listdir(tmp_path / "out")) == [".lock", "_archive.json"]


def test_results_of_other_settings_are_refused(folder: Folder, tmp_path: Path) -> None:
    Results(folder, MADE_WITH, Part())
    other = Description('{"labels": ["b"]}\n')
    with pytest.raises(ArchiveError, match=r"found results of another run: labels \['a'\], expe"):
        Results(folder, other, Part())
    (tmp_path / "out" / "_archive.json").unlink()
    pq.write_table(row(video("a")), tmp_path / "out" / "part-1.parquet")
    with pytest.raises(ArchiveError, match=r"found results without _archive.json"):
        Results(folder, other, Part())


def test_damaged_file_of_results_is_named(folder: Folder, tmp_path: Path) -> None:
    Results(folder, MADE_WITH, Part())
    (tmp_path / "out" / "part-1.parquet").write_text("no parquet")
    with pytest.raises(ArchiveError, match=r"part-1.parquet is no file of results"):
        Results(folder, MADE_WITH, Part())


def test_one_run_at_a_time_holds_a_folder_and_halves_are_cleared(
    folder: Folder, tmp_path: Path
) -> None:
    with pytest.raises(ArchiveError, match="found another run that writes here"):
        Folder(str(tmp_path / "out"))
    folder.close()
    (tmp_path / "out" / ".part-1.parquet.part").write_text("half")
    Folder(str(tmp_path / "out")).close()
    assert not (tmp_path / "out" / ".part-1.parquet.part").exists()


def test_what_ends_a_run_leaves_finished_rows_written(folder: Folder, tmp_path: Path) -> None:
    results = Results(folder, MADE_WITH, Part())
    videos = [video("a"), video("b")]
    show = Progress(Counts(2, 20), out=io.StringIO())

    def score(pending: Sequence[Video]) -> Iterator[pa.Table]:
        yield row(pending[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_archive(videos, score, results, show)
    assert [each["path"] for each in rows_of(tmp_path / "out")] == ["/videos/a"]
    assert (show.counts.done, show.counts.frames, show.counts.done_bytes) == (1, 7, 10)
