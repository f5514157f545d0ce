"""One run: a server, a Prometheus, load below and beyond capacity, every query, the picture."""

import argparse
import asyncio
import contextlib
import os
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

from monitoring_parts.dashboard import load_panels
from monitoring_parts.findings import Change, Findings, Line, legends
from monitoring_parts.load import CAMERA_FPS, HASTY_FPS, Clients, webhook_receiver
from monitoring_parts.picture import draw_dashboard
from monitoring_parts.prometheus import (
    Prometheus,
    PrometheusError,
    Series,
    check_configuration,
    copy_configuration,
    free_port,
    running_prometheus,
)
from ovoad_client.bench.frames import load_frames
from ovoad_client.bench.own_server import bench_server
from ovoad_client.bench.result import describe_machine
from ovoad_client.demo import find_demo_video
from ovoad_client.errors import ClientError

DASHBOARD: Final = Path(__file__).parents[2] / "docker" / "grafana" / "dashboards" / "ovoad.json"
ALERT: Final = "OvoadCapacityExceeded"
SLOTS: Final = 8  # calm clients take six at most, hasty ones the rest
TOO_MANY: Final = 5
SCRAPE_S: Final = 15.0
FIRES_WITHIN_S: Final = 240.0
CLEARS_WITHIN_S: Final = 300.0
LOOK_EVERY_S: Final = 2.0


def main(arguments: Sequence[str]) -> int:
    """Run, tell and draw; 1 where something was not as it should be."""
    options = build_parser().parse_args(arguments)
    try:
        if options.redraw is not None:
            findings = Findings.from_json(options.redraw.read_text(encoding="utf-8"))
        else:
            findings = asyncio.run(_run(options))
    except (PrometheusError, ClientError) as error:
        print(error, file=sys.stderr)
        return 1
    if options.json is not None:
        options.json.write_text(findings.to_json(), encoding="utf-8")
    if options.picture is not None:
        panels = load_panels(DASHBOARD, scrape_s=findings.scrape_s, step_s=findings.step_s)
        draw_dashboard(panels, findings, options.picture)
        _say(f"wrote {options.picture}")
    for complaint in findings.complaints:
        print(f"WRONG: {complaint}", file=sys.stderr)
    return 1 if findings.complaints else 0


def build_parser() -> argparse.ArgumentParser:
    """Return the command's flags."""
    parser = argparse.ArgumentParser(description="Watch a loaded server by Prometheus, for real.")
    parser.add_argument("--seconds", type=float, default=300.0, help="of load (300)")
    parser.add_argument(
        "--scrape-s", type=float, default=SCRAPE_S, help="for short runs: the interval (15)"
    )
    parser.add_argument(
        "--no-alert", action="store_true", help="neither test the rules nor wait for the alert"
    )
    parser.add_argument("--picture", type=Path, metavar="FILE", help="draw the dashboard")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep what was found")
    parser.add_argument("--redraw", type=Path, metavar="FILE", help="draw what --json kept")
    return parser


async def _run(options: argparse.Namespace) -> Findings:
    with tempfile.TemporaryDirectory(prefix="ovoad-monitoring-") as name:
        folder = Path(name)
        key = secrets.token_urlsafe(24)
        async with _server(folder, key) as address:
            own = f"127.0.0.1:{free_port()}"
            configuration = copy_configuration(
                folder,
                target=address.removeprefix("http://"),
                own=own,
                key=key,
                scrape_s=options.scrape_s,
            )
            said = await asyncio.to_thread(
                check_configuration, configuration, with_tests=not options.no_alert
            )
            for line in said:
                _say(line)
            port = int(own.rpartition(":")[2])
            async with running_prometheus(configuration, folder, port=port) as prometheus:
                return await Run(options, prometheus, address, key).run()


@contextlib.asynccontextmanager
async def _server(folder: Path, key: str) -> AsyncIterator[str]:
    """Start a server with few slots, a key, and a webhook that is away at first."""
    with webhook_receiver(away_s=60.0) as webhook:
        settings = {
            "OVOAD_API_KEY": key,
            "OVOAD_PROMISED_FPS": "1",
            "OVOAD_RESUME_S": "20",
            "OVOAD_CACHE": str(folder / "cache"),
            "OVOAD_EVENTS_FOLDER": str(folder / "events"),
            "OVOAD_RUNTIME": os.environ.get("OVOAD_RUNTIME", "onnxruntime"),
            "OVOAD_WEBHOOK_URL": webhook,
        }
        async with bench_server([], sessions=SLOTS, say=_say, settings=settings) as address:
            yield address


class Run:
    """The load's course, and what Prometheus tells of it."""

    def __init__(
        self, options: argparse.Namespace, prometheus: Prometheus, address: str, key: str
    ) -> None:
        self._options = options
        self._prometheus = prometheus
        self._clients = Clients(
            address, key, load_frames(None, max_side=640), str(find_demo_video())
        )
        self._findings = Findings(
            machine=describe_machine(),
            start_s=time.time(),
            end_s=0.0,
            scrape_s=options.scrape_s,
            step_s=options.scrape_s,
        )
        self._states: dict[str, str] = {}

    async def run(self) -> Findings:
        """Load the server, watch the alerts, ask every query."""
        half_s, watched = self._options.seconds / 2, not self._options.no_alert
        calm, over = asyncio.Event(), asyncio.Event()
        await self._until(self._scraped, 60.0, "Prometheus did not reach the server")
        self._findings.start_s = time.time()
        async with asyncio.TaskGroup() as tasks:
            for work in self._calm_clients(calm):
                tasks.create_task(work)
            self._tell(f"within capacity for {half_s:g} s")
            await self._until(_never, half_s)
            for work in self._hasty_clients(over):
                tasks.create_task(work)
            self._tell(f"beyond capacity for {half_s:g} s: {TOO_MANY} more cameras, two hasty")
            await self._until(_never, half_s)
            if watched:
                await self._until(self._fires, FIRES_WITHIN_S, f"{ALERT} did not fire")
            over.set()
            if watched:
                self._tell("within capacity again, until the alert clears")
                await self._until(self._has_cleared, CLEARS_WITHIN_S, f"{ALERT} did not clear")
            await self._until(_never, 2 * self._options.scrape_s)
            await self._ask_all()
            calm.set()
        self._tell_of_clients()
        return self._findings

    # ---- load -----------------------------------------------------------------------------------

    def _calm_clients(self, stop: asyncio.Event) -> list[Coroutine[Any, Any, None]]:
        clients, pause_s = self._clients, max(4.0, 3 * self._options.scrape_s)
        return [
            clients.keep_camera(stop),
            clients.keep_camera(stop, policy="lossless"),
            clients.keep_damaged_camera(stop),
            clients.lose_connections(stop, every_s=pause_s),
            clients.send_clips(stop, every_s=pause_s),
            clients.try_wrong_keys(stop, every_s=pause_s),
        ]

    def _hasty_clients(self, stop: asyncio.Event) -> list[Coroutine[Any, Any, None]]:
        paces = [HASTY_FPS, HASTY_FPS] + [CAMERA_FPS] * (TOO_MANY - 2)
        return [self._clients.keep_camera(stop, fps=fps) for fps in paces]

    def _tell_of_clients(self) -> None:
        clients = self._clients
        _say(clients.tally.sentence())
        _say(f"refused: {dict(clients.refused)}; clips: {dict(clients.clips)}")
        _say(f"connections lost and sessions gone on with: {clients.resumed}")
        self._findings.complaints += clients.tally.complaints

    # ---- alerts ---------------------------------------------------------------------------------

    async def _until(
        self, condition: Callable[[], Awaitable[bool]], seconds: float, complaint: str | None = None
    ) -> None:
        """Wait for a condition, watching the alerts; complain where it does not come about."""
        end_s = time.monotonic() + seconds
        while not await condition():
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                if complaint is not None:
                    self._findings.complaints.append(f"{complaint} within {seconds:g} s")
                return
            await asyncio.sleep(min(LOOK_EVERY_S, left_s))
            await self._look_at_alerts()

    async def _look_at_alerts(self) -> None:
        states: dict[str, str] = {}
        for alert in await self._prometheus.alerts():
            states[alert.name] = alert.state
            if alert.state == "firing" and self._states.get(alert.name) != "firing":
                self._tell(f"{alert.name} fires: {alert.annotations['summary']}")
        for name in {*states, *self._states}:
            state = states.get(name, "inactive")
            if state != self._states.get(name, "inactive"):
                self._findings.changes.append(Change(self._passed_s(), name, state))
                if state != "firing":
                    self._tell(f"{name} is {state}")
        self._states = states

    async def _scraped(self) -> bool:
        return (await self._prometheus.targets()).get("ovoad") == "up"

    async def _fires(self) -> bool:
        return self._states.get(ALERT) == "firing"

    async def _has_cleared(self) -> bool:
        return ALERT not in self._states

    def _passed_s(self) -> float:
        return time.time() - self._findings.start_s

    def _tell(self, what: str) -> None:
        _say(f"{self._passed_s():6.1f} s  {what}")

    # ---- queries --------------------------------------------------------------------------------

    async def _ask_all(self) -> None:
        """Ask every query of the dashboard; complain of each that returns nothing."""
        findings = self._findings
        findings.end_s = time.time()
        panels = load_panels(DASHBOARD, scrape_s=findings.scrape_s, step_s=findings.step_s)
        count = 0
        for panel in panels:
            lines: list[Line] = []
            for query in panel.queries:
                found = await self._query(query.expression)
                count += 1
                if not found:
                    findings.complaints.append(f"no data: {panel.title}: {query.expression}")
                lines += legends(query, found)
            findings.panels[panel.number] = lines
        for series in await self._query('ALERTS{alertstate="firing"}'):
            findings.firing.append(Line(series.labels["alertname"], series.labels, series.points))
        findings.complaints += await self._prometheus.failing_rules()
        points = sum(len(line.points) for lines in findings.panels.values() for line in lines)
        _say(
            f"{count} queries of {sum(bool(panel.queries) for panel in panels)} panels, "
            f"{sum(map(len, findings.panels.values()))} series, {points} points"
        )

    async def _query(self, expression: str) -> list[Series]:
        findings = self._findings
        return await self._prometheus.query_range(
            expression, findings.start_s, findings.end_s, findings.step_s
        )


async def _never() -> bool:
    return False


def _say(text: str) -> None:
    print(text, flush=True)
