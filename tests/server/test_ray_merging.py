"""Small batches of many callers are merged while the worker is busy, and start at once if not."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from ovoad_server.on_ray.merging import Merger

from .harness import WAIT_S, until


class Squares:
    """Work that can be held; notes its batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.hold = threading.Event()
        self.hold.set()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        assert self.hold.wait(WAIT_S)
        if 0 in items:
            raise ZeroDivisionError("found 0, expected numbers")
        return [item * item for item in items]


def merger(work: Squares, *, most: int = 8, lanes: int = 1) -> Merger[int, list[int]]:
    return Merger[int, list[int]](
        work, lambda batch, rows: batch[rows], most=most, lanes=lanes, name="test"
    )


async def test_idle_worker_starts_at_once_and_the_next_batch_forms_meanwhile() -> None:
    work = Squares()
    merging = merger(work)
    work.hold.clear()
    calls = [asyncio.create_task(merging.do([number])) for number in (1, 2, 3, 4)]
    await until(lambda: work.batches == [[1]] and merging.waiting == 3)
    work.hold.set()
    assert await asyncio.gather(*calls) == [[1], [4], [9], [16]]
    assert work.batches == [[1], [2, 3, 4]]


async def test_batches_end_where_they_are_full_and_calls_stay_whole() -> None:
    work = Squares()
    merging = merger(work, most=4)
    work.hold.clear()
    calls = [asyncio.create_task(merging.do(items)) for items in ([1], [2, 3], [4, 5, 6], [7] * 5)]
    await until(lambda: merging.waiting == 10)
    work.hold.set()
    assert await asyncio.gather(*calls) == [[1], [4, 9], [16, 25, 36], [49] * 5]
    assert work.batches == [[1], [2, 3], [4, 5, 6], [7] * 5]


async def test_few_items_run_side_by_side_on_their_lanes() -> None:
    work = Squares()
    merging = merger(work, lanes=2)
    work.hold.clear()
    calls = []
    for number in (1, 2, 3):
        calls.append(asyncio.create_task(merging.do([number])))
        await asyncio.sleep(0)
    await until(lambda: len(work.batches) == 2)
    assert merging.waiting == 1
    work.hold.set()
    assert await asyncio.gather(*calls) == [[1], [4], [9]]


async def test_failing_batch_fails_its_callers_and_the_next_goes_on() -> None:
    work = Squares()
    merging = merger(work)
    with pytest.raises(ZeroDivisionError):
        await merging.do([0])
    assert await merging.do([3]) == [9]


async def test_whoever_gives_up_is_left_out() -> None:
    work = Squares()
    merging = merger(work)
    work.hold.clear()
    first = asyncio.create_task(merging.do([1]))
    await until(lambda: bool(work.batches))
    second = asyncio.create_task(merging.do([2]))
    third = asyncio.create_task(merging.do([3]))
    await until(lambda: merging.waiting == 2)
    second.cancel()
    await asyncio.wait([second])
    work.hold.set()
    assert list(await asyncio.gather(first, third)) == [[1], [9]]
    assert work.batches == [[1], [3]]
