"""What scores an archive's videos, one after the other: a video in, a row out.

Holds the model and a decoder; whatever is wrong with a video ends in its row. Knows no Ray.
"""

import logging
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa
from pyarrow import fs

from ovoad_model.archive.decoder import Decoder, TimeLimits
from ovoad_model.archive.errors import ArchiveError, BadVideoError
from ovoad_model.archive.rows import Maker
from ovoad_model.archive.scoring import score_frames
from ovoad_model.archive.scratch import clear_scratch, scratch_file
from ovoad_model.archive.settings import ArchiveSettings
from ovoad_model.archive.sources import Video, store_of

log = logging.getLogger(__name__)
DECODER_TRIES: Final = 2
COPY_BYTES: Final = 2**20


@dataclass(frozen=True)
class Setup:
    """All that a worker needs, on whatever machine it starts."""

    settings: ArchiveSettings
    digest: str
    cache: Path
    limits: TimeLimits = field(default_factory=TimeLimits)


class Worker:
    """Scores videos with one model."""

    def __init__(self, setup: Setup) -> None:
        settings = setup.settings
        clear_scratch()
        self._decoder = Decoder(setup.limits)
        self._detector = settings.build_detector(setup.cache)
        words = self._detector.vocabulary(
            settings.labels, templates=settings.templates, background=settings.background
        )
        self._make = Maker(settings, setup.digest, self._detector.facts, words)

    def close(self) -> None:
        """End the decoder."""
        self._decoder.close()

    def score(self, video: Video) -> pa.Table:
        """Return a video's row, with its scores or with why there are none."""
        begun_s = time.monotonic()
        for attempt in range(1, DECODER_TRIES + 1):
            try:
                return self._score(video, begun_s)
            except BadVideoError as error:
                if error.code != "decoder_died" or attempt == DECODER_TRIES:
                    return self._make.bad(video, error.code, str(error), _since(begun_s))
            except Exception as error:  # a fault of ours over one video is that video's alone
                log.exception("%s", video.path)
                self._decoder.close()
                text = f"{type(error).__name__}: {error}"
                return self._make.bad(video, "failed", text, _since(begun_s))
        raise AssertionError("the last attempt returns")

    def give_up(self, video: Video, deaths: int) -> pa.Table:
        """Return the row of a video over which workers died before they could tell why."""
        text = f"the worker died over this video {deaths} times, expected at most {deaths - 1}"
        return self._make.bad(video, "worker_died", text, 0.0)

    def _score(self, video: Video, begun_s: float) -> pa.Table:
        make = self._make
        with _on_disk(video) as path:
            header, frames = self._decoder.frames(path, fps=make.settings.fps)
            scores = score_frames(self._detector, make.vocabulary, frames)
        return make.scored(video, header, scores, _since(begun_s))


@contextmanager
def _on_disk(video: Video) -> Iterator[Path]:
    """Give a path to a video's file, copied from its store where that is none of ours."""
    try:
        store = store_of(video.store)
    except ArchiveError as error:
        raise BadVideoError("unreadable", str(error)) from error
    if isinstance(store, fs.LocalFileSystem):
        yield Path(video.key)
        return
    with scratch_file(Path(video.key).suffix) as path:
        try:
            with store.open_input_stream(video.key) as source, path.open("wb") as copy:
                shutil.copyfileobj(source, copy, COPY_BYTES)
        except (OSError, pa.ArrowException) as error:
            raise BadVideoError("unreadable", f"cannot be read ({error})") from error
        size = path.stat().st_size
        if size != video.bytes:
            raise BadVideoError("unreadable", f"found {size} bytes, expected {video.bytes}")
        yield path


def _since(begun_s: float) -> float:
    return time.monotonic() - begun_s
