"""What the checks came to, as text for people and as JSON for programs. Knows no server."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final

from ovoad_client.conformance.check import Outcome, Status
from ovoad_client.protocol import PROTOCOL_VERSION

_WIDTH: Final = 48
_WORDS: Final[Mapping[Status, str]] = {"pass": "pass", "fail": "FAIL", "skip": "skip"}


def line(outcome: Outcome) -> str:
    """Return one outcome; a failure on three lines: what is said, found and expected."""
    head = f"{_WORDS[outcome.status]}  {outcome.name:<{_WIDTH}}  {outcome.says}"
    if outcome.status == "fail":
        return f"{head}\n        found     {outcome.found}\n        expected  {outcome.expected}"
    return f"{head} ({outcome.why})" if outcome.status == "skip" else head


def conforms(outcomes: Sequence[Outcome]) -> bool:
    """Tell whether nothing failed and something passed: a server that is full proves nothing."""
    found = {outcome.status for outcome in outcomes}
    return "fail" not in found and "pass" in found


def summary(outcomes: Sequence[Outcome]) -> str:
    """Return the last line: how many checks came to what."""
    count = Counter(outcome.status for outcome in outcomes)
    seconds = sum(outcome.seconds for outcome in outcomes)
    verdict = "conforms" if conforms(outcomes) else "does not conform"
    contract = f"wire contract v{PROTOCOL_VERSION}"
    return (
        f"{len(outcomes)} checks in {seconds:.1f} s: {count['pass']} passed, {count['fail']} "
        f"failed, {count['skip']} skipped; the server {verdict} to {contract}"
    )


def to_json(address: str, outcomes: Sequence[Outcome]) -> str:
    """Return all outcomes as JSON."""
    count = Counter(outcome.status for outcome in outcomes)
    report = {
        "address": address,
        "protocol": PROTOCOL_VERSION,
        "conforms": conforms(outcomes),
        "counts": {status: count[status] for status in _WORDS},
        "checks": [asdict(outcome) for outcome in outcomes],
    }
    return json.dumps(report, indent=2, ensure_ascii=False)
