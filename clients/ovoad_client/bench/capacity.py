"""Find the most sessions that a server carries inside a latency budget. Knows no server."""

from collections.abc import Awaitable, Callable

from ovoad_client.bench.result import Capacity, Row

Measure = Callable[[int], Awaitable[Row]]


async def find_capacity(
    measure: Measure, *, first: int, most: int, budget_ms: float, resolution: float = 0.05
) -> Capacity:
    """Double the sessions until a load is too much, then halve the distance; 0: even one is.

    `measure` runs one load. Ends at a distance of one session or `resolution` of the capacity,
    whichever is more, and at `most` sessions. Takes about 2 log2(capacity / first) loads.
    """
    good, bad = 0, 0
    reason = f"nothing was too much up to {most} sessions"
    sessions = first
    while True:
        row = await measure(sessions)
        trouble = too_much(row, budget_ms)
        if trouble is None:
            good = sessions
        else:
            bad, reason = sessions, f"{sessions} sessions: {trouble}"
        sessions = _next(good, bad, most=most, resolution=resolution)
        if not sessions:
            return Capacity(good, row.fps, row.policy, budget_ms, reason)


def too_much(row: Row, budget_ms: float) -> str | None:
    """Say why a load is more than the server carries, or None."""
    if row.refused:
        return f"{sum(row.refused.values())} of {row.sessions} refused"
    if row.tally.complaints:
        return row.tally.complaints[0]
    if row.dropped or row.errors:
        counts = {**row.dropped, **row.errors}
        return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    if not row.end_to_end.p99 <= budget_ms:
        return f"p99 {row.end_to_end.p99:.0f} ms"
    return None


def _next(good: int, bad: int, *, most: int, resolution: float) -> int:
    """Return the next number of sessions to try, 0 where the answer is known."""
    if not bad:
        doubled = min(good * 2, most)
        return doubled if doubled > good else 0
    if bad - good <= max(1, round(good * resolution)):
        return 0
    return (good + bad) // 2
