"""Slow down who tries wrong keys, in memory of fixed size. Knows no key and no route.

Right keys are never slowed, also not those that come from the same address: behind one address
there may be a whole office. So the delay alone does not stop a guesser who hangs up early; the
keys' 192 bits do. It stops ordinary tools, and it keeps a client with an old key from filling the
log and the processor.
"""

import array
import asyncio
import contextlib
import hashlib
import ipaddress
import math
import secrets
import time
from collections.abc import Callable
from typing import Final

FIRST_DELAY_S: Final = 0.1
LONGEST_DELAY_S: Final = 5.0  # less than clients wait for an answer
FORGET_S: Final = 60.0  # in which one doubling is forgotten
PLACES: Final = 4096  # that addresses share
MOST_WAITING: Final = 256  # wrong answers under way at once, of all addresses
MOST_WAITING_OF_ONE: Final = 16  # of one address


class WrongKeys:
    """Delays wrong answers: 0.1 s, doubling with each to 5 s, by the client's address.

    Addresses share PLACES places, by a hash that nobody outside can foresee: an attacker with a
    million addresses fills all places, no memory. Who shares a place with one is slowed with it,
    but only when wrong. Networks of IPv6 (/64) count as one address: one customer has all of it.
    """

    def __init__(self, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self.waiting = 0
        self._now_s = now_s
        self._salt = secrets.token_bytes(16)
        self._doublings = array.array("d", bytes(8 * PLACES))
        self._since_s = array.array("d", bytes(8 * PLACES))
        self._waiting_at: dict[int, int] = {}  # at most MOST_WAITING entries
        self._released = asyncio.Event()

    async def slow(self, address: str) -> bool:
        """Wait before a wrong answer; False at once where too many wait already."""
        delay_s = self.next_delay_s(address)
        place = self._place(address)
        waiting_here = self._waiting_at.get(place, 0)
        if self.waiting >= MOST_WAITING or waiting_here >= MOST_WAITING_OF_ONE:
            return False
        self.waiting += 1
        self._waiting_at[place] = waiting_here + 1
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._released.wait()
        finally:
            self.waiting -= 1
            self._waiting_at[place] -= 1
            if self._waiting_at[place] == 0:
                del self._waiting_at[place]
        return True

    def release(self) -> None:
        """Let all who wait go, now and later: the server is about to stop."""
        self._released.set()

    def next_delay_s(self, address: str) -> float:
        """Count one more wrong key of an address, and return how long its answer takes."""
        place, now_s = self._place(address), self._now_s()
        forgotten = (now_s - self._since_s[place]) / FORGET_S
        doublings = max(0.0, self._doublings[place] - forgotten)
        most = math.log2(LONGEST_DELAY_S / FIRST_DELAY_S)
        self._doublings[place] = min(most, doublings + 1.0)
        self._since_s[place] = now_s
        return float(min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0**doublings))

    def _place(self, address: str) -> int:
        network = network_of(address).encode()
        hashed = hashlib.blake2b(network, digest_size=8, key=self._salt).digest()
        return int.from_bytes(hashed, "big") % PLACES


def client_address(client: tuple[str, int] | None) -> str:
    """Return a client's IP address as it is logged; "unknown" for whatever is none.

    client: host and port as ASGI gives them; the host may be what a trusted proxy's header says.
    """
    try:
        address = ipaddress.ip_address("" if client is None else client[0].partition("%")[0])
    except ValueError:
        return "unknown"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def network_of(address: str) -> str:
    """Return what counts as one client: an IPv4 address, or an IPv6 network of 64 bits."""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address, 64), strict=False))
