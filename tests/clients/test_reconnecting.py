"""Tests of when and how soon a stream comes back; no socket, no waiting."""

from __future__ import annotations

import pytest

from ovoad_client.errors import (
    BrokenError,
    ClientError,
    RefusedError,
    SilenceError,
    UnauthorisedError,
    UnreachableError,
    UsageError,
)
from ovoad_client.protocol import ErrorCode
from ovoad_client.reconnecting import Outage, Reconnect, may_retry


def broken(code: int | None) -> BrokenError:
    return BrokenError("broke", close_code=code)


def test_delays_double_to_a_limit_and_are_spread_by_a_quarter() -> None:
    reconnect = Reconnect()
    assert [reconnect.delay_s(attempt) for attempt in (1, 2, 3, 6, 7, 1000)] == [
        *(0.25, 0.5, 1.0),
        *(8.0, 8.0, 8.0),
    ]
    assert reconnect.delay_s(1, chance=0.0) == pytest.approx(0.1875)
    assert reconnect.delay_s(1, chance=1.0) == pytest.approx(0.3125)


def test_server_is_not_asked_before_the_time_it_names() -> None:
    assert Reconnect().delay_s(1, retry_after_ms=3000, chance=0.0) == pytest.approx(3.1875)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (broken(None), True),
        (broken(1001), True),
        (broken(1005), True),
        (broken(1011), True),
        (broken(1012), True),
        (broken(1013), True),
        (UnreachableError("ws://host", "refused"), True),
        (SilenceError("waited"), True),
        (broken(1000), False),
        (broken(1008), False),
        (broken(1009), False),
        (broken(4401), False),
        (UnauthorisedError("ws://host", key_given=True), False),
        (UsageError("no"), False),
        (ClientError("the disk is full"), False),
    ],
)
def test_what_is_worth_another_attempt(failure: ClientError, expected: bool) -> None:
    assert may_retry(failure) is expected


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("capacity", True),
        ("restarting", True),
        ("internal", True),
        ("superseded", False),
        ("bad_vocabulary", False),
        ("too_many_bad_frames", False),
        ("frame_too_large", False),
        ("unauthorised", False),
    ],
)
def test_refusals_worth_another_attempt(code: ErrorCode, expected: bool) -> None:
    assert may_retry(RefusedError(code, "no")) is expected


def test_outage_counts_attempts_and_gives_up_in_time() -> None:
    now_s = 100.0
    outage = Outage(Reconnect(first_s=1.0, longest_s=4.0, give_up_s=10.0), clock=lambda: now_s)
    waits_s = []
    failure = UnreachableError("ws://host", "connection refused")
    last: BrokenError | None = None
    while last is None:
        try:
            waits_s.append(outage.next_wait_s(failure))
            now_s += waits_s[-1]
        except BrokenError as error:
            last = error
    assert len(waits_s) == outage.attempt
    assert sum(waits_s) <= 10.0
    assert str(last) == (
        f"gave up reconnecting after {len(waits_s)} attempts in {sum(waits_s):.1f} s: "
        "cannot reach ws://host: connection refused"
    )
    assert last.__cause__ is failure


def test_outage_that_ended_is_forgotten() -> None:
    now_s = 0.0
    outage = Outage(Reconnect(give_up_s=5.0), clock=lambda: now_s)
    outage.next_wait_s(broken(None))
    outage.end()
    now_s = 1000.0
    outage.next_wait_s(broken(None))
    assert outage.attempt == 1


def test_outage_passes_on_what_no_attempt_can_mend() -> None:
    failure = RefusedError("superseded", "found a newer connection")
    with pytest.raises(RefusedError) as caught:
        Outage(Reconnect()).next_wait_s(failure)
    assert caught.value is failure


def test_server_that_asks_for_more_patience_than_there_is_is_given_up_at_once() -> None:
    failure = RefusedError("capacity", "full", retry_after_ms=61_000)
    with pytest.raises(BrokenError, match=r"gave up reconnecting after 0 attempts in 0\.0 s"):
        Outage(Reconnect()).next_wait_s(failure)


def test_superseded_says_that_another_client_took_the_session_over() -> None:
    error = RefusedError("superseded", "found a newer connection")
    assert str(error) == (
        "another client took the session over: found a newer connection (superseded)"
    )
