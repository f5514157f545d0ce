"""How much smaller a picture may come than it is: one rule for JPEGs and for frames of clips."""

from typing import Final

SCALES: Final = (8, 4, 2)


def reduction(width: int, height: int, *, least_side: int) -> int:
    """Return by what both sides may be divided: 8, 4, 2, or 1.

    The largest that leaves the shorter side `least_side` pixels; 1 where that is 0.
    """
    fits = (scale for scale in SCALES if 0 < scale * least_side <= min(width, height))
    return next(fits, 1)
