"""Right and wrong keys take the same time to be told apart; and what this test would notice.

Timed is all that happens to a handshake's header until it is known whose key it carries. The cases
are timed in turn, in an order drawn anew each round, with keys made anew each round, so that
whatever the machine does beside it hits them alike.

A case is compared with the right key round by round, and what counts is the median d of these
differences: a processor that is slower for a while is so for both, and a measurement that was
interrupted is one among thousands and moves no median. A case counts as different where |d| is
above MARGIN of a look-up in each of RUNS separate runs, with one sign. A run is made longer until
the standard error of d, seen from blocks of the run itself, is at most MARGIN / 5; where that
cannot be had, the test is skipped and says so. So, with the normal distribution's tails:

- Power: a difference of 2 MARGIN (8 % of a look-up among 20 keys, some 200 ns where a look-up takes
  2.5 µs) is missed by one run with a chance below P(z < -5) = 3e-7, by the test below 1e-6.
  `test_as_little_as_some_comparisons_more_would_be_found` puts in about that much and finds it.
- False alarms: of a difference below MARGIN / 3, which caches and the length of the text make (1 %
  was seen), with a chance below P(z > 3.3) = 5e-4 in one run, 2e-10 in three, 1e-9 for all cases.

Not found are smaller differences, such as those of the C library's memcmp over 32 bytes (some
nanoseconds). Against these stands that hashes are compared, which nobody can steer towards a stored
one, and that `hmac.compare_digest` compares them.
"""

import hmac
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from ovoad_server.auth import presented_key
from ovoad_server.keys.file import ApiKey
from ovoad_server.keys.keyring import Keyring
from ovoad_server.keys.secret import PREFIX, digest_of, generate_key

from .key_parts import key

pytestmark = pytest.mark.slow
MARGIN: Final = 0.04  # of the time of a look-up with the right key
PRECISION: Final = MARGIN / 5
RUNS: Final = 3
BLOCKS: Final = 20
ROUNDS: Final = 2000  # times of each case; doubled until they suffice
MOST_ROUNDS: Final = 64_000
KEYS: Final = 20
Examine = Callable[[Mapping[str, str]], object]
Times = dict[str, list[int]]

SECRETS: Final = [generate_key() for _ in range(KEYS)]
RIGHT: Final = SECRETS[KEYS // 2]
STORED: Final = [
    (digest_of(secret.encode()), key(f"key-{n}", secret)) for n, secret in enumerate(SECRETS)
]
KEYRING: Final = Keyring(None, Path("keys.json"), [found for _, found in STORED])


def examine(presented: Mapping[str, str]) -> ApiKey | None:
    """Tell whose key a handshake presents, as the server does."""
    return KEYRING.find(presented_key(presented))


def cases() -> dict[str, str]:
    """Return a key of each kind."""
    last = "A" if RIGHT[-1] != "A" else "B"
    middle = len(RIGHT) // 2
    return {
        "right": RIGHT,
        "right, first of the file": SECRETS[0],
        "right, last of the file": SECRETS[-1],
        "wrong in its last character": RIGHT[:-1] + last,
        "wrong from the middle on": RIGHT[:middle] + generate_key()[middle:],
        "wrong from its first random character": generate_key(),
        "wrong and shorter": generate_key()[: len(PREFIX) + 24],
        "wrong and longer": generate_key() + "0123",
        "wrong in all": "".join(random.choices("0123456789abcdef", k=len(RIGHT))),
    }


def headers(secret: str) -> dict[str, str]:
    """Return a handshake's headers, all of them fresh objects, made in one way."""
    return {"authorization": bytes(b"Bearer " + secret.encode()).decode()}


def measure(examine: Examine, names: Sequence[str], rounds: int) -> Times:
    """Return the nanoseconds of each case, in turn."""
    times: Times = {name: [] for name in names}
    for _ in range(rounds):
        made = [(name, secret) for name, secret in cases().items() if name in times]
        random.shuffle(made)
        ready = [(name, headers(secret)) for name, secret in made]
        random.shuffle(ready)
        examine(headers("warm up"))  # the first of a round would find the caches cold
        for name, presented in ready:
            began_ns = time.perf_counter_ns()
            examine(presented)
            times[name].append(time.perf_counter_ns() - began_ns)
    return times


@dataclass(frozen=True)
class Difference:
    """How much longer a case takes than the right key, in its time's share; its standard error."""

    share: float
    error: float


def difference(case: Sequence[int], right: Sequence[int], *, unit_ns: float | None) -> Difference:
    """Compare round by round; shares are of `unit_ns`, or of the round's look-up."""
    shares = [(a - b) / (unit_ns or b) for a, b in zip(case, right, strict=True)]
    size = len(shares) // BLOCKS
    of_blocks = [
        statistics.median(shares[start : start + size]) for start in range(0, size * BLOCKS, size)
    ]
    return Difference(statistics.median(shares), statistics.stdev(of_blocks) / math.sqrt(BLOCKS))


def run(examine: Examine, names: Sequence[str], unit_ns: float | None) -> dict[str, Difference]:
    """Return each case's difference, known precisely enough, or skip the test."""
    rounds = ROUNDS
    while True:
        times = measure(examine, ["right", *names], rounds)
        right = times.pop("right")
        found = {name: difference(case, right, unit_ns=unit_ns) for name, case in times.items()}
        worst = max(each.error for each in found.values())
        if worst <= PRECISION:
            return found
        if rounds >= MOST_ROUNDS:
            pytest.skip(f"the machine is too noisy: error {worst:.2%}, expected {PRECISION:.2%}")
        rounds *= 2


def different(examine: Examine, *names: str, unit_ns: float | None = None) -> set[str]:
    """Return the cases that differ from the right key in every run, always in one direction."""
    left = set(names or cases()) - {"right"}
    signs: dict[str, float] = {}
    for _ in range(RUNS):
        for name, found in run(examine, sorted(left), unit_ns).items():
            sign = math.copysign(1.0, found.share)
            if abs(found.share) <= MARGIN or signs.setdefault(name, sign) != sign:
                left.discard(name)
        if not left:
            break
    return left


def test_no_kind_of_wrong_key_differs_from_the_right_one() -> None:
    assert examine(headers(RIGHT)) == STORED[KEYS // 2][1]
    assert examine(headers(cases()["wrong in its last character"])) is None
    assert different(examine) == set()


# ---- that it would be noticed --------------------------------------------------------------------


def look_up_ns() -> float:
    """Return the time of a look-up with the right key: what shares are shares of."""
    return statistics.median(measure(examine, ["right"], ROUNDS)["right"])


def leaky(presented: Mapping[str, str]) -> bool:
    """Compare the text itself and stop at the first difference."""
    found, expected = presented_key(presented) or b"", RIGHT.encode()
    return len(found) == len(expected) and all(a == b for a, b in zip(found, expected, strict=True))


def test_comparing_character_by_character_would_be_found() -> None:
    names = ("wrong from the middle on", "wrong from its first random character")
    assert different(leaky, *names, unit_ns=look_up_ns()) == set(names)


def stops_early(presented: Mapping[str, str]) -> ApiKey | None:
    """Hash, but look no further than the key that matches."""
    digest = digest_of(presented_key(presented) or b"")
    for stored, found in STORED:
        if hmac.compare_digest(digest, stored):
            return found
    return None


def test_a_search_that_stops_at_the_match_would_be_found() -> None:
    names = ("right, first of the file", "right, last of the file", "wrong in all")
    assert different(stops_early, *names, unit_ns=look_up_ns()) == set(names)


def compares_more(presented: Mapping[str, str]) -> ApiKey | None:
    """Compare two digests more for a wrong key."""
    found = examine(presented)
    if found is None:
        for digest, _ in STORED[:2]:
            hmac.compare_digest(digest, digest)
    return found


def test_as_little_as_some_comparisons_more_would_be_found() -> None:
    assert different(compares_more, "wrong in all") == {"wrong in all"}
