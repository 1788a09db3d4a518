"""A thread that advances instances while the engine works, so that the engine never waits for a prompt.

A thread and not a process: what takes the time, the tokenizer, lets the interpreter go while it works, and token ids,
vectors and data need no copy.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from queue import PriorityQueue
from threading import Thread
from time import perf_counter
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_STOP, _CONTINUED, _BEGUN = range(3)


class Ahead(Generic[Item, Result]):
    """Does `work` on what it is asked to, one at a time: what is urgent first, else in the order of asking.

    `seconds` is how long the thread worked. `close` waits for what is under way and drops the rest.
    """

    def __init__(self, work: Callable[[Item], Result]) -> None:
        self._work = work
        self._tasks: PriorityQueue[tuple[int, int, Item | None, Future[Result]]] = PriorityQueue()
        self._asked = 0
        self._thread: Thread | None = None
        self.seconds = 0.0

    def here(self, item: Item) -> Future[Result]:
        """The result of doing it now, in the thread that asks."""
        done: Future[Result] = Future()
        self._do(item, done)
        return done

    def ask(self, item: Item, urgent: bool) -> Future[Result]:
        """The result to come, or what is raised meanwhile."""
        if self._thread is None:
            # A daemon: a process that is stopped need not wait for it.
            self._thread = Thread(target=self._run, name="ahead", daemon=True)
            self._thread.start()
        result: Future[Result] = Future()
        self._put(_CONTINUED if urgent else _BEGUN, item, result)
        return result

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._put(_STOP, None, Future())
            self._thread.join()
            self._thread = None

    def _put(self, rank: int, item: Item | None, result: Future[Result]) -> None:
        self._asked += 1
        self._tasks.put((rank, self._asked, item, result))

    def _run(self) -> None:
        while True:
            rank, _, item, result = self._tasks.get()
            if rank == _STOP:
                return
            assert item is not None
            started = perf_counter()
            self._do(item, result)
            self.seconds += perf_counter() - started

    def _do(self, item: Item, result: Future[Result]) -> None:
        try:
            result.set_result(self._work(item))
        except BaseException as error:  # noqa: BLE001 - it belongs to who takes the result
            result.set_exception(error)
