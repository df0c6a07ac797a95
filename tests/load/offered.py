"""An open loop of HTTP/1.1 requests: ``python -m tests.load.offered http://127.0.0.1:8000/score body --phase 100:5``.

Requests are due at times drawn beforehand (a Poisson process), whatever became of those before. Each takes an idle
connection, or opens one. If there are as many as allowed it waits for one, and this time counts: latencies begin when a
request is due. 200 is an answer, 503 with Retry-After a refusal, anything else a failure; a client that is refused does
not try again. One process, as lean as `tests.load.client`, for it has but one core to offer more than another can take.
Prints a line of JSON with a `Phase` for each phase.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import uvloop

from tests.load.client import CONTENT_LENGTH, PATIENCE, percentile, render

TICK = 0.001
"""Seconds between two looks at what is due: the event loop's timers are no finer."""


@dataclass
class Phase:
    """What came of the requests that were due in a phase.

    Attributes:
        rate: Requests per second that were offered.
        seconds: How long.
        due: How many that were.
        accepted: How many were answered 200.
        refused: How many were answered 503 with Retry-After.
        failed: How many ended otherwise, with the first of these as `failure`.
        answered_within: How many answers 200 came before the phase ended, to requests of this phase.
        p50: Of the latencies of accepted requests in milliseconds, from when they were due; p99 and max accordingly.
        sent_p99: The 99th percentile from when they were sent.
        refused_p99: The 99th percentile of refused ones, from when they were sent.
        late_p99: The 99th percentile of the time from being due to being sent.
        settled: Seconds from the phase's begin to its last refusal or failure; 0 without any.
        connections: The most that were open.
        cpu: The share of a core that this client took.
    """

    rate: float
    seconds: float
    due: int = 0
    accepted: int = 0
    refused: int = 0
    failed: int = 0
    answered_within: int = 0
    p50: float = 0.0
    p99: float = 0.0
    max: float = 0.0
    sent_p99: float = 0.0
    refused_p99: float = 0.0
    late_p99: float = 0.0
    settled: float = 0.0
    connections: int = 0
    cpu: float = 0.0
    failure: str = ""


@dataclass
class Course:
    """A phase while it goes on."""

    phase: Phase
    began: float
    latencies: list[float] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)

    def accept(self, due: float, sent: float, now: float) -> None:
        """Notes an answer."""
        self.latencies.append(now - due)
        self.sent.append(now - sent)
        self.phase.answered_within += now < self.began + self.phase.seconds

    def refuse(self, sent: float, now: float) -> None:
        """Notes a refusal."""
        self.refusals.append(now - sent)
        self.phase.settled = now - self.began

    def fail(self, text: str) -> None:
        """Notes a failure."""
        self.phase.failed += 1
        self.phase.failure = self.phase.failure or text
        self.phase.settled = time.perf_counter() - self.began

    def result(self) -> Phase:
        """Sums up."""

        def at(values: list[float], share: float) -> float:
            return 1e3 * percentile(sorted(values), share) if values else 0.0

        phase = self.phase
        phase.accepted, phase.refused = len(self.latencies), len(self.refusals)
        phase.p50, phase.p99, phase.max = (at(self.latencies, share) for share in (0.5, 0.99, 1.0))
        phase.sent_p99, phase.refused_p99, phase.late_p99 = (
            at(values, 0.99) for values in (self.sent, self.refusals, self.late)
        )
        return phase


class Pool:
    """The connections.

    Arguments:
        url: Where requests go.
        request: What they are.
        most: How many connections there may be.
    """

    def __init__(self, url: str, request: bytes, most: int) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 80
        self.request = request
        self.most = most
        self.open = self.peak = self.pending = 0
        self.idle: list[Link] = []
        self.waiting: deque[tuple[Course, float]] = deque()
        self._opening: set[asyncio.Task[Any]] = set()

    def send(self, course: Course, due: float) -> None:
        """Sends a request, or has it wait for a connection."""
        self.pending += 1
        while self.idle:
            link = self.idle.pop()
            if not link.transport.is_closing():
                link.send(course, due)
                return
        self.waiting.append((course, due))
        if self.open < self.most:
            self.open += 1
            self.peak = max(self.peak, self.open)
            task = asyncio.get_running_loop().create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def free(self, link: "Link") -> None:
        """Has a connection send what waits, or wait itself."""
        if self.waiting:
            link.send(*self.waiting.popleft())
        else:
            self.idle.append(link)

    async def _open(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(partial(Link, self), self.host, self.port)
        except OSError as error:
            self.open -= 1
            if self.waiting:
                self.pending -= 1
                self.waiting.popleft()[0].fail(f"can't connect: {error}")


class Link(asyncio.Protocol):
    """A connection."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.course: Course | None = None
        self.due = self.sent = 0.0
        self.head = b""
        self.status = b""
        self.missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins."""
        self.transport = cast(asyncio.Transport, transport)
        self.pool.free(self)

    def send(self, course: Course, due: float) -> None:
        """Sends a request."""
        self.course, self.due, self.sent = course, due, time.perf_counter()
        course.late.append(self.sent - due)
        self.transport.write(self.pool.request)

    def data_received(self, data: bytes) -> None:
        """Takes a part of an answer."""
        if self.missing:
            self.missing -= len(data)
        else:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            length = CONTENT_LENGTH.search(self.head, 0, end)
            if length is None:
                raise ValueError(f"an answer without a content-length: {self.head!r}")
            self.status = self.head[9:12]
            if self.status == b"503" and b"retry-after" not in self.head[:end].lower():
                self.status = b"503 without Retry-After"
            self.missing = end + 4 + int(length[1]) - len(self.head)
            self.head = b""
        if self.missing == 0:
            self._done(time.perf_counter())

    def _done(self, now: float) -> None:
        course, self.course = self.course, None
        if course is None:
            return
        self.pool.pending -= 1
        if self.status == b"200":
            course.accept(self.due, self.sent, now)
        elif self.status == b"503":
            course.refuse(self.sent, now)
        else:
            course.fail(f"status {self.status.decode()}")
        if not self.transport.is_closing():
            self.pool.free(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Ends; a request that was not answered failed."""
        self.pool.open -= 1
        if self.course is not None:
            self.pool.pending -= 1
            self.course.fail(f"the connection was lost: {error or 'closed'}")
            self.course = None


def times(rate: float, seconds: float, seed: int) -> Iterator[float]:
    """Yields when requests are due, from the phase's begin."""
    draw, at = random.Random(seed), 0.0
    while (at := at + draw.expovariate(rate)) < seconds:
        yield at


async def offer(url: str, request: bytes, phases: Sequence[tuple[float, float]], most: int) -> list[Phase]:
    """Offers requests in phases, each so many per second for so many seconds."""
    pool, found = Pool(url, request, most), []
    for seed, (rate, seconds) in enumerate(phases):
        began, cpu = time.perf_counter(), time.process_time()
        course, due = Course(Phase(rate, seconds), began), times(rate, seconds, seed)
        pool.peak = pool.open
        upcoming = next(due, None)
        while (now := time.perf_counter() - began) < seconds:
            while upcoming is not None and upcoming <= now:
                course.phase.due += 1
                pool.send(course, began + upcoming)
                upcoming = next(due, None)
            await asyncio.sleep(TICK)
        course.phase.connections = pool.peak
        course.phase.cpu = (time.process_time() - cpu) / seconds
        found.append(course)
    deadline = time.monotonic() + PATIENCE
    while pool.pending and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    for course in found:
        lost = course.phase.due - len(course.latencies) - len(course.refusals) - course.phase.failed
        for _ in range(lost):
            course.fail(f"no answer within {PATIENCE:g} seconds")
    return [course.result() for course in found]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the phases and returns 0."""
    parser = argparse.ArgumentParser(description="Offer requests at a rate.")
    parser.add_argument("url")
    parser.add_argument("body", type=Path, help="file with the request's body")
    parser.add_argument("--header", action="append", default=[], metavar="'name: value'")
    parser.add_argument("--phase", action="append", required=True, metavar="RATE:SECONDS")
    parser.add_argument("--connections", type=int, default=400, help="the most there may be")
    options = parser.parse_args(arguments)
    phases = [cast(tuple[float, float], tuple(map(float, phase.split(":")))) for phase in options.phase]
    request = render(options.url, options.body.read_bytes(), options.header)
    print(json.dumps([asdict(phase) for phase in uvloop.run(offer(options.url, request, phases, options.connections))]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
