"""A check, its outcome, and how checks are run one after another. Knows no message."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from websockets.exceptions import WebSocketException

from ovoad_client.conformance.findings import MismatchError, NotCheckedError
from ovoad_client.conformance.target import Target
from ovoad_client.errors import ClientError
from ovoad_client.protocol import ProtocolError

Status = Literal["pass", "fail", "skip"]


@dataclass(frozen=True)
class Check:
    """One statement of the contract; `run` raises MismatchError or NotCheckedError."""

    name: str
    says: str
    run: Callable[[Target], Awaitable[None]]


@dataclass(frozen=True)
class Outcome:
    """What came of a check; `found` and `expected` of a failure, `why` of a skip."""

    name: str
    says: str
    status: Status
    seconds: float
    found: str = ""
    expected: str = ""
    why: str = ""


async def run_check(check: Check, target: Target) -> Outcome:
    """Run one check; a server that breaks off, or says nothing in time, fails it."""
    started_s = time.monotonic()
    status: Status = "fail"
    found = expected = why = ""
    try:
        async with asyncio.timeout(target.timeout_s):
            await check.run(target)
        status = "pass"
    except MismatchError as mismatch:
        found, expected = mismatch.found, mismatch.expected
    except NotCheckedError as reason:
        status, why = "skip", str(reason)
    except TimeoutError:
        found, expected = "no answer", f"one within {target.timeout_s:g} s"
    except ProtocolError as error:
        found, expected = f"a message off the schema: {error}", "the schema of wire contract v1"
    except (ClientError, WebSocketException, OSError) as error:
        found, expected = f"{type(error).__name__}: {error}", "an answer of the contract"
    except Exception as error:  # an answer that the check itself stumbles over
        found, expected = f"{type(error).__name__}: {error}", "an answer that can be checked"
    seconds = round(time.monotonic() - started_s, 3)
    return Outcome(check.name, check.says, status, seconds, found, expected, why)


async def run_checks(
    checks: Iterable[Check], target: Target, *, tell: Callable[[Outcome], None]
) -> list[Outcome]:
    """Run checks one after another, telling each outcome as it comes."""
    outcomes = []
    for check in checks:
        outcome = await run_check(check, target)
        tell(outcome)
        outcomes.append(outcome)
    return outcomes
