"""An archive's videos on many workers through Ray Data: videos in, rows out, in any order.

Knows neither files of results nor arguments. Ray tries a worker's video again when the worker dies
(no memory, a lost machine), as often as it takes; `Attempts` bounds that.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Final

import pyarrow as pa

from ovoad_model.archive.errors import ArchiveError
from ovoad_model.archive.sources import Video
from ovoad_model.archive.worker import Setup, Worker

MOST_DEATHS: Final = 2  # of workers, over one video
MOST_BLOCKS: Final = 20_000  # of more videos, several share one: each costs its driver memory


@dataclass(frozen=True)
class Cluster:
    """Which Ray, and what each worker gets; address None starts one on this machine alone."""

    workers: int
    address: str | None = None
    cpus_per_worker: float = 1.0
    gpus_per_worker: float = 0.0
    object_store_bytes: int = 256 * 2**20


class Attempts:
    """Counts how often a worker began with a video and did not come to its end."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    def begin(self, path: str) -> int:
        """Count a beginning; return how many before it came to no end."""
        self._open[path] += 1
        return self._open[path] - 1

    def finish(self, path: str) -> None:
        """Forget a video."""
        del self._open[path]


class RayWorker:
    """A Worker as Ray Data calls it: a table of one video in, its row out."""

    def __init__(self, setup: Setup, attempts: Any) -> None:
        self._worker = Worker(setup)
        self._attempts = attempts

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Score the videos of a batch."""
        import ray

        rows = []
        for members in batch.to_pylist():
            video = Video(**members)
            deaths = ray.get(self._attempts.begin.remote(video.path))
            if deaths < MOST_DEATHS:
                rows.append(self._worker.score(video))
            else:
                rows.append(self._worker.give_up(video, deaths))
            self._attempts.finish.remote(video.path)
        return pa.concat_tables(rows)


@contextmanager
def open_ray(cluster: Cluster) -> Iterator[None]:
    """Start Ray on this machine's loopback alone, or join the one at an address."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if cluster.address is None:
        # By this name Ray stays on 127.0.0.1, on Linux too.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if cluster.address is not None:
            ray.init(address=cluster.address, **common)
        else:
            ray.init(
                address="local",
                num_cpus=max(os.cpu_count() or 1, round(cluster.workers * cluster.cpus_per_worker)),
                include_dashboard=False,
                object_store_memory=cluster.object_store_bytes,
                _node_ip_address="127.0.0.1",
                **common,
            )
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise ArchiveError(f"found no Ray to run on ({error})") from error
    try:
        if cluster.address is None:
            _check_room(ray.cluster_resources(), cluster)
        yield
    finally:
        for name in ("ray", "ray.data"):  # an interrupted run is told by us, not by their traces
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        ray.shutdown()


def score_on_ray(videos: Sequence[Video], setup: Setup, cluster: Cluster) -> Iterator[pa.Table]:
    """Yield a table of rows as soon as it is there; raises ray.exceptions.RayError.

    Needs `open_ray`. A worker has one video at a time: what kills it kills no other's work.
    """
    import ray

    _quieten()
    attempts = ray.remote(num_cpus=0, max_restarts=-1)(Attempts).remote()
    rows = ray.data.from_items(
        [asdict(video) for video in videos],
        override_num_blocks=min(len(videos), MOST_BLOCKS),
    ).map_batches(
        RayWorker,
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=cluster.workers, max_tasks_in_flight_per_actor=1),
        fn_constructor_kwargs={"setup": setup, "attempts": attempts},
        num_cpus=cluster.cpus_per_worker,
        num_gpus=cluster.gpus_per_worker or None,
    )
    yield from rows.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


def _check_room(found: dict[str, float], cluster: Cluster) -> None:
    """Refuse workers for which this machine never has room: Ray would wait for it."""
    gpus = found.get("GPU", 0.0)
    if gpus < cluster.gpus_per_worker:
        raise ArchiveError(
            f"found {gpus:g} GPUs, expected {cluster.gpus_per_worker:g} at least for a worker"
        )


def _quieten() -> None:
    """Let Ray Data print no plans and no bars, and wait for a long video as long as it takes."""
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.enable_operator_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
