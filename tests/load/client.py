"""A closed loop of HTTP/1.1 requests: ``python -m tests.load.client http://127.0.0.1:8000/score body.json``.

Each connection is kept alive, sends one rendered request, waits for the whole answer, and sends it again. It is a
process of its own, so that its CPU time is not the server's, and as cheap as it can be, for it shares the server's
cores: no HTTP library, no future or task per request. An answer that is not 200 ends it with that answer's text.
Prints a `Report` as a line of JSON.
"""

import argparse
import asyncio
import json
import math
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import uvloop

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

PATIENCE = 60.0
"""Seconds to wait for the last answers."""

SHOWN = 500
"""Bytes shown of an answer that is not what was expected."""


class LoadError(Exception):
    """A connection or an answer is not what a measurement could go on with."""


@dataclass(frozen=True)
class Report:
    """What a closed loop saw.

    Attributes:
        requests: The number of answers, but for the first of each connection.
        seconds: From the first counted request to the last answer.
        p50: The median latency in milliseconds; p90, p99 and max accordingly.
        cpu: This client's own CPU microseconds per request.
    """

    requests: int
    seconds: float
    p50: float
    p90: float
    p99: float
    max: float
    cpu: float


def render(url: str, body: bytes, headers: Sequence[str] = ()) -> bytes:
    """Returns a POST request as it goes over the wire; each header is a line `name: value`."""
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    lines = [f"POST {target} HTTP/1.1", f"host: {parts.netloc}", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def percentile(ordered: Sequence[float], share: float) -> float:
    """Returns the smallest of ordered values that at least a share of all of them do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


class Loop:
    """What the connections share.

    Every connection sends a first request that isn't counted, and none sends a second one before all are answered: a
    busy server accepts connections late, which is another matter than how long it takes to answer.

    Arguments:
        request: What each of them sends.
        connections: How many there will be.
        seconds: Time after which no more is sent.
        requests: The number after which no more is sent.
    """

    def __init__(self, request: bytes, connections: int, seconds: float, requests: int) -> None:
        self.request = request
        self.expected = connections
        self.seconds = seconds
        self.left = requests
        self.members: list[Connection] = []
        self.ready = 0
        self.running = False
        self.latencies: list[float] = []
        self.started = self.last = self.deadline = 0.0
        self.failure: LoadError | None = None

    def join(self) -> None:
        """Counts a connection whose first request is answered; after the last of them the loop runs."""
        self.ready += 1
        if self.ready == self.expected:
            self.running = True
            self.started = self.last = time.perf_counter()
            self.deadline = self.started + self.seconds
            for member in self.members:
                member.send()

    def fail(self, text: str) -> None:
        """Ends all connections with an error."""
        if self.failure is None:
            self.failure = LoadError(text)
            for member in self.members:
                member.transport.abort()

    def report(self, cpu: float) -> Report:
        """Sums up, given the CPU seconds that were spent."""
        ordered = sorted(self.latencies)
        p50, p90, p99, most = (1e3 * percentile(ordered, share) for share in (0.5, 0.9, 0.99, 1.0))
        return Report(len(ordered), self.last - self.started, p50, p90, p99, most, 1e6 * cpu / len(ordered))


class Connection(asyncio.Protocol):
    """One connection of the loop; `done` is set when it ends."""

    def __init__(self, loop: Loop, done: asyncio.Future[None]) -> None:
        self.loop, self.done = loop, done
        self.head = b""
        self.missing = 0
        self.sent = 0.0
        self.finished = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Sends the request that isn't counted."""
        self.transport = cast(asyncio.Transport, transport)
        self.loop.members.append(self)
        if self.loop.failure is None:
            self.transport.write(self.loop.request)
        else:
            self.transport.abort()

    def send(self) -> None:
        """Sends the next request, if there is time for one."""
        self.sent = time.perf_counter()
        if self.sent < self.loop.deadline and self.loop.left > 0:
            self.loop.left -= 1
            self.transport.write(self.loop.request)
        else:
            self.finished = True
            self.transport.close()

    def data_received(self, data: bytes) -> None:
        """Takes a part of an answer, and sends the next request when it was the last one."""
        if self.missing:
            self.missing -= len(data)
        else:
            self.head += data
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            length = CONTENT_LENGTH.search(self.head, 0, end)
            if not self.head.startswith(b"HTTP/1.1 200 ") or length is None:
                got = self.head[:SHOWN].decode(errors="replace")
                self.loop.fail(f"expected 200 and a content-length, got {got}")
                return
            self.missing = end + 4 + int(length[1]) - len(self.head)
            self.head = b""
        if self.missing < 0:
            self.loop.fail(f"an answer is {-self.missing} bytes longer than its content-length")
        elif self.missing == 0 and self.loop.running:
            self.loop.last = time.perf_counter()
            self.loop.latencies.append(self.loop.last - self.sent)
            self.send()
        elif self.missing == 0:
            self.loop.join()

    def connection_lost(self, error: Exception | None) -> None:
        """Ends, which is an error unless this side asked for it."""
        if not self.finished:
            self.loop.fail(f"the server closed a connection ({error or 'no error'})")
        if not self.done.done():
            self.done.set_result(None)


async def drive(url: str, request: bytes, connections: int, seconds: float, requests: int = sys.maxsize) -> Report:
    """Keeps so many connections busy for so many seconds, or for so many requests.

    Raises:
        LoadError: An answer is not 200, not complete or not there in time, or the server closed a connection.
        OSError: The server can't be reached.
    """
    running, parts = asyncio.get_running_loop(), urlsplit(url)
    loop, before = Loop(request, connections, seconds, requests), time.process_time()
    ends = [running.create_future() for _ in range(connections)]
    for end in ends:
        await running.create_connection(partial(Connection, loop, end), parts.hostname or "", parts.port or 80)
    try:
        async with asyncio.timeout(seconds + PATIENCE):
            await asyncio.gather(*ends)
    except TimeoutError:
        raise LoadError(f"an answer took more than {PATIENCE:.0f} seconds") from None
    if loop.failure is not None:
        raise loop.failure
    return loop.report(time.process_time() - before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the report and returns 0, or the failure and returns 1."""
    parser = argparse.ArgumentParser(description="Send one request over and over.")
    parser.add_argument("url")
    parser.add_argument("body", type=Path, help="file with the request's body")
    parser.add_argument("--header", action="append", default=[], metavar="'name: value'")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--requests", type=int, default=sys.maxsize, help="stop after so many, even if there is time")
    options = parser.parse_args(arguments)
    request = render(options.url, options.body.read_bytes(), options.header)
    try:
        report = uvloop.run(drive(options.url, request, options.connections, options.seconds, options.requests))
    except (LoadError, OSError) as error:
        print(f"{options.url}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(asdict(report)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
