"""A Prometheus of our own with the shipped configuration: started, asked over HTTP, stopped."""

import asyncio
import contextlib
import json
import math
import shutil
import socket
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

SHIPPED: Final = Path(__file__).parents[2] / "docker" / "prometheus"
START_TIMEOUT_S: Final = 30.0
STOP_TIMEOUT_S: Final = 10.0
PROMTOOL_TIMEOUT_S: Final = 300.0
QUERY_TIMEOUT_S: Final = 30.0
Points = list[tuple[float, float]]


class PrometheusError(Exception):
    """Prometheus or promtool that cannot be run, or found something wrong."""


@dataclass(frozen=True)
class Series:
    """One series of an answer: its labels and its (seconds, value) points, none of them NaN."""

    labels: Mapping[str, str]
    points: Points


@dataclass(frozen=True)
class Alert:
    """An alert that is pending or firing, as Prometheus tells it."""

    name: str
    state: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True)
class Prometheus:
    """One that runs."""

    url: str

    async def targets(self) -> dict[str, str]:
        """Return the health of each job's target: up, down or unknown."""
        found = await self._get("targets", {})
        return {each["labels"]["job"]: each["health"] for each in found["activeTargets"]}

    async def alerts(self) -> list[Alert]:
        """Return the alerts that are pending or firing."""
        found = await self._get("alerts", {})
        return [
            Alert(each["labels"]["alertname"], each["state"], each["labels"], each["annotations"])
            for each in found["alerts"]
        ]

    async def failing_rules(self) -> list[str]:
        """Return the rules that could not be evaluated, with the reason."""
        found = await self._get("rules", {})
        rules = [rule for group in found["groups"] for rule in group["rules"]]
        if not rules:
            return ["no rule was loaded"]
        return [
            f"{rule['name']}: {rule.get('lastError') or rule['health']}"
            for rule in rules
            if rule["health"] != "ok"
        ]

    async def query_range(
        self, expression: str, start_s: float, end_s: float, step_s: float
    ) -> list[Series]:
        """Return the series of an expression over a stretch of time."""
        found = await self._get(
            "query_range",
            {"query": expression, "start": start_s, "end": end_s, "step": step_s},
        )
        series = [Series(each["metric"], _points(each["values"])) for each in found["result"]]
        return [each for each in series if each.points]

    async def _get(self, name: str, arguments: Mapping[str, object]) -> Any:
        query = urllib.parse.urlencode(arguments)
        return await asyncio.to_thread(_fetch, f"{self.url}/api/v1/{name}?{query}")


def _points(values: Sequence[tuple[float, str]]) -> Points:
    points = [(at_s, float(value)) for at_s, value in values]
    return [(at_s, value) for at_s, value in points if math.isfinite(value)]


def _fetch(address: str) -> Any:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=QUERY_TIMEOUT_S) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as error:
        with error:
            why = error.read(2000).decode(errors="replace")
        raise PrometheusError(f"{address}: found status {error.code}: {why}") from error


def free_port() -> int:
    """Return a port of loopback that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def copy_configuration(folder: Path, *, target: str, own: str, key: str, scrape_s: float) -> Path:
    """Copy the shipped configuration, as docs/monitoring.md says for a server without compose.

    Addresses, the file of the key and, for short runs, the interval are other ones; the rules stay.
    """
    shutil.copytree(SHIPPED, folder / "prometheus")
    (folder / "prometheus" / "api_key").write_text(key, encoding="utf-8")
    configuration = folder / "prometheus" / "prometheus.yml"
    text = configuration.read_text(encoding="utf-8")
    changes = {
        "server:8000": target,
        "localhost:9090": own,
        "/run/secrets/ovoad_api_key": "api_key",
        "scrape_interval: 15s": f"scrape_interval: {scrape_s:g}s",
        "evaluation_interval: 15s": f"evaluation_interval: {scrape_s:g}s",
        "scrape_timeout: 10s": f"scrape_timeout: {min(10.0, scrape_s):g}s",
    }
    for shipped, here in changes.items():
        if text.count(shipped) != 1:
            raise PrometheusError(f"found {shipped!r} {text.count(shipped)} times, expected once")
        text = text.replace(shipped, here)
    configuration.write_text(text, encoding="utf-8")
    return configuration


def check_configuration(configuration: Path, *, with_tests: bool) -> list[str]:
    """Let promtool check configuration and rules, and run the rules' tests; return what passed.

    Raises PrometheusError where it finds fault.
    """
    folder = configuration.parent
    rules = sorted(map(str, folder.glob("rules/*.yml")))
    tests = sorted(map(str, folder.glob("tests/*.yml")))
    said = []
    commands = [["check", "config", str(configuration)], ["check", "rules", *rules]]
    if with_tests:
        commands.append(["test", "rules", *tests])
    for command in commands:
        run = subprocess.run(
            [_program("promtool"), *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=PROMTOOL_TIMEOUT_S,
        )
        if run.returncode:
            what = " ".join(command[:2])
            raise PrometheusError(f"promtool {what} failed:\n{run.stdout}{run.stderr}")
        said.append(f"promtool {' '.join(command[:2])}: ok")
    return said


@contextlib.asynccontextmanager
async def running_prometheus(
    configuration: Path, folder: Path, *, port: int
) -> AsyncIterator[Prometheus]:
    """Start Prometheus, yield it once it is ready, stop it at the end."""
    log = folder / "prometheus.log"
    with log.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            _program("prometheus"),
            f"--config.file={configuration}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        prometheus = Prometheus(f"http://127.0.0.1:{port}")
        await _until_ready(prometheus, process, log)
        yield prometheus
    finally:
        await _stop(process)


async def _until_ready(
    prometheus: Prometheus, process: asyncio.subprocess.Process, log: Path
) -> None:
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while process.returncode is None:
                with contextlib.suppress(OSError, PrometheusError):
                    await prometheus.targets()
                    return
                await asyncio.sleep(0.1)
    except TimeoutError:
        pass
    tail = log.read_text(encoding="utf-8", errors="replace")[-3000:]
    raise PrometheusError(f"prometheus did not start:\n{tail}")


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise PrometheusError(
            f"found no {name}, expected it on the path "
            "(Debian: apt-get install --no-install-recommends prometheus)"
        )
    return found
