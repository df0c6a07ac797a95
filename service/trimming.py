"""Gives the memory of bodies back to the system once they are answered.

glibc keeps what was freed for the next time: after a body of 32 MiB that may be some hundred MB, in pieces between what
is still needed. To have it give up every large block at once, by its own settings, would cost requests with thousands
of rows twice their CPU time, so it is told to when some time has passed.

Nor does it then give up the end of an arena that is not the first one, and it makes arenas for threads: each may keep
tens of MB for good, once it has been there for a long body. So there is one arena for all threads, which wait for each
other a little.
"""

import asyncio
import ctypes
from collections.abc import Callable
from concurrent.futures import Executor

ARENA_MAX = -8
"""glibc's number of that option, M_ARENA_MAX."""

ONE_ARENA = {"MALLOC_ARENA_MAX": "1"}
"""The same for processes that are started, in their environment."""

SECONDS = 1.0
"""How long after a long body memory is given back, of all bodies of this time together: it takes some milliseconds."""

SECONDS_BETWEEN = 10.0
"""How often it is, at the least: short bodies leave something, too."""


class Trimmer:
    """Gives memory back, in a thread; to be used by one event loop.

    Arguments:
        executor: Whose thread.
        trim: What gives memory back; the C library's function unless given.
    """

    def __init__(self, executor: Executor, trim: Callable[[], object] | None = None) -> None:
        self._executor = executor
        self._trim = trim or library_trim()
        self._timer: asyncio.TimerHandle | None = None

    def ask(self) -> None:
        """Asks for memory to be given back soon."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SECONDS, self._begin)

    async def ask_regularly(self) -> None:
        """Asks for it over and over."""
        while True:
            await asyncio.sleep(SECONDS_BETWEEN)
            self.ask()

    def close(self) -> None:
        """Forgets what was asked for."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self) -> None:
        self._timer = None
        self._executor.submit(self._trim)


def share_one_arena() -> None:
    """Has all threads of this process share one arena, if the C library has any; to be called before they begin."""
    option = getattr(ctypes.CDLL(None), "mallopt", None)
    if option is not None:
        option(ARENA_MAX, 1)


def library_trim() -> Callable[[], object]:
    """Returns the C library's function for it, or one that does nothing if that has none, as musl and macOS."""
    found = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return (lambda: None) if found is None else (lambda: found(0))
