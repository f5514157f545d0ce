"""Extract frame features: a folder of videos to a folder of VIDEO.npy [L, F] at 4 fps.

Decoding runs in threads, encoding in the caller's; knows no captions and no network.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Event
from typing import Final

import numpy as np

from ovoad_model.arrays import Float32Array, Frame
from ovoad_model.encoder import Encoder
from ovoad_model.training.feature_store import (
    FeatureDescription,
    FeatureError,
    map_features,
)
from ovoad_model.training.files import write_atomically
from ovoad_model.video import VideoError, read_grid_frames
from ovoad_model.window import GRID_MS

VIDEO_ENDINGS: Final = frozenset(
    (".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm", ".wmv")
)
WAIT_S: Final = 0.5
"""How often a waiting thread looks whether it should stop."""


@dataclass(frozen=True)
class DamagedVideo:
    """A video that gave no features, and why."""

    path: Path
    reason: str


@dataclass
class ExtractionReport:
    """What an extraction did: videos written, skipped (finished before) and damaged."""

    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    damaged: list[DamagedVideo] = field(default_factory=list)
    frames: int = 0


@dataclass(frozen=True)
class _Chunk:
    """Some consecutive grid frames of a video; the last one says whether reading it failed."""

    video: Path
    times_ms: list[int]
    frames: list[Frame]
    last: bool = False
    failure: str | None = None


def find_videos(folder: Path) -> list[Path]:
    """List the video files in a folder and those below, by name.

    Raises FeatureError where two share a stem, because both would be written to one VIDEO.npy.
    """
    if not folder.is_dir():
        raise FeatureError(folder, "found no such folder, expected videos")
    videos = sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_ENDINGS)
    by_stem: dict[str, Path] = {}
    for video in videos:
        other = by_stem.setdefault(video.stem, video)
        if other is not video:
            raise FeatureError(video, f"found the same name as {other}, expected one file a name")
    return videos


def extract_features(
    videos: Sequence[Path],
    encoder: Encoder,
    out: Path,
    *,
    batch_size: int = 32,
    workers: int = 2,
    on_video: Callable[[Path], None] = lambda video: None,
) -> ExtractionReport:
    """Encode each video's 4 fps frames into out/VIDEO.npy, float32 [L, F].

    Row i is the frame of grid time i x 250 ms; where a video has no frame there (a source slower
    than the grid, a gap) it repeats the row before. Finished videos are skipped; each file is
    written whole or not at all, so a run that was stopped goes on where it was. Damaged videos are
    reported and leave no file. on_video is called once for every video that is done.

    Raises FeatureError where `out` holds features of another encoder.
    """
    _claim_folder(out, encoder)
    report = ExtractionReport()
    todo = []
    for video in videos:
        if _is_finished(out / f"{video.stem}.npy", encoder.feature_width):
            report.skipped.append(video)
            on_video(video)
        else:
            todo.append(video)
    held: dict[Path, _Rows] = {}
    for chunk in _decode_all(todo, batch_size, workers):
        rows = held.setdefault(chunk.video, _Rows())
        if chunk.frames:
            rows.add(chunk.times_ms, encoder.encode_frames(chunk.frames))
            report.frames += len(chunk.frames)
        if not chunk.last:
            continue
        del held[chunk.video]
        if chunk.failure is None:
            rows.write(out / f"{chunk.video.stem}.npy")
            report.written.append(chunk.video)
        else:
            report.damaged.append(DamagedVideo(chunk.video, chunk.failure))
        on_video(chunk.video)
    return report


class _Rows:
    """Collect a video's features on the grid."""

    def __init__(self) -> None:
        self._cells: list[int] = []
        self._features: list[Float32Array] = []

    def add(self, times_ms: Sequence[int], features: Float32Array) -> None:
        self._cells += [round(time_ms / GRID_MS) for time_ms in times_ms]
        self._features.append(features)

    def write(self, path: Path) -> None:
        """Write [L, F]; an empty cell takes the row before it."""
        features = np.concatenate(self._features).astype(np.float32)
        cells = np.array(self._cells)
        source = np.searchsorted(cells, np.arange(cells[-1] + 1), side="right") - 1
        write_atomically(path, lambda stream: np.save(stream, features[source]))


def _claim_folder(out: Path, encoder: Encoder) -> None:
    """Note in the folder whose features it holds, or refuse it as another encoder's."""
    mine = FeatureDescription(encoder.name, encoder.fingerprint, encoder.feature_width)
    found = FeatureDescription.read(out)
    if found is None:
        mine.write(out)
    elif found.fingerprint != mine.fingerprint:
        raise FeatureError(
            out,
            f"found features of {found.encoder} ({found.fingerprint[:12]}), expected "
            f"{mine.encoder} ({mine.fingerprint[:12]})",
        )


def _is_finished(path: Path, feature_width: int) -> bool:
    try:
        return bool(map_features(path).shape[1] == feature_width)
    except FeatureError:
        return False


def _decode_all(videos: Sequence[Path], batch_size: int, workers: int) -> Iterator[_Chunk]:
    """Decode videos in threads; yield chunks as they come, each video's in order.

    At most two chunks a worker wait, whatever the videos' length.
    """
    waiting: Queue[_Chunk] = Queue(maxsize=2 * workers)
    stop = Event()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        try:
            jobs = [pool.submit(_decode, video, batch_size, waiting, stop) for video in videos]
            unfinished = len(videos)
            while unfinished:
                try:
                    chunk = waiting.get(timeout=WAIT_S)
                except Empty:
                    for job in jobs:
                        if job.done():
                            job.result()  # a fault of ours in a thread must not hang the run
                    continue
                unfinished -= chunk.last
                yield chunk
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _decode(video: Path, batch_size: int, waiting: Queue[_Chunk], stop: Event) -> None:
    """Put one video's chunks into the queue, the last with what failed, if anything did."""
    frames = read_grid_frames(video)
    try:
        while part := list(islice(frames, batch_size)):
            times_ms = [time_ms for time_ms, _ in part]
            if not _put(waiting, _Chunk(video, times_ms, [frame for _, frame in part]), stop):
                return
    except VideoError as error:
        _put(waiting, _Chunk(video, [], [], last=True, failure=error.reason), stop)
    else:
        _put(waiting, _Chunk(video, [], [], last=True), stop)


def _put(waiting: Queue[_Chunk], chunk: _Chunk, stop: Event) -> bool:
    """Wait for room in the queue; give up, and say so, once the run stops."""
    while not stop.is_set():
        try:
            waiting.put(chunk, timeout=WAIT_S)
        except Full:
            continue
        return True
    return False
