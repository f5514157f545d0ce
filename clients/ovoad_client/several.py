"""Watch several sources at once, each through a session of its own. Knows no terminal."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ovoad_client.counts import describe_drops
from ovoad_client.errors import ClientError
from ovoad_client.interrupts import Interrupts
from ovoad_client.outputs import ENDINGS
from ovoad_client.protocol import DropReason
from ovoad_client.sources import VideoSource
from ovoad_client.watching import View, WatchOptions, WatchSummary, watch


@dataclass(frozen=True)
class Watched:
    """What became of one source; summary is None where its session did not open."""

    name: str
    options: WatchOptions
    summary: WatchSummary | None
    failure: ClientError | None


async def watch_several(
    sources: Sequence[VideoSource],
    options: WatchOptions,
    views: Sequence[View],
    interrupts: Interrupts,
) -> list[Watched]:
    """Watch all sources until each has ended; one that fails ends none of the others.

    The files of options.save and options.plot get a number, out.mp4 becoming out.1.mp4, out.2.mp4
    in the order of the sources. The first interrupt stops all of them in order.
    """
    inner = [Interrupts() for _ in sources]
    try:
        return await _watch_together(sources, options, views, interrupts, inner)
    except* BrokenPipeError:
        pass
    raise BrokenPipeError  # whoever read what the views print has gone


async def _watch_together(
    sources: Sequence[VideoSource],
    options: WatchOptions,
    views: Sequence[View],
    interrupts: Interrupts,
    inner: Sequence[Interrupts],
) -> list[Watched]:
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(_watch_one(source, numbered(options, number), view, interrupt))
            for number, (source, view, interrupt) in enumerate(
                zip(sources, views, inner, strict=True), start=1
            )
        ]

        def stop() -> None:
            for interrupt, task in zip(inner, tasks, strict=True):
                if interrupt.stop is None:  # not open yet
                    task.cancel()
                interrupt.interrupt()

        interrupts.stop = stop
    interrupts.stop = None
    return [
        Watched(source.name, numbered(options, number), None, None)
        if task.cancelled()
        else task.result()
        for number, (source, task) in enumerate(zip(sources, tasks, strict=True), start=1)
    ]


async def _watch_one(
    source: VideoSource, options: WatchOptions, view: View, interrupts: Interrupts
) -> Watched:
    try:
        summary = await watch(source, options, view, interrupts)
    except ClientError as error:
        source.close()
        view.say(f"ended: {error}")
        return Watched(source.name, options, None, error)
    return Watched(source.name, options, summary, summary.failure)


def numbered(options: WatchOptions, number: int) -> WatchOptions:
    """Return the options with the source's number in the name of each file."""
    return replace(
        options,
        save=[_numbered_path(path, number) for path in options.save],
        plot=None if options.plot is None else _numbered_path(options.plot, number),
    )


def _numbered_path(path: Path, number: int) -> Path:
    """Return out.1.mp4 for out.mp4, and out.1.events.csv for out.events.csv."""
    name = path.name
    known = (ending for ending, _ in ENDINGS if name.lower().endswith(ending))
    at = len(name) - len(next(known, path.suffix))
    return path.with_name(f"{name[:at]}.{number}{name[at:]}")


def total_line(watched: Sequence[Watched]) -> str:
    """Return the sum over all sources as a line for a person."""
    summaries = [one.summary for one in watched if one.summary is not None]
    dropped: Counter[DropReason] = Counter()
    for summary in summaries:
        dropped.update(summary.dropped)
    text = (
        f"{len(watched)} sources: {sum(one.sent for one in summaries)} frames sent, "
        f"{sum(one.predicted for one in summaries)} predictions, "
        f"dropped: {describe_drops(dropped)}, errors: {sum(one.errors for one in summaries)}"
    )
    lost, skipped = sum(one.lost for one in summaries), sum(one.skipped for one in summaries)
    text += f", lost: {lost}" if lost else ""
    text += f"; {skipped} more skipped before sending" if skipped else ""
    failed = sum(one.failure is not None for one in watched)
    return text + (f"; {failed} sources failed" if failed else "")
