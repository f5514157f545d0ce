"""Take the items of an iterator one by one in a daemon thread. Knows no frame.

An iterator that blocks for ever, as that of a silent camera, keeps no program from ending.
"""

import asyncio
import concurrent.futures
import queue
import threading
from collections.abc import Iterable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class ThreadedIterator(Generic[Item]):
    """Reads in one thread, and no further than asked for."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)
        self._wanted: queue.SimpleQueue[concurrent.futures.Future[Item | None] | None]
        self._wanted = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="ovoad frames", daemon=True)
        self._thread.start()

    async def next(self) -> Item | None:
        """Return the next item, None at the end; raises what the iterator raises."""
        future: concurrent.futures.Future[Item | None] = concurrent.futures.Future()
        self._wanted.put(future)
        return await asyncio.wrap_future(future)

    def stop(self) -> None:
        """End the thread, once the iterator gives what it was asked for last."""
        self._wanted.put(None)

    def _run(self) -> None:
        while (future := self._wanted.get()) is not None:
            if not future.set_running_or_notify_cancel():
                continue
            try:
                item = next(self._items, None)
            except BaseException as error:  # raised again by next(), on the event loop
                future.set_exception(error)
            else:
                future.set_result(item)
