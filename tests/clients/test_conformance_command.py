"""`python -m ovoad_client.conformance`: its report, its JSON, its exit status."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ovoad_client.conformance.check import Outcome
from ovoad_client.conformance.command import main
from ovoad_client.conformance.report import conforms, line, summary

from .tiny_server import TinyServer

PASSED = Outcome("ping", "is answered", "pass", 0.25)
FAILED = Outcome("reset", "starts anew", "fail", 0.5, found="1 frame", expected="0")
SKIPPED = Outcome("goaway", "comes before a restart", "skip", 0.0, why="only a restart shows it")


@contextlib.contextmanager
def tiny_server(*faults: str) -> Iterator[str]:
    """Run a server in a thread of its own: the command brings its own event loop."""
    ready, loop = threading.Event(), asyncio.new_event_loop()
    stop, addresses = asyncio.Event(), []

    async def run() -> None:
        async with TinyServer(*faults).running() as address:
            addresses.append(address)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    assert ready.wait(10)
    try:
        yield addresses[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


@pytest.fixture(autouse=True)
def no_key_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OVOAD_API_KEY", raising=False)


def test_a_conforming_server_is_0(capsys: pytest.CaptureFixture[str]) -> None:
    with tiny_server() as address:
        assert main([address, "--only", "ping", "--only", "reset"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split(maxsplit=2) == ["pass", "ping", "is answered with its nonce"]
    assert len(lines) == 5
    assert ": 4 passed, 0 failed, 0 skipped; the server conforms to wire contract v1" in lines[-1]


def test_a_fault_is_1_and_told_with_both_sides(capsys: pytest.CaptureFixture[str]) -> None:
    with tiny_server("sum") as address:
        assert main([address, "--only", "prediction"]) == 1
    out = capsys.readouterr().out
    assert "FAIL  prediction.lists" in out
    assert "        found     probabilities and background that sum to 1.2000\n" in out
    assert "        expected  1 within 0.001\n" in out
    assert "the server does not conform" in out


def test_outcomes_are_written_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tiny_server("nonce") as address:
        assert main([address, "--only", "ping", "--json", str(tmp_path / "report.json")]) == 1
        assert "FAIL  ping" in capsys.readouterr().out
        assert main([address, "--only", "ping", "--json", "-"]) == 1
    printed, told = capsys.readouterr()
    for text in (printed, (tmp_path / "report.json").read_text()):
        report = json.loads(text)
        assert (report["address"], report["protocol"]) == (address, 1)
        assert report["conforms"] is False
        assert report["counts"] == {"pass": 1, "fail": 2, "skip": 0}
        assert [check["name"] for check in report["checks"]] == [
            "ping",
            "ping.bare",
            "ping.among_frames",
        ]
        assert report["checks"][0]["found"] == "nonce None"
    assert told.startswith("3 checks in ")


def test_a_server_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["127.0.0.1:9", "--timeout", "2"]) == 1
    assert "cannot reach ws://127.0.0.1:9/v1/stream: connection refused" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "found no URL"),
        (["127.0.0.1:9", "--only", "nothing"], "found no check named nothing…, see --list"),
        (["ftp://here"], "found server address 'ftp://here'"),
    ],
)
def test_wrong_usage_is_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_timeout_must_be_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["127.0.0.1:9", "--timeout", "soon"])
    assert "found 'soon', expected seconds above 0" in capsys.readouterr().err


def test_checks_can_be_listed_without_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--only", "resume"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5


def test_report_tells_found_expected_and_why() -> None:
    assert line(PASSED).split() == ["pass", "ping", "is", "answered"]
    assert line(FAILED).splitlines()[1:] == ["        found     1 frame", "        expected  0"]
    assert line(SKIPPED).endswith("comes before a restart (only a restart shows it)")
    assert summary([PASSED, FAILED, SKIPPED]) == (
        "3 checks in 0.8 s: 1 passed, 1 failed, 1 skipped; "
        "the server does not conform to wire contract v1"
    )


def test_a_server_that_passes_nothing_does_not_conform() -> None:
    assert conforms([PASSED, SKIPPED])
    assert not conforms([SKIPPED])
    assert not conforms([PASSED, FAILED])
