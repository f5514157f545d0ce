"""Archives in an object store: listed, read and written over S3's real protocol.

The server is moto's, run by the Python that OVOAD_TEST_MOTO_PYTHON names, else by the tests' own:
it wants an older python-dateutil than the rest, so an environment of its own is best
(pip install 'moto[s3]' flask flask-cors).
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="archives need the scale extra")

import pyarrow.parquet as pq
from pyarrow import fs

from ovoad_model.archive.errors import ArchiveError
from ovoad_model.archive.results import Part, Results
from ovoad_model.archive.settings import ArchiveSettings, Description
from ovoad_model.archive.sources import list_videos
from ovoad_model.archive.storage import Folder
from ovoad_model.archive.worker import Setup, Worker

from .archive_parts import draw_clip, write_bad

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
START_S = 60.0
PYTHON = os.environ.get("OVOAD_TEST_MOTO_PYTHON", sys.executable)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start an S3 server on the loopback; give what addresses need to reach it."""
    found = subprocess.run(
        [PYTHON, "-c", "import moto.server"], capture_output=True, timeout=START_S
    )
    if found.returncode:
        pytest.skip(f"no S3 server: {PYTHON} has no moto; name one in OVOAD_TEST_MOTO_PYTHON")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [PYTHON, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    log = tmp_path_factory.mktemp("moto") / "log"
    with (
        pytest.MonkeyPatch.context() as patch,
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ}) as server,
    ):
        for name, value in KEYS.items():
            patch.setenv(name, value)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        wait_for(port, server, log)
        # In one piece: Arrow does not take moto's answer to the end of an upload in parts.
        store = f"endpoint_override=127.0.0.1:{port}&scheme=http&allow_delayed_open=true"
        yield f"{store}&allow_bucket_creation=true"
        server.kill()


def wait_for(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    give_up_s = time.monotonic() + START_S
    while True:
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < give_up_s
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)


@pytest.fixture(scope="module")
def bucket(options: str, tmp_path_factory: pytest.TempPathFactory) -> fs.FileSystem:
    """Fill a bucket with two clips, a bad one and a text."""
    folder = tmp_path_factory.mktemp("clips")
    store, _ = fs.FileSystem.from_uri(f"s3://videos?{options}")
    store.create_dir("videos")
    files = [draw_clip(folder / "a.mp4", seed=1), draw_clip(folder / "b b.mp4", seed=2)]
    for path in (*files, write_bad(folder)[1]):
        with store.open_output_stream(f"videos/2026/day 1/{path.name}") as stream:
            stream.write(path.read_bytes())
    with store.open_output_stream("videos/2026/notes.txt") as stream:
        stream.write(b"notes")
    return store


def test_videos_are_listed_by_folder_and_by_pattern(bucket: fs.FileSystem, options: str) -> None:
    videos = list_videos([f"s3://videos/2026?{options}"])
    start = "s3://videos/2026/day 1"
    expected = [f"{start}/a.mp4", f"{start}/b b.mp4", f"{start}/truncated.mp4"]
    assert [video.path for video in videos] == expected
    assert all(video.bytes > 0 and video.modified_ns > 0 for video in videos)
    found = list_videos([f"s3://videos/*/day*/*.mp4?{options}"])
    assert [video.path for video in found] == expected
    with pytest.raises(ArchiveError, match="found no such file or folder"):
        list_videos([f"s3://videos/2027?{options}"])


def test_videos_are_read_and_results_written(
    bucket: fs.FileSystem, options: str, tmp_path: Path
) -> None:
    videos = list_videos([f"s3://videos/2026/**/*.mp4?{options}"])
    settings = ArchiveSettings(labels=("a red circle",), runtime="onnxruntime")
    worker = Worker(Setup(settings, "digest", tmp_path / "cache"))
    description = Description('{"labels": ["a red circle"]}\n')
    folder = Folder(f"s3://results/run 1?{options}".replace(" ", "%20"))
    results = Results(folder, description, Part())
    assert results.pending(videos) == videos
    for video in videos:
        results.add(worker.score(video))
    results.flush()
    worker.close()
    again = Results(folder, description, Part())
    assert again.pending(videos) == []
    assert list(again.bad) == ["s3://videos/2026/day 1/truncated.mp4"]
    (name,) = folder.names("part-", ".parquet")
    with folder.open(name) as file:
        rows = pq.read_table(file).to_pylist()
    assert [row["frames"] for row in rows] == [rows[0]["frames"], rows[0]["frames"], None]
    assert again.pending(videos, retry_bad=True) == [videos[2]]
    with folder.open(name) as file:
        assert pq.read_table(file, columns=["path"]).num_rows == 2


def test_video_that_has_gone_or_changed_is_unreadable(
    bucket: fs.FileSystem, options: str, tmp_path: Path
) -> None:
    settings = ArchiveSettings(labels=("a red circle",), runtime="onnxruntime")
    worker = Worker(Setup(settings, "digest", tmp_path / "cache"))
    for content in (b"shorter", None):
        with bucket.open_output_stream("videos/other/c.mp4") as stream:
            stream.write(b"longer than before")
        (video,) = list_videos([f"s3://videos/other?{options}"])
        if content is None:
            bucket.delete_file("videos/other/c.mp4")
        else:
            with bucket.open_output_stream("videos/other/c.mp4") as stream:
                stream.write(content)
        (row,) = worker.score(video).to_pylist()
        assert (row["status"], row["error_code"]) == ("bad", "unreadable")
    worker.close()
