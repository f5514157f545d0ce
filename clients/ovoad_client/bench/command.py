"""`ovoad bench`: measure a server under load, and the bare model beside it."""

import asyncio
import contextlib
import dataclasses
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from ovoad_client.bench.arguments import Options, parse
from ovoad_client.bench.bare import measure_baseline
from ovoad_client.bench.capacity import find_capacity
from ovoad_client.bench.frames import load_frames, write_frames
from ovoad_client.bench.load import Load, run_load
from ovoad_client.bench.own_server import bench_server
from ovoad_client.bench.plot import draw_report
from ovoad_client.bench.progress import Progress
from ovoad_client.bench.resources import allow_files
from ovoad_client.bench.result import Baseline, Report, Row, describe_machine
from ovoad_client.bench.session import SessionPlan
from ovoad_client.bench.table import report_lines
from ovoad_client.errors import ClientError
from ovoad_client.exits import exit_status
from ovoad_client.interrupts import EXIT_INTERRUPTED, Interrupts
from ovoad_client.plot import check_plotting

BASELINE_FRAMES: Final = 64
SPARE_SESSIONS: Final = 8
SERIAL_TURNS: Final = 3


def main(argv: list[str] | None = None) -> int:
    """Run the bench; 1 where frames were not answered once each, 130 after Ctrl-C."""

    def work() -> int:
        options = parse(argv)
        if options.plot is not None:
            check_plotting(options.plot)
        return asyncio.run(_run(options))

    return exit_status("ovoad bench", work)


async def _run(options: Options) -> int:
    frames = load_frames(options.video, max_side=options.max_side)
    progress = Progress()
    report = Report(title=f"{options.encoder or 'embedded'} on {describe_machine()}")
    progress.say(report.title if options.url is None else f"server at {options.url}")
    size = sum(map(len, frames)) / len(frames) / 1024
    progress.say(f"{len(frames)} JPEGs of {size:.0f} KiB on average, sent round and round")
    failure: ClientError | None = None
    with Interrupts() as interrupts:
        try:
            async with _server(options, progress) as url:
                bench = Bench(options, url, frames, report, progress)
                interrupts.stop = bench.stop.set
                await bench.measure()
                interrupts.stop = None
        except ClientError as error:  # what was measured before it is told first
            failure = error
    report.interrupted = interrupts.interrupted
    progress.clear()
    if report.rows or report.baselines:
        _tell(report, options, progress)
    if failure is not None:
        raise failure
    if report.interrupted:
        return EXIT_INTERRUPTED
    return 1 if report.tally().complaints else 0


@contextlib.asynccontextmanager
async def _server(options: Options, progress: Progress) -> AsyncIterator[str]:
    if options.url is not None:
        allow_files(options.sessions)
        yield options.url
        return
    flags: list[str] = []
    for name, value in (("--encoder", options.encoder), ("--runtime", options.runtime)):
        flags += [name, value] if value else []
    progress.say("starting a server")
    sessions = options.sessions + SPARE_SESSIONS
    async with bench_server(flags, sessions=sessions, say=progress.tell) as url:
        yield url


class Bench:
    """A run of the bench: what it measures goes into `report`, until `stop` is set."""

    def __init__(
        self,
        options: Options,
        url: str,
        frames: Sequence[bytes],
        report: Report,
        progress: Progress,
    ) -> None:
        self.stop = asyncio.Event()
        self._options = options
        self._frames = frames
        self._report = report
        self._progress = progress
        self._target = SessionPlan(
            url,
            options.labels,
            "lossless",
            fps=0,
            inflight=None,
            api_key=options.api_key,
            scorer=options.scorer,
            top_k=options.top_k,
        )

    async def measure(self) -> None:
        """Measure all that the options ask for."""
        if self._options.find_capacity:
            await self._capacities()
        elif self._options.baseline:
            await self._loads_between_baselines()
        else:
            for number, load in enumerate(self._options.loads, 1):
                self._progress.prefix = f"{number}/{len(self._options.loads)} "
                row = await self._row(load)
                if row is not None:
                    self._report.rows.append(row)

    async def _row(self, load: Load) -> Row | None:
        """Run one load; None where the bench was stopped before anything was measured."""
        if self.stop.is_set():
            return None
        row = await run_load(
            load,
            self._target,
            self._frames,
            stop=self.stop,
            tell=self._progress.tell,
            own_server=self._options.url is None,
        )
        if self.stop.is_set() and not row.predictions:
            return None
        self._progress.say(_line(row))
        return row

    async def _capacities(self) -> None:
        options = self._options
        for load in options.loads:

            async def measure(sessions: int, load: Load = load) -> Row:
                row = await self._row(dataclasses.replace(load, sessions=sessions))
                if row is None:
                    raise asyncio.CancelledError
                self._report.rows.append(row)
                if self.stop.is_set():
                    raise asyncio.CancelledError
                return row

            try:
                found = await find_capacity(
                    measure,
                    first=load.sessions,
                    most=options.most_sessions,
                    budget_ms=options.budget_ms,
                )
            except asyncio.CancelledError:
                if not self.stop.is_set():
                    raise
                return
            self._report.capacities.append(found)
            self._report.rows.sort(key=lambda row: (row.fps, row.policy, row.sessions))

    async def _loads_between_baselines(self) -> None:
        options = self._options
        with tempfile.TemporaryDirectory(prefix="ovoad-bench-") as name:
            folder = Path(name)
            write_frames(self._frames[:BASELINE_FRAMES], folder)
            before = await self._baseline(folder, ("--batches", *map(str, options.batches)))
            if before is None:
                return
            quick = ("--batches", *{"1", str(before.best_batch)}, "--windows")
            for load in options.loads:
                row = await self._row(load)
                after = await self._baseline(folder, quick)
                if row is not None:
                    around = (before.best_fps, *([after.best_fps] if after else []))
                    self._report.rows.append(dataclasses.replace(row, bare_fps=around))
                if after is None:
                    return
                before = after
            await self._one_at_a_time(folder, before)

    async def _one_at_a_time(self, folder: Path, before: Baseline) -> None:
        """Take turns with the bare model: one session with one frame in flight."""
        first = self._options.loads[0]
        serial = Load(1, 0.0, "lossless", first.seconds, first.warmup_s, inflight=1)
        for _ in range(SERIAL_TURNS):
            row = await self._row(serial)
            after = await self._baseline(folder, ("--batches", "1", "--windows"))
            if row is None or after is None:
                return
            around = (before.bare_ms["total"], after.bare_ms["total"])
            self._report.one_at_a_time.append(dataclasses.replace(row, bare_ms=around))
            before = after

    async def _baseline(self, folder: Path, flags: Sequence[str]) -> Baseline | None:
        if self.stop.is_set():
            return None
        options = self._options
        flags = [*flags, "--labels", *options.labels, "--seconds", f"{options.baseline_seconds}"]
        named = (
            ("--encoder", options.encoder),
            ("--runtime", options.runtime),
            ("--scorer", options.scorer),
        )
        for name, value in named:
            flags += [name, value] if value else []
        self._progress.tell("measuring the bare model")
        found = await measure_baseline(folder, flags, stop=self.stop)
        if found is not None:
            self._report.baselines.append(found)
            self._progress.say(
                f"bare model: {found.best_fps:.1f} frames/s at batch {found.best_batch}, "
                f"one frame {found.bare_ms['total']:.1f} ms"
            )
        return found


def _line(row: Row) -> str:
    times = row.end_to_end
    return (
        f"{row.asked}: {row.frames_per_s:.1f} frames/s, "
        f"p50 {times.p50:.0f} ms, p99 {times.p99:.0f} ms, {sum(row.dropped.values())} dropped"
    )


def _tell(report: Report, options: Options, progress: Progress) -> None:
    """Print the report and write the files that were asked for."""
    progress.say("")
    for line in report_lines(report):
        progress.say(line)
    if report.interrupted:
        progress.say("interrupted: this is what there is")
    if options.json is not None:
        try:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(report.to_json(), encoding="utf-8")
        except OSError as error:
            raise ClientError(f"cannot write '{options.json}': {error}") from error
        progress.say(f"wrote {options.json}")
    if options.plot is not None and report.rows:
        draw_report(report, options.plot)
        progress.say(f"wrote {options.plot}")


if __name__ == "__main__":
    sys.exit(main())
