"""A graph in a thread, while the event loop reads what comes next.

Reading many rows of text takes about as long as the graph takes with them. If there is a core to spare, both happen at
once: half as many rows per second again, for a tenth more CPU time. Short bodies would lose by it, for the way to a
thread and back takes as long as the graph of a few rows.
"""

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor

from service.batching import Check, Done, Elsewhere, Run, anyway
from service.graphs import Matrix
from service.pools import started_pool


class Threads:
    """Threads for graphs; to be used by one event loop.

    Arguments:
        number: How many; with 0 they have no room.
        most: How many graphs may run or wait at once.
    """

    def __init__(self, number: int, most: int) -> None:
        self._number = number
        self._most = most if number else 0
        self._rows: list[int] = []
        self._executor = started_pool(number, "graphs") if number else ThreadPoolExecutor(1)  # which starts none

    @property
    def have_room(self) -> bool:
        """Whether one more graph may run or wait."""
        return len(self._rows) < self._most

    @property
    def rows_waiting(self) -> int:
        """The number of rows whose graph waits."""
        return sum(self._rows[self._number :])

    def submit(self, graph: Run, rows: Matrix, done: Done, check: Check = anyway) -> None:
        """Takes rows (N, *) through a graph in a thread, and tells `done` on the event loop what came of it.

        `check` is called in the thread, right before the graph; an error that it raises is what came of it.
        """
        loop = asyncio.get_running_loop()
        self._rows.append(len(rows))

        def back(results: Matrix | Exception, seconds: float) -> None:
            self._rows.remove(len(rows))
            done(results, seconds)

        def run() -> None:
            results: Matrix | Exception
            started = time.perf_counter()
            try:
                check()
                results = graph(rows)
            except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
                results = error
            loop.call_soon_threadsafe(back, results, time.perf_counter() - started)

        self._executor.submit(run)

    def close(self) -> None:
        """Lets go of the threads."""
        self._executor.shutdown(wait=False)


class Aside(Elsewhere):
    """Runs a graph in a thread.

    Arguments:
        threads: Where.
        run: The graph: rows (N, *) to results (N,) or (N, *).
    """

    def __init__(self, threads: Threads, run: Run) -> None:
        self._threads = threads
        self._run = run

    def add(self, rows: Matrix, done: Done, check: Check = anyway) -> None:
        """Runs the graph on rows (N, *) if `check` still wants it, and tells `done` the results."""
        self._threads.submit(self._run, rows, done, check)


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
