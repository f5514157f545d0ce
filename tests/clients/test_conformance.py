"""The conformance checks against a small server: each fault fails the checks that are about it."""

import asyncio
import re

import pytest

from ovoad_client.conformance.catalogue import CHECKS
from ovoad_client.conformance.check import Check, Outcome, run_checks
from ovoad_client.conformance.findings import MismatchError, NotCheckedError, equal, expect
from ovoad_client.conformance.target import Target

from .tiny_server import TinyServer

SKIPPED = {
    "handshake.wrong_key",
    "handshake.no_key",
    "handshake.key_subprotocol",
    "create.timeout",
    "events",
    "goaway",
    "realtime.rate",
    "resume",
    "resume.again",
    "resume.once",
    "resume.takeover",
}
LACKING = re.compile(r"http\.(readyz|metrics|wrong_method|openapi|asyncapi|key|clips)")
HAVING = [check for check in CHECKS if not LACKING.match(check.name)]
REFUSING = {check.name for check in HAVING if check.name.startswith("create.refuses")}
GOING_ON = {
    check.name
    for check in HAVING
    if check.name.startswith(("frame.refuses", "message.refuses"))
    and check.name != "frame.refuses.bytes"
}
ANSWERING = {"vocabulary.barrier", "close.counts", "lossless", "realtime"}
FAULTS: dict[str, set[str]] = {
    "no subprotocol": {"handshake.subprotocol", "handshake.several"},
    "any origin": {"handshake.origin"},
    "close code": {*REFUSING, "frame.refuses.bytes", "frame.eight_bad"},
    "all fatal": {
        *GOING_ON,
        "create.twice",
        "vocabulary.refused",
        "frame.eight_bad",
        "frame.seven_bad",
    },
    "swallows": ANSWERING,
    "twice": ANSWERING,
    "drops all": {"realtime"},
    "sum": {"prediction.lists"},
    "gaps": {"prediction.window", "reset"},
    "nonce": {"ping", "ping.among_frames"},
    "silent": {"ping", "ping.bare", "ping.among_frames"},
    "old version": {"vocabulary.barrier"},
    "counts": {"close", "close.counts", "lossless", "realtime", "resume.unknown"},
    "false resume": {check.name for check in HAVING if check.name.startswith("resume")},
    "error shape": {"http.not_found", "http.stream"},
}

WAITING = {"swallows", "silent", "false resume"}  # found by an answer that does not come


async def outcomes_of(
    *faults: str, checks: list[Check] = HAVING, timeout_s: float = 20.0
) -> dict[str, Outcome]:
    """Run checks against a server with these faults."""
    async with TinyServer(*faults).running() as address:
        target = Target(address, timeout_s=timeout_s)
        outcomes = await run_checks(checks, target, tell=lambda outcome: None)
    return {outcome.name: outcome for outcome in outcomes}


def named(outcomes: dict[str, Outcome], status: str) -> set[str]:
    return {name for name, outcome in outcomes.items() if outcome.status == status}


def test_names_are_unique_and_each_check_says_something() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert all(re.fullmatch(r"[a-z0-9_.]+", check.name) and check.says for check in CHECKS)


async def test_a_server_without_faults_passes() -> None:
    outcomes = await outcomes_of()
    assert named(outcomes, "fail") == set()
    assert named(outcomes, "skip") == SKIPPED
    assert outcomes["goaway"].why == "only a restart of the server shows it"


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_fails_the_checks_that_are_about_it(fault: str) -> None:
    if fault in WAITING:
        about_it = [check for check in HAVING if check.name in FAULTS[fault]]
        outcomes = await outcomes_of(fault, checks=about_it, timeout_s=1.0)
    else:
        outcomes = await outcomes_of(fault)
    assert named(outcomes, "fail") == FAULTS[fault]
    for name in FAULTS[fault]:
        assert outcomes[name].found
        assert outcomes[name].expected


async def test_a_message_off_the_schema_fails_whatever_hears_it() -> None:
    outcomes = await outcomes_of("schema")
    failed = named(outcomes, "fail")
    assert {"frame.jpeg", "lossless", "realtime", "prediction.window"} <= failed
    assert outcomes["frame.jpeg"].found == (
        "a message off the schema: found unknown field prediction.surprise, expected only the "
        "fields of wire contract v1"
    )


async def test_a_full_server_is_not_judged() -> None:
    names = ("ping", "lossless", "resume.takeover", "create.refuses.not_json")
    outcomes = await outcomes_of("full", checks=[c for c in CHECKS if c.name in names])
    assert {(outcome.status, outcome.why) for outcome in outcomes.values()} == {
        ("skip", "the server is full; try when it has room")
    }
    assert set(outcomes) == set(names)


async def test_routes_that_are_missing_are_told() -> None:
    missing = [check for check in CHECKS if check.name in ("http.metrics", "http.asyncapi")]
    outcomes = await outcomes_of(checks=missing)
    assert named(outcomes, "fail") == {"http.metrics", "http.asyncapi"}
    assert (outcomes["http.metrics"].found, outcomes["http.metrics"].expected) == (
        "status 404",
        "200",
    )


async def test_findings_say_what_was_found_and_expected() -> None:
    outcomes = await outcomes_of("sum")
    lists = outcomes["prediction.lists"]
    assert lists.found == "probabilities and background that sum to 1.2000"
    assert lists.expected == "1 within 0.001"


async def test_silence_and_breaks_are_failures() -> None:
    async def waits(target: Target) -> None:
        await asyncio.Event().wait()

    async def breaks(target: Target) -> None:
        raise ConnectionResetError("peer left")

    async def lacks(target: Target) -> None:
        raise NotCheckedError("no key")

    checks = [Check("waits", "x", waits), Check("breaks", "x", breaks), Check("lacks", "x", lacks)]
    told: list[Outcome] = []
    target = Target("ws://127.0.0.1:1", timeout_s=0.01)
    outcomes = await run_checks(checks, target, tell=told.append)
    assert outcomes == told
    assert [outcome.status for outcome in outcomes] == ["fail", "fail", "skip"]
    assert (outcomes[0].found, outcomes[0].expected) == ("no answer", "one within 0.01 s")
    assert outcomes[1].found == "ConnectionResetError: peer left"
    assert outcomes[2].why == "no key"


def test_a_mismatch_tells_both_sides() -> None:
    expect(True, "this", "that")
    equal(1, 1, "number")
    with pytest.raises(MismatchError, match=r"^found this, expected that$"):
        expect(False, "this", "that")
    with pytest.raises(MismatchError, match=r"^found number 1, expected 2$"):
        equal(1, 2, "number")
