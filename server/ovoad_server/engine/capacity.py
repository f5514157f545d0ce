"""What a batch costs, learned from the batches that ran, and how many frames a second that makes.

Knows no session. A batch of b frames is taken to last a + c b milliseconds: a is what a batch costs
however small it is, c what one more frame adds.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

MEMORY: Final = 0.98  # of what older batches count for, a batch: about the last 50 matter
LONGEST_SURPRISE: Final = 3.0  # a hiccup of the machine counts as this many times the expected


@dataclass
class CostModel:
    """Least squares over batches, newer ones counting more; a small ridge keeps a from guesswork.

    known: whether any batch was seen; without one, all estimates are 0.
    """

    _weight: float = 0.0
    _sizes: float = 0.0
    _squares: float = 0.0
    _times: float = 0.0
    _products: float = 0.0

    @classmethod
    def from_trial(cls, costs: Iterable[tuple[int, float]]) -> "CostModel":
        """Begin with sizes and milliseconds of batches that ran before the first frame came."""
        model = cls()
        for size, ms in costs:
            model.learn(size, ms)
        return model

    @property
    def known(self) -> bool:
        """Whether any batch was seen."""
        return self._weight > 0

    def learn(self, size: int, ms: float, *, among: int = 0) -> None:
        """Take in one batch of `size` frames that took `ms`.

        `among`: frames under way side by side when it began, its own included, where they are more.
        Frames that begin together on several cores end together: the first to end is seen to take
        the time of all, the others none. So the first may take as long as all of them.
        """
        if self._weight > 10:
            expected_ms = self.batch_ms(max(size, among))
            ms = min(ms, LONGEST_SURPRISE * max(expected_ms, 0.1))
        self._weight = MEMORY * self._weight + 1
        self._sizes = MEMORY * self._sizes + size
        self._squares = MEMORY * self._squares + size * size
        self._times = MEMORY * self._times + ms
        self._products = MEMORY * self._products + size * ms

    def batch_ms(self, size: int) -> float:
        """Return the milliseconds that a batch of this size is expected to take."""
        fixed_ms, frame_ms = self._line()
        return fixed_ms + frame_ms * size

    def largest_batch(self, *, within_ms: float, at_most: int) -> int:
        """Return the largest batch, at least 1, that is expected to end in time."""
        fixed_ms, frame_ms = self._line()
        if frame_ms <= 0:
            return at_most
        return max(1, min(at_most, int((within_ms - fixed_ms) / frame_ms)))

    def frames_per_s(self, size: int) -> float:
        """Return the frames a second that batches of this size make, one after the other."""
        ms = self.batch_ms(size)
        return size * 1000 / ms if ms > 0 else float("inf")

    def _line(self) -> tuple[float, float]:
        """Return a and c, both at least 0."""
        if not self.known:
            return 0.0, 0.0
        weight = self._weight * 1.05
        determinant = weight * self._squares - self._sizes**2
        fixed_ms = (self._squares * self._times - self._sizes * self._products) / determinant
        frame_ms = (weight * self._products - self._sizes * self._times) / determinant
        if fixed_ms < 0:
            return 0.0, self._products / self._squares
        if frame_ms < 0:
            return self._times / self._weight, 0.0
        return fixed_ms, frame_ms
