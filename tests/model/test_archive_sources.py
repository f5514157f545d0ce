"""Which videos an archive has: folders, patterns, addresses."""

from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="archives need the scale extra")


from ovoad_model.archive.errors import ArchiveError
from ovoad_model.archive.sources import Video, list_videos


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a tree of files that are named like videos, and others."""
    folder = tmp_path / "videos with a blank"
    for name in ("a.mp4", "b.MKV", "notes.txt", "day1/c.avi", "day1/deep/d.mp4", "day2/e.mp4"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def names(videos: Sequence[Video], folder: Path) -> list[str]:
    return [str(Path(video.path).relative_to(folder)) for video in videos]


def test_folder_gives_all_videos_below_it(tree: Path) -> None:
    videos = list_videos([str(tree)])
    assert names(videos, tree) == ["a.mp4", "b.MKV", "day1/c.avi", "day1/deep/d.mp4", "day2/e.mp4"]
    first = videos[0]
    status = (tree / "a.mp4").stat()
    assert (first.bytes, first.modified_ns) == (status.st_size, status.st_mtime_ns)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.mp4", ["a.mp4"]),
        ("notes.*", ["notes.txt"]),
        ("**/*.mp4", ["a.mp4", "day1/deep/d.mp4", "day2/e.mp4"]),
        ("day*/*", ["day1/c.avi", "day2/e.mp4"]),
        ("day1/deep/d.mp4", ["day1/deep/d.mp4"]),
    ],
)
def test_patterns(tree: Path, pattern: str, expected: list[str]) -> None:
    assert names(list_videos([f"{tree}/{pattern}"]), tree) == expected


def test_addresses_of_files_are_paths(tree: Path) -> None:
    plain = tree.rename(tree.with_name("plain"))
    assert names(list_videos([f"file://{plain}/**/*.mp4"]), plain)[-1] == "day2/e.mp4"
    both = list_videos([str(plain), f"file://{plain}", f"{plain}/a.mp4"])
    assert len(both) == 5, "each video once"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("absent", "found no such file or folder"),
        ("day2/*.avi", "found no video, expected at least one"),
        ("absent/*.avi", "found no such file or folder"),
    ],
)
def test_source_without_a_video_is_told(tree: Path, source: str, message: str) -> None:
    with pytest.raises(ArchiveError, match=message):
        list_videos([f"{tree}/{source}"])


def test_keys_in_an_address_are_not_told() -> None:
    with pytest.raises(ArchiveError, match="cannot be opened") as caught:
        list_videos(["nothing://user:secret@host/x"])
    assert "secret" not in str(caught.value)
