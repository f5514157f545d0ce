"""One run over an archive: what is pending goes to the workers, what comes back is kept."""

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, Queue
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from ovoad_model.archive.progress import Progress
from ovoad_model.archive.results import Results
from ovoad_model.archive.sources import Video

LOOK_S: Final = 0.5  # how often is looked whether results have waited long enough
MOST_WAITING: Final = 16  # tables between the workers and the results

Score = Callable[[Sequence[Video]], Iterator[pa.Table]]
"""Videos to tables of rows, in any order."""


def run_archive(pending: Sequence[Video], score: Score, results: Results, show: Progress) -> None:
    """Score what is pending; what ends it, a signal too, leaves finished rows written."""
    sizes = {video.path: video.bytes for video in pending}
    counts = show.counts
    try:
        for rows in _with_pauses(lambda: score(pending)):
            if rows is not None:
                taken = results.add(rows)
                paths = taken["path"].to_pylist()
                counts.done += len(paths)
                counts.done_bytes += sum(sizes[path] for path in paths)
                counts.frames += pc.sum(taken["frames"]).as_py() or 0
                counts.bad += taken["status"].to_pylist().count("bad")
            results.flush_if_due()
            show.show()
    finally:
        results.flush()
        show.clear()


def _with_pauses(begin: Callable[[], Iterator[pa.Table]]) -> Iterator[pa.Table | None]:
    """Yield what an iterator yields, and None now and then while it yields nothing.

    The iterator runs in a thread of its own and raises here what it raises.
    """
    waiting: Queue[pa.Table | BaseException | None] = Queue(MOST_WAITING)

    def work() -> None:
        try:
            for table in begin():
                waiting.put(table)
        except BaseException as error:
            waiting.put(error)
        else:
            waiting.put(None)

    threading.Thread(target=work, name="archive", daemon=True).start()
    while True:
        try:
            item = waiting.get(timeout=LOOK_S)
        except Empty:
            yield None
            continue
        if item is None:
            return
        if isinstance(item, BaseException):
            raise item
        yield item
