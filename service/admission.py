"""How many requests with rows are taken at once, and which of them waits for its turn.

An event loop that answers requests where it reads them has a queue that nobody sees: what lies in the sockets. So no
turn of the loop answers requests for long. What it reads behind that waits here, where it can be counted and refused,
and between two spells of answering the loop looks at its sockets again: at requests for /health and /metrics, and at
those that have to be told that there is no room.

A queue that is full helps nobody: as many are answered as with a short one, only later. So from the first refusal on a
sixteenth of it is in use, until nothing had to be refused for a while, or nothing waited for most of it: many clients
that ask at the same moment, and then nothing, would else be refused forever what the whole queue has room for.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from service.errors import Overloaded

INLINE_SECONDS = 0.002
"""How long requests are answered where they are read, in a turn of the event loop; later ones wait."""

SPELL_SECONDS = 0.001
"""How long waiting requests are answered before the sockets are looked at again."""

LOOK_SECONDS = 0.005
"""How long it is only looked for new connections, if there are some: a turn of the event loop accepts but one, so that
a request of a newcomer would else wait for as many spells as there are connections before its own."""

CALM_SECONDS = 0.5
"""How long nothing may have been refused until the whole queue is in use again."""

IDLE_SHARE = 0.5
"""The part of that time in which nothing was under way, from which on it is calm whatever was refused."""

SHEDDING_SHARE = 16
"""The part of the queue that is in use while requests are refused."""

LONG_SHARE = 4
"""The part of all requests that may have long bodies: the rest is for short ones."""


class Gate:
    """Counts requests with rows; to be used by one event loop.

    Arguments:
        most: How many may be answered or wait at once.

    Attributes:
        under_way: The number of those with short bodies that wait or are answered elsewhere than where they were read.
        limit: With so many under way the next one is refused.
        long: The number of those with long bodies.
        busy: Whether a request has to wait for its turn, however early in a turn of the loop it is read.
    """

    def __init__(self, most: int) -> None:
        self.under_way = self.long = 0
        self.limit = self._most = most
        self.busy = False
        self._shedding = self._refused = self._scheduled = self._newcomers = False
        self._looked_since = self._idle = 0.0
        self._idle_since: float | None = None
        self._waiting: deque[Callable[[], bool]] = deque()

    def refusal(self) -> Overloaded:
        """Notes that a request is refused for want of room, and returns the error that tells it so."""
        error = Overloaded(self.limit)
        self._refused = True
        if not self._shedding:
            self._shedding = self.busy = True
            self._set_limit()
            asyncio.get_running_loop().call_later(CALM_SECONDS, self._calm_down)
        return error

    def check(self) -> None:
        """Checks that there is room for one more.

        Raises:
            Overloaded: There is none.
        """
        if self.under_way >= self.limit:
            raise self.refusal()

    def enter(self, long: bool) -> None:
        """Counts a request until it leaves.

        Arguments:
            long: Whether its body is a long one.

        Raises:
            Overloaded: There is no room for it.
        """
        if not long:
            self.check()
            self._end_idling()
            self.under_way += 1
        elif self.long >= max(1, self._most // LONG_SHARE):
            raise Overloaded(self.long, "requests with long bodies are under way")
        else:
            self.long += 1
            self._set_limit()

    def leave(self, long: bool) -> None:
        """Counts a request no longer."""
        if long:
            self.long -= 1
            self._set_limit()
        else:
            self.under_way -= 1
            self._begin_idling()

    def put(self, work: Callable[[], None]) -> None:
        """Does work of a request that is not counted yet when its turn comes; it is counted until then.

        Raises:
            Overloaded: There is no room for it.
        """
        self.enter(long=False)

        def begin() -> bool:
            self.under_way -= 1
            work()
            self._begin_idling()
            return False

        self._queue(begin)

    async def turn(self) -> None:
        """Waits until the turn of a request has come that is counted already."""
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> bool:
            if woken.done():
                return False
            woken.set_result(None)
            return True

        self._queue(wake)
        await woken

    def welcome(self) -> None:
        """Notes that a connection was accepted, and puts off other work until those behind it are, too."""
        self._newcomers = True
        self._schedule()

    def _queue(self, begin: Callable[[], bool]) -> None:
        self._waiting.append(begin)
        self._schedule()

    def _schedule(self) -> None:
        self.busy = True
        if not self._scheduled:
            self._scheduled = True
            self._looked_since = time.perf_counter()
            asyncio.get_running_loop().call_soon(self._serve)

    def _serve(self) -> None:
        try:
            if self._newcomers and time.perf_counter() < self._looked_since + LOOK_SECONDS:
                self._newcomers = False
            else:
                self._serve_for_a_spell()
        finally:  # work that fails, which it shouldn't, may not keep the others waiting forever
            self._scheduled = self._newcomers or bool(self._waiting)
            if self._scheduled:
                asyncio.get_running_loop().call_soon(self._serve)
            self.busy = self._shedding or self._scheduled

    def _serve_for_a_spell(self) -> None:
        ends = time.perf_counter() + SPELL_SECONDS
        woken = False  # what was woken works when this has returned
        while self._waiting and not woken:
            woken = self._waiting.popleft()()
            if time.perf_counter() > ends:
                break
        self._looked_since = time.perf_counter()

    def _begin_idling(self) -> None:
        if self._shedding and not self.under_way:
            self._idle_since = time.perf_counter()

    def _end_idling(self) -> None:
        if self._idle_since is not None:
            self._idle += time.perf_counter() - self._idle_since
            self._idle_since = None

    def _calm_down(self) -> None:
        idling = self._idle_since is not None
        self._end_idling()
        idle, self._idle = self._idle, 0.0
        if self._refused and idle < IDLE_SHARE * CALM_SECONDS:
            self._refused = False
            self._idle_since = time.perf_counter() if idling else None
            asyncio.get_running_loop().call_later(CALM_SECONDS, self._calm_down)
        else:
            self._shedding = self._refused = False
            self.busy = self._scheduled
            self._set_limit()

    def _set_limit(self) -> None:
        self.limit = max(1, self._most // SHEDDING_SHARE) if self._shedding else max(1, self._most - self.long)
