"""`ovoad archive` as a process of its own on Ray: killed, started again, worker killed, poison."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="archives need the scale extra")

from .archive_parts import draw_clip, rows_of, write_bad

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LIMIT_S = 300.0
CLIPS = 22
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}  # 127.0.0.1, and the same as IPv6
LABELS = ("a red circle", "a person cooking")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Draw clips, two bad ones among them."""
    folder = tmp_path_factory.mktemp("videos")
    for index in range(CLIPS):
        draw_clip(folder / f"clip{index:02}.mp4", seed=index)
    write_bad(folder)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@contextlib.contextmanager
def started(command: list[str], home: Path) -> "Iterator[subprocess.Popen[str]]":
    """Start a command with a home of its own and the tests' Python."""
    names = (name for name in os.environ if not name.startswith(("OVOAD_", "RAY_")))
    environment = {**{name: os.environ[name] for name in names}, "HOME": str(home)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def archive(videos: Path, out: Path, *flags: str) -> list[str]:
    """Return the command; every row is written at once."""
    labels = () if "--labels" in flags else ("--labels", *LABELS)
    return [
        *(sys.executable, "-m", "ovoad_model.archive.command", str(videos), "--out", str(out)),
        *("--runtime", "onnxruntime", "--workers", "2", "--part-seconds", "0", *labels, *flags),
    ]


def finish(command: list[str], home: Path, *, status: int = 0) -> str:
    """Run a command to its end; return what it said."""
    with started(command, home) as process:
        said, _ = process.communicate(timeout=LIMIT_S)
        assert process.returncode == status, said
        return said


def wait_for_rows(out: Path, count: int, process: "subprocess.Popen[str]") -> None:
    give_up_s = time.monotonic() + LIMIT_S
    while len(list(out.glob("*.parquet"))) < count:
        assert time.monotonic() < give_up_s
        if process.poll() is not None:
            raise AssertionError(process.communicate()[0])
        time.sleep(0.01)


def children_of(process_id: int) -> dict[int, str]:
    """Return all processes below one, and their command lines."""
    parents: dict[int, int] = {}
    commands: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                commands[int(entry.name)] = command.decode(errors="replace")
    below = {process_id}
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    return {child: commands[child] for child in below - {process_id}}


def listening_addresses(process_ids: set[int]) -> set[str]:
    """Return the addresses (hexadecimal) at which processes listen over TCP."""
    inodes = set()
    for process_id in process_ids:
        with contextlib.suppress(OSError):
            for entry in Path(f"/proc/{process_id}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if found := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(entry)):
                        inodes.add(found[1])
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                addresses.add(fields[1].partition(":")[0])
    return addresses


def wait_until_gone(children: dict[int, str]) -> None:
    """Wait until all have ended but Ray's agents, which take a minute to see that they are alone.

    Those that nobody has buried yet count as ended.
    """
    give_up_s = time.monotonic() + LIMIT_S
    watched = {each for each, command in children.items() if "Agent" not in command}
    while left := {each for each in watched if is_running(each)}:
        assert time.monotonic() < give_up_s, [children[each] for each in left]
        time.sleep(0.1)


def is_running(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.long
def test_killed_run_goes_on_and_every_video_has_one_row(
    videos: Path, home: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with started(archive(videos, out), home) as process:
        wait_for_rows(out, 5, process)
        children = children_of(process.pid)
        assert listening_addresses(set(children)) <= LOOPBACK
        process.kill()
        process.wait(LIMIT_S)
        wait_until_gone(children)
    first = {row["path"]: row["scored_at"] for row in rows_of(out)}
    assert 5 <= len(first) < CLIPS

    with started(archive(videos, out), home) as process:
        wait_for_rows(out, len(first) + 2, process)
        workers = [
            each for each, command in children_of(process.pid).items() if "MapWorker" in command
        ]
        assert workers
        os.kill(workers[0], signal.SIGKILL)
        said, _ = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0, said
    rows = rows_of(out)
    paths = [row["path"] for row in rows]
    assert paths == sorted(str(path) for path in videos.iterdir())
    bad = {Path(row["path"]).name: row["error_code"] for row in rows if row["status"] == "bad"}
    assert bad == {"text.mp4": "not_a_video", "truncated.mp4": "not_a_video"}
    assert f"{len(first)} finished before, 2 bad in all" in said
    assert f"bad: {videos / 'text.mp4'}: not_a_video: found a file that is not a video" in said
    again = {row["path"]: row["scored_at"] for row in rows}
    assert all(again[path] == scored_at for path, scored_at in first.items()), "each scored once"

    said = finish(archive(videos, out, "--strict"), home, status=3)
    assert "0 videos scored (0 frames) in 0:0" in said
    said = finish(archive(videos, out, "--labels", "a dog"), home, status=1)
    assert "found results of another run: labels ['a red circle', 'a person cooking'], exp" in said
    assert [row["path"] for row in rows_of(out)] == paths

    changed = draw_clip(videos / "clip03.mp4", seed=99, frames=40)
    said = finish(archive(videos, out), home)
    assert "1 videos scored (13 frames)" in said
    assert [row["path"] for row in rows_of(out)] == paths
    (row,) = [row for row in rows_of(out) if row["path"] == str(changed)]
    assert row["bytes"] == changed.stat().st_size


@pytest.mark.long
def test_interrupted_run_writes_what_is_done(videos: Path, home: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    flags = ("--part-seconds", "600", "--part-videos", "4")
    with started(archive(videos, out, *flags), home) as process:
        wait_for_rows(out, 1, process)
        children = children_of(process.pid)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 130, said
    assert "interrupted; the same command goes on from here" in said
    assert "Traceback" not in said
    wait_until_gone(children)
    paths = [row["path"] for row in rows_of(out)]
    assert len(paths) == len(set(paths)) >= 4


POISON = """
import json, os, signal, sys
from pathlib import Path
from ovoad_model.archive import cluster
from ovoad_model.archive.settings import ArchiveSettings
from ovoad_model.archive.sources import list_videos
from ovoad_model.archive.worker import Setup


class Deadly(cluster.RayWorker):
    def __call__(self, batch):
        score = self._worker.score
        def score_or_die(video):
            if video.path.endswith("clip01.mp4"):
                os.kill(os.getpid(), signal.SIGKILL)
            return score(video)
        self._worker.score = score_or_die
        try:
            return super().__call__(batch)
        finally:
            self._worker.score = score


cluster.RayWorker = Deadly
videos = list_videos([f"{sys.argv[1]}/clip0*.mp4"])[:4]
settings = ArchiveSettings(("a red circle",), runtime="onnxruntime")
setup = Setup(settings, "digest", Path(sys.argv[2]))
ray = cluster.Cluster(workers=1)
with cluster.open_ray(ray):
    for table in cluster.score_on_ray(videos, setup, ray):
        for row in table.to_pylist():
            print(json.dumps([Path(row["path"]).name, row["error_code"], row["error"]]), flush=True)
"""


@pytest.mark.long
def test_video_that_kills_its_workers_is_given_up_and_costs_no_other(
    videos: Path, home: Path, tmp_path: Path
) -> None:
    script = tmp_path / "poison.py"
    script.write_text(POISON)
    said = finish([sys.executable, str(script), str(videos), str(tmp_path / "cache")], home)
    rows = [json.loads(line) for line in said.splitlines() if line.startswith('["')]
    assert sorted(row[0] for row in rows) == [f"clip{index:02}.mp4" for index in range(4)]
    reason = "the worker died over this video 2 times, expected at most 1"
    assert [row for row in rows if row[1]] == [["clip01.mp4", "worker_died", reason]]
