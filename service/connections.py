"""Clients' connections: how many there may be, and how long they may keep the service waiting.

One timer looks after all connections, and most of what it looks at is there anyway: requests cost nothing more for it.
"""

import asyncio
import logging
import resource
from collections.abc import Collection
from typing import Protocol

from service.errors import Overloaded
from service.metrics import ServiceMetrics
from service.settings import Settings

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 0.25
"""How long a connection may be late before it is noticed."""

RESERVE = 64
"""Connections beyond those that are allowed, on which only ALWAYS is answered."""

RESERVE_SECONDS = 1.0
"""Time that a request's header has to arrive on one of them."""

ALWAYS = (b"/health/live", b"/health/ready", b"/metrics", b"/v2/health/live", b"/v2/health/ready")
"""What is answered however many connections there are."""

OTHER_FILES = 128
"""Files that the service has open beside connections, and some to spare."""

CUT_FOR = ("slow_header", "slow_answer", "too_many")
"""Why the service closes a connection: a header takes too long to come, an answer too long to be taken, or there are
more connections than even the reserve has."""


class Guarded(Protocol):
    """A connection that is looked after."""

    def late(self, now: float) -> str | None:
        """Returns why it is to be cut off by now, one of CUT_FOR, if it is."""

    def cut_off(self) -> None:
        """Closes it without further ado."""


class Connections:
    """Counts connections, and cuts off those whose client is too slow; to be used by one event loop.

    Arguments:
        settings: What the operator set.
        metrics: Where those that were cut off are counted.

    Attributes:
        most: How many there may be.
        header_seconds: The time a request's header has to arrive.
        write_seconds: The time a client has to take its answer.
    """

    def __init__(self, settings: Settings, metrics: ServiceMetrics) -> None:
        self.most = settings.max_connections
        self.header_seconds = settings.header_seconds
        self.write_seconds = settings.write_seconds
        self._metrics = metrics
        self._open: Collection[Guarded] = ()
        self._looking = False
        for reason in CUT_FOR:
            metrics.cut.add((reason,), 0)

    @property
    def number(self) -> int:
        """How many there are."""
        return len(self._open)

    def watch(self, loop: asyncio.AbstractEventLoop, connections: Collection[Guarded]) -> None:
        """Looks after connections from now on; what is added to them later is seen, too."""
        self._open = connections
        if not self._looking:
            self._looking = True
            self._look_later(loop)

    def count_cut(self, reason: str) -> None:
        """Counts a connection that is cut off for one of the reasons CUT_FOR."""
        self._metrics.cut.add((reason,), 1)

    def refusal(self) -> Overloaded:
        """Returns the error that a request on a connection too many is answered with."""
        return Overloaded(self.most, "connections are open")

    def _look_later(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(SECONDS_BETWEEN_LOOKS, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connection in list(self._open):
            reason = connection.late(now)
            if reason is not None:
                self.count_cut(reason)
                connection.cut_off()
        self._looking = bool(self._open)
        if self._looking:
            self._look_later(loop)


def allow_files(connections: int) -> None:
    """Lets this process, and those it starts, open as many files as so many connections need, if it may.

    A soft limit of 1024 is usual, and an event loop without files to open can accept nothing.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + RESERVE + OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
        if allowed < wanted:
            logger.warning("%d files may be open, %d connections may need %d", allowed, connections, wanted)
