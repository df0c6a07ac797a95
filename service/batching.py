"""Micro-batching: rows of several requests go through the graph together.

A row costs its share of the calls on the way to the graph and back, which are most of a single row's cost. Requests
that one turn of the event loop has read are batched without waiting for anything; only if there is more than one of
them, and there is room for more, are further ones waited for. A row alone is not kept waiting.
"""

import asyncio
from collections.abc import Callable

import numpy as np

from service.detector import Matrix

Run = Callable[[Matrix], Matrix]


class Batcher:
    """Batches the rows of one graph; to be used by one event loop.

    Arguments:
        run: The graph: rows (N, *) to results (N,) or (N, *), each row's the same whatever the others are.
        max_rows: The most rows of a batch.
        max_wait: Seconds that the first of several requests may wait for more.
    """

    def __init__(self, run: Run, max_rows: int, max_wait: float) -> None:
        self._run = run
        self._max_rows = max_rows
        self._max_wait = max_wait
        self._waiting: list[tuple[Matrix, asyncio.Future[Matrix]]] = []
        self._rows = 0
        self._flush: asyncio.Handle | None = None

    async def __call__(self, rows: Matrix) -> Matrix:
        """Returns the results of rows (N, *), which go through the graph with those of other requests.

        Raises:
            Exception: Whatever the graph raised, to each request of the batch.
        """
        loop = asyncio.get_running_loop()
        if self._rows + len(rows) > self._max_rows:
            self.flush()
        future: asyncio.Future[Matrix] = loop.create_future()
        self._waiting.append((rows, future))
        self._rows += len(rows)
        if self._rows >= self._max_rows:
            self.flush()
        elif self._flush is None:
            self._flush = loop.call_soon(self._flush_or_wait)
        return await future

    def flush(self) -> None:
        """Runs what waits."""
        if self._flush:
            self._flush.cancel()
            self._flush = None
        waiting, self._waiting, self._rows = self._waiting, [], 0
        if not waiting:
            return
        try:
            results = self._run(waiting[0][0] if len(waiting) == 1 else np.concatenate([rows for rows, _ in waiting]))
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            for _, future in waiting:
                if not future.done():
                    future.set_exception(error)
            return
        start = 0
        for rows, future in waiting:
            if not future.done():  # a request whose client hung up waits no longer
                future.set_result(results[start : start + len(rows)])
            start += len(rows)

    def _flush_or_wait(self) -> None:
        self._flush = None
        if len(self._waiting) > 1 and self._max_wait > 0:
            self._flush = asyncio.get_running_loop().call_later(self._max_wait, self.flush)
        else:
            self.flush()
