"""The search for capacity, on made-up servers."""

from collections import Counter

import pytest

from ovoad_client.bench.answers import Tally
from ovoad_client.bench.capacity import find_capacity, too_much
from ovoad_client.bench.result import Capacity, Row

from .bench_rows import make_row


class MadeUpServer:
    """Its p99 crosses 250 ms above `carries` sessions."""

    def __init__(self, carries: int) -> None:
        self.carries = carries
        self.tried: list[int] = []

    async def measure(self, sessions: int) -> Row:
        self.tried.append(sessions)
        return make_row(sessions, p99_ms=100.0 if sessions <= self.carries else 400.0)


async def search(carries: int, *, first: int = 1, most: int = 512) -> tuple[Capacity, list[int]]:
    """Return what was found and the loads that were tried."""
    server = MadeUpServer(carries)
    found = await find_capacity(server.measure, first=first, most=most, budget_ms=250)
    return found, server.tried


@pytest.mark.parametrize("carries", [1, 2, 3, 7, 13, 18, 20])
async def test_small_capacities_are_found_exactly(carries: int) -> None:
    found, tried = await search(carries)
    assert found.sessions == carries
    assert found.reason == f"{carries + 1} sessions: p99 400 ms"
    assert len(tried) == len(set(tried))


async def test_large_capacities_are_found_within_a_twentieth_and_few_loads() -> None:
    found, tried = await search(317)
    assert 0.95 * 317 <= found.sessions <= 317
    assert len(tried) <= 16


async def test_the_first_load_may_be_too_much() -> None:
    assert (await search(5, first=16))[0].sessions == 5
    found, tried = await search(0, first=4)
    assert (found.sessions, tried) == (0, [4, 2, 1])


async def test_the_search_ends_at_its_bound() -> None:
    found, tried = await search(1000, most=48)
    assert (found.sessions, max(tried)) == (48, 48)
    assert found.reason == "nothing was too much up to 48 sessions"


def test_drops_refusals_and_unanswered_frames_are_too_much() -> None:
    assert too_much(make_row(), 250) is None
    assert too_much(make_row(p99_ms=251), 250) == "p99 251 ms"
    assert too_much(make_row(p99_ms=float("nan")), 250) is not None
    assert too_much(make_row(dropped={"busy": 3}), 250) == "3 busy"
    assert too_much(make_row(4, refused={"capacity": 1}), 250) == "1 of 4 refused"
    broken = Tally(broken=Counter({"connection broken": 1}))
    assert too_much(make_row(tally=broken), 250) == "1 sessions broke: connection broken"
