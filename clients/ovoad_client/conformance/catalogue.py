"""All checks, in the order in which they run."""

from typing import Final

from ovoad_client.conformance import (
    control,
    creating,
    frames,
    handshake,
    policies,
    rest,
    resuming,
)
from ovoad_client.conformance.check import Check

CHECKS: Final[tuple[Check, ...]] = (
    *handshake.CHECKS,
    *creating.CHECKS,
    *frames.CHECKS,
    *control.CHECKS,
    *policies.CHECKS,
    *resuming.CHECKS,
    *rest.CHECKS,
)
