"""`ovoad archive SOURCE…`: score folders and object stores of videos; Parquet out."""

import argparse
import signal
import sys
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from ovoad_model.archive.arguments import build_parser, check_address, settings_from
from ovoad_model.archive.errors import ArchiveError
from ovoad_model.archive.settings import ArchiveSettings, describe
from ovoad_model.errors import ModelError
from ovoad_model.open_clip_encoder.notes import default_cache

if TYPE_CHECKING:  # needs the extra, which is looked for first
    from ovoad_model.archive.progress import Progress
    from ovoad_model.archive.results import Results
    from ovoad_model.archive.sources import Video

FAILED: Final = 1
SOME_BAD: Final = 3
INTERRUPTED: Final = 130


def main(argv: list[str] | None = None) -> int:
    """Run `ovoad archive ARGV`: 0 when every video has a row; docs/archives.md tells the others."""
    arguments = build_parser().parse_args(argv)
    for module in ("pyarrow", "ray"):
        if find_spec(module) is None:
            print(
                f"ovoad archive: needs the scale extra (found no module {module}): "
                "pip install 'ovoad[scale]'",
                file=sys.stderr,
            )
            return FAILED
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return _run(arguments)
    except (ModelError, OSError) as error:
        print(f"ovoad archive: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("\novoad archive: interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED


def _run(arguments: argparse.Namespace) -> int:
    from ovoad_model.archive.progress import Counts, Progress, summary
    from ovoad_model.archive.results import Part, Results
    from ovoad_model.archive.sources import list_videos
    from ovoad_model.archive.storage import Folder

    check_address(arguments.address)
    settings = settings_from(arguments)
    cache = arguments.cache or default_cache()
    description = describe(settings, settings.build_detector(cache, frames=False))
    videos = list_videos(arguments.sources)
    folder = Folder(arguments.out)
    try:
        part = Part(videos=arguments.part_videos, seconds=arguments.part_seconds)
        results = Results(folder, description, part)
        pending = results.pending(videos, retry_bad=arguments.retry_bad)
        pending.sort(key=lambda video: -video.bytes)  # so that no long one is left for the end
        size = sum(video.bytes for video in pending)
        counts = Counts(len(pending), size, before=len(videos) - len(pending))
        show = Progress(counts, quiet=arguments.quiet)
        if pending:
            _score(arguments, settings, description.digest, pending, results, show)
        if not arguments.quiet:
            print("\n".join(summary(counts, results.bad, show.elapsed_s)))
        return SOME_BAD if arguments.strict and results.bad else 0
    finally:
        folder.close()


def _score(
    arguments: argparse.Namespace,
    settings: ArchiveSettings,
    digest: str,
    pending: "Sequence[Video]",
    results: "Results",
    show: "Progress",
) -> None:
    """Score what is pending on Ray; raises ArchiveError."""
    from ovoad_model.archive.cluster import Cluster, open_ray, score_on_ray
    from ovoad_model.archive.decoder import TimeLimits
    from ovoad_model.archive.run import run_archive
    from ovoad_model.archive.worker import Setup

    cluster = Cluster(
        workers=min(arguments.workers, len(pending)),
        address=arguments.address,
        cpus_per_worker=arguments.cpus_per_worker,
        gpus_per_worker=arguments.gpus_per_worker,
    )
    limits = TimeLimits(stall_s=arguments.stall_timeout, video_s=arguments.time_limit)
    setup = Setup(settings, digest, arguments.cache or default_cache(), limits)
    with open_ray(cluster):
        import ray

        signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray put its own there
        show.begin()
        try:
            run_archive(pending, partial(score_on_ray, setup=setup, cluster=cluster), results, show)
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ArchiveError(
                f"Ray gave up ({type(error).__name__}: {reason}); the same command goes on "
                "from the rows that are written"
            ) from error


if __name__ == "__main__":
    sys.exit(main())
