"""Micro-batching: rows of several requests go through the graph together.

A row costs its share of the calls on the way to the graph and back, which are most of a single row's cost. Requests
that one turn of the event loop has read are batched without waiting for anything; only if there is more than one of
them, and there is room for more, are further ones waited for. A row alone is not kept waiting, and does not
come here if its client has the service's only connection.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

from service.graphs import Matrix

Run = Callable[[Matrix], Matrix]

Done = Callable[[Matrix | Exception, float], None]
"""What is told the results of some rows, or what the graph raised, and the seconds that the graph took."""

Check = Callable[[], None]
"""What raises an error if nobody waits for the results any longer; it is called right before the graph."""


def anyway() -> None:
    """Raises nothing."""


class Elsewhere(ABC):
    """Runs a graph in another place than the one where a request is read; to be used by one event loop."""

    async def __call__(
        self, rows: Matrix, took: Callable[[float], None] = lambda _: None, check: Check = anyway
    ) -> Matrix:
        """Returns the results of rows (N, *), and tells how many seconds the graph took with them.

        Raises:
            Exception: Whatever the graph, or the check before it, raised.
        """
        future: asyncio.Future[Matrix] = asyncio.get_running_loop().create_future()

        def done(results: Matrix | Exception, seconds: float) -> None:
            if future.done():  # a request that was cancelled waits no longer
                return
            took(seconds)
            if isinstance(results, Exception):
                future.set_exception(results)
            else:
                future.set_result(results)

        def check_waiting() -> None:
            if future.done():
                raise RuntimeError("the request was cancelled")
            check()

        self.add(rows, done, check_waiting)
        return await future

    @abstractmethod
    def add(self, rows: Matrix, done: Done, check: Check = anyway) -> None:
        """Takes rows (N, *), and tells `done` their results later, on the event loop.

        `check` is called right before the graph; an error that it raises is the result.
        """


class Batcher(Elsewhere):
    """Batches the rows of one graph; to be used by one event loop.

    Arguments:
        run: The graph: rows (N, *) to results (N,) or (N, *), each row's the same whatever the others are.
        max_rows: The most rows of a batch.
        max_wait: Seconds that the first of several requests may wait for more.
        note: Is told the number of rows of every batch.

    Attributes:
        rows: The number of rows that wait.
    """

    def __init__(self, run: Run, max_rows: int, max_wait: float, note: Callable[[int], None] = lambda _: None) -> None:
        self._run = run
        self._max_rows = max_rows
        self._max_wait = max_wait
        self._note = note
        self._waiting: list[tuple[Matrix, Done, Check]] = []
        self.rows = 0
        self._flush: asyncio.Handle | None = None

    def add(self, rows: Matrix, done: Done, check: Check = anyway) -> None:
        """Adds rows (N, *) to the next batch, whose results `done` is told, if `check` still wants them then."""
        if self.rows + len(rows) > self._max_rows:
            self.flush()
        self._waiting.append((rows, done, check))
        self.rows += len(rows)
        if self.rows >= self._max_rows:
            self.flush()
        elif self._flush is None:
            self._flush = asyncio.get_running_loop().call_soon(self._flush_or_wait)

    def flush(self) -> None:
        """Runs what waits."""
        if self._flush:
            self._flush.cancel()
            self._flush = None
        added, self._waiting = self._waiting, []
        self.rows = 0
        waiting = [(rows, done) for rows, done, check in added if wanted(done, check)]
        if not waiting:
            return
        count = sum(len(rows) for rows, _ in waiting)
        started = time.perf_counter()
        try:
            results = self._run(waiting[0][0] if len(waiting) == 1 else np.concatenate([rows for rows, _ in waiting]))
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            for _, done in waiting:
                done(error, time.perf_counter() - started)
            return
        seconds = time.perf_counter() - started
        self._note(count)
        start = 0
        for rows, done in waiting:
            done(results[start : start + len(rows)], seconds)
            start += len(rows)

    def _flush_or_wait(self) -> None:
        self._flush = None
        if len(self._waiting) > 1 and self._max_wait > 0:
            self._flush = asyncio.get_running_loop().call_later(self._max_wait, self.flush)
        else:
            self.flush()


def wanted(done: Done, check: Check) -> bool:
    """Returns whether results are still waited for, and tells `done` if they are not."""
    try:
        check()
    except Exception as error:  # noqa: BLE001 - it is raised where the results are waited for
        done(error, 0.0)
        return False
    return True
