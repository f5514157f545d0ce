"""The shipped monitoring in a real Prometheus: configuration, rules, data for the dashboard."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "docker" / "prometheus"
RULES = sorted(map(str, PROMETHEUS.glob("rules/*.yml")))
TESTS = sorted(map(str, PROMETHEUS.glob("tests/*.yml")))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("promtool") is None or shutil.which("prometheus") is None,
        reason="found no prometheus and promtool (Debian: apt-get install prometheus)",
    ),
]


def run(*command: str, timeout_s: float = 60.0) -> str:
    """Run a command that must succeed; return what it says."""
    run = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=timeout_s, cwd=ROOT
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout + run.stderr


def test_configuration_is_valid(tmp_path: Path) -> None:
    folder = tmp_path / "prometheus"
    shutil.copytree(PROMETHEUS, folder)
    key = tmp_path / "key"
    key.write_text("secret", encoding="utf-8")
    configuration = folder / "prometheus.yml"
    text = configuration.read_text(encoding="utf-8")
    shipped = "/run/secrets/ovoad_api_key"  # promtool looks whether it is there
    assert text.count(shipped) == 1
    configuration.write_text(text.replace(shipped, str(key)), encoding="utf-8")
    said = run("promtool", "check", "config", str(configuration))
    assert "is valid prometheus config file syntax" in said
    assert said.count("rules found") == len(RULES)


def test_rules_are_valid_and_without_lint() -> None:
    said = run("promtool", "check", "rules", "--lint=all", "--lint-fatal", *RULES)
    assert said.count("rules found") == len(RULES)


def test_every_alert_fires_and_clears() -> None:
    said = run("promtool", "test", "rules", *TESTS)
    assert said.count("SUCCESS") == len(TESTS)


@pytest.mark.timeout(300)
def test_every_query_of_the_dashboard_returns_data_of_a_real_server(tmp_path: Path) -> None:
    said = run(
        sys.executable,
        str(ROOT / "benchmarks" / "monitoring.py"),
        *("--seconds", "20", "--scrape-s", "1", "--no-alert"),
        *("--json", str(tmp_path / "found.json")),
        timeout_s=240.0,
    )
    assert "each answered exactly once" in said
    assert "WRONG" not in said
