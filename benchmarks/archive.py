"""An archive of drawn clips: killed half-way and started again, and its speed beside a plain loop.

    python benchmarks/archive.py [--clips 200] [--seconds 2] [--workers 1] [--size 160x120]

Draws the clips, two bad ones among them (one without its end, one of words), then
1. runs `ovoad archive`, ends it with SIGKILL once half of the rows are written, runs it again, and
   checks that every clip has one row, that none was scored twice and that the bad ones are listed;
2. runs it in one piece, into another folder;
3. scores the same clips one after the other in this process, with the library alone.
Rates are between the first row and the last, so that no start counts; the starts are a row of
their own. Extra `scale`.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

os.environ["OPENCV_LOG_LEVEL"] = "SILENT"
os.environ["OPENCV_FFMPEG_LOGLEVEL"] = "-8"

import cv2
import numpy as np
import pyarrow.parquet as pq

from ovoad_client.bench.result import describe_machine
from ovoad_client.bench.table import markdown
from ovoad_model.archive.scoring import score_frames
from ovoad_model.build import build_detector
from ovoad_model.video import VideoError, read_grid_frames

LABELS = ("a red circle", "a person cooking", "a street at night")
RUNTIME = "onnxruntime"
FPS = 25
LIMIT_S = 3600


@dataclass(frozen=True)
class Rate:
    """How fast clips were scored, and how long it took until the first was."""

    start_s: float
    clips_per_s: float
    frames_per_s: float


def draw_clips(folder: Path, count: int, seconds: float, size: tuple[int, int]) -> list[Path]:
    """Draw count - 2 clips of a rectangle that moves over noise, and two bad files."""
    width, height = size
    random = np.random.default_rng(0)
    for index in range(count - 2):
        path = folder / f"clip{index:04}.mp4"
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, size)
        noise = random.integers(0, 256, (height, width, 3), np.uint8)
        for frame in range(round(FPS * seconds)):
            pixels = np.roll(noise, frame, axis=1)
            left = (index + 3 * frame) % (width // 2)
            cv2.rectangle(pixels, (left, height // 4), (left + 40, height // 2), (0, 0, 255), -1)
            writer.write(pixels)
        writer.release()
    data = (folder / "clip0000.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(data[: len(data) // 2])
    (folder / "words.mp4").write_text("these are words and no video")
    return sorted(folder.iterdir())


def command(clips: Path, out: Path, workers: int, *flags: str) -> list[str]:
    """Return the command that is measured."""
    return [
        *(sys.executable, "-m", "ovoad_model.archive.command", str(clips), "--out", str(out)),
        *("--labels", *LABELS, "--runtime", RUNTIME, "--workers", str(workers), *flags),
    ]


def read_rows(out: Path) -> list[dict[str, Any]]:
    """Return the rows of all files, without scores."""
    columns = ["path", "status", "error_code", "frames", "scored_at"]
    files = sorted(out.glob("*.parquet"))
    return [row for file in files for row in pq.ParquetFile(file).read(columns).to_pylist()]


def kill_half_way(clips: Path, out: Path, count: int, workers: int) -> int:
    """Run until half of the rows are written, then kill; return how many rows there are."""
    flags = ("--part-seconds", "0", "--quiet")
    with subprocess.Popen(command(clips, out, workers, *flags)) as process:
        while process.poll() is None and len(list(out.glob("*.parquet"))) < count // 2:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    return len(read_rows(out))


def check_once(paths: list[Path], out: Path, before: dict[str, datetime]) -> list[str]:
    """Check that every clip has one row and kept the one it had; return the bad ones."""
    rows = read_rows(out)
    assert sorted(row["path"] for row in rows) == [str(path) for path in paths]
    again = {row["path"]: row["scored_at"] for row in rows}
    assert all(again[path] == scored_at for path, scored_at in before.items())
    return [f"{Path(row['path']).name}: {row['error_code']}" for row in rows if row["error_code"]]


def measure_archive(clips: Path, out: Path, workers: int) -> Rate:
    """Run in one piece."""
    begun_s = time.time()
    subprocess.run(command(clips, out, workers, "--quiet"), check=True, timeout=LIMIT_S)
    rows = sorted(read_rows(out), key=lambda row: row["scored_at"])
    times_s = [row["scored_at"].timestamp() for row in rows]
    span_s = times_s[-1] - times_s[0]
    frames = sum(row["frames"] or 0 for row in rows[1:])
    return Rate(times_s[0] - begun_s, (len(rows) - 1) / span_s, frames / span_s)


def measure_loop(paths: list[Path]) -> Rate:
    """Score clip after clip in this process."""
    begun_s = time.perf_counter()
    detector = build_detector(encoder="embedded", runtime=RUNTIME)
    vocabulary = detector.vocabulary(LABELS)
    ends_s, frames = [], []
    for path in paths:
        try:
            scores = score_frames(detector, vocabulary, read_grid_frames(path))
            frames.append(len(scores.timestamps_ms))
        except VideoError:
            frames.append(0)
        ends_s.append(time.perf_counter())
    span_s = ends_s[-1] - ends_s[0]
    return Rate(ends_s[0] - begun_s, (len(paths) - 1) / span_s, sum(frames[1:]) / span_s)


def main() -> int:
    """Run all three and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--size", default="160x120")
    arguments = parser.parse_args()
    width, height = (int(side) for side in arguments.size.split("x"))
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        clips, killed = Path(folder, "clips"), Path(folder, "killed")
        clips.mkdir()
        paths = draw_clips(clips, arguments.clips, arguments.seconds, (width, height))
        rows = kill_half_way(clips, killed, len(paths), arguments.workers[0])
        before = {row["path"]: row["scored_at"] for row in read_rows(killed)}
        subprocess.run(command(clips, killed, arguments.workers[0]), check=True, timeout=LIMIT_S)
        bad = check_once(paths, killed, before)
        print(f"killed with {rows} of {len(paths)} rows; started again: each once; bad: {bad}")
        rates = {"plain loop, one process": measure_loop(paths)}
        for workers in arguments.workers:
            out = Path(folder, f"whole{workers}")
            rates[f"ovoad archive --workers {workers}"] = measure_archive(clips, out, workers)
        plain = rates["plain loop, one process"]
        body = [
            (
                name,
                f"{rate.clips_per_s:.1f}",
                f"{rate.frames_per_s:.0f}",
                f"{rate.clips_per_s / plain.clips_per_s:.2f}",
                f"{rate.start_s:.1f}",
            )
            for name, rate in rates.items()
        ]
        heads = ("", "clips/s", "frames/s", "of the plain loop", "until the first, s")
        print("\n".join(markdown(heads, body)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
