"""Merges the small batches of many callers into larger ones. Knows no model and no Ray.

An idle worker starts at once; while it works, the next batch forms. Nobody waits for a timer.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")
Batch = TypeVar("Batch")


@dataclass(frozen=True, eq=False)
class _Call(Generic[Item, Batch]):
    """One caller's items, and the place of their results."""

    items: Sequence[Item]
    done: "asyncio.Future[Batch]"


class Merger(Generic[Item, Batch]):
    """Does calls in order, merged up to `most` items, in threads of its own.

    work: does a batch. part: returns the results of a row of its items. Calls that together have
    no more than `lanes` items run side by side. A call larger than `most` goes alone.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Batch],
        part: Callable[[Batch, slice], Batch],
        *,
        most: int,
        lanes: int,
        name: str,
    ) -> None:
        self._work = work
        self._part = part
        self._most = most
        self._lanes = lanes
        self._threads = ThreadPoolExecutor(lanes, name)
        self._waiting: deque[_Call[Item, Batch]] = deque()
        self._under_way = 0  # items
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """Items that wait for their batch."""
        return sum(len(call.items) for call in self._waiting)

    async def do(self, items: Sequence[Item]) -> Batch:
        """Return the results of some items; raises what the work raises."""
        call = _Call[Item, Batch](items, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        self._start()
        return await call.done

    def _start(self) -> None:
        """Begin batches while there is room."""
        while calls := self._take():
            self._under_way += _count(calls)
            task = asyncio.create_task(self._run(calls))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _take(self) -> list[_Call[Item, Batch]]:
        """Return the calls of the next batch, none where it has to wait."""
        while self._waiting and self._waiting[0].done.done():  # whoever asked has given up
            self._waiting.popleft()
        if not self._waiting:
            return []
        first = len(self._waiting[0].items)
        if self._under_way and self._under_way + first > self._lanes:
            return []
        room = self._most if not self._under_way else self._lanes - self._under_way
        calls = [self._waiting.popleft()]
        while self._waiting and _count(calls) + len(self._waiting[0].items) <= room:
            calls.append(self._waiting.popleft())
        return calls

    async def _run(self, calls: Sequence[_Call[Item, Batch]]) -> None:
        items = [item for call in calls for item in call.items]
        loop = asyncio.get_running_loop()
        try:
            batch = await loop.run_in_executor(self._threads, self._work, items)
            self._answer(calls, batch)
        except Exception as error:  # what a batch raises is the answer of all its callers
            for call in calls:
                if not call.done.done():
                    call.done.set_exception(error)
        finally:
            self._under_way -= len(items)
            self._start()

    def _answer(self, calls: Sequence[_Call[Item, Batch]], batch: Batch) -> None:
        start = 0
        for call in calls:
            end = start + len(call.items)
            if not call.done.done():
                call.done.set_result(self._part(batch, slice(start, end)))
            start = end


def _count(calls: Sequence[_Call[Item, Batch]]) -> int:
    return sum(len(call.items) for call in calls)
