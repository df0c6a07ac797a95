"""One measurement: a client against a server that is already running, and what both used."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.load.bodies import COUNTS, MANY_ROWS, ROW, BodyName, write
from tests.load.client import Report
from tests.load.processes import cpu_seconds, pss_megabytes
from tests.load.servers import CANDIDATES, Running, ServerError, running
from tests.server import ROOT

Figures = Mapping[str, float]
"""What one measurement found: `cpu` in milliseconds of the server's processes per request, `requests` and `rows` per
second, `p50`, `p90`, `p99` and `max` in milliseconds, `client`: the client's own CPU in milliseconds per request."""

LEAD_SECONDS = 0.5
"""How long the other client is under way before a measurement beside it, and after it."""

WARM_UP_REQUESTS = 5_000
"""After these every cache has what it keeps."""

PATIENCE = 600.0
"""Seconds that counted requests may take."""


@dataclass(frozen=True)
class Case:
    """One kind of traffic to one server.

    Attributes:
        server: The server's name.
        body: What is posted.
        connections: Closed loops.
        disturbed: Whether another client posts `MANY_ROWS` in a closed loop meanwhile.
    """

    server: str
    body: BodyName
    connections: int = 16
    disturbed: bool = False

    def __str__(self) -> str:
        """Writes it as the tables and the recorded lines have it."""
        traffic = f"{self.server}: {self.body}, {self.connections} connection{'s' if self.connections > 1 else ''}"
        return f"{traffic}, beside {MANY_ROWS}" if self.disturbed else traffic


def command(
    server: Running, body: BodyName, connections: int, seconds: float, requests: int = sys.maxsize
) -> list[str]:
    """Returns the command of a client."""
    rendered = write(server.log.parent, body, CANDIDATES[server.name].json)
    headers = [word for header in rendered.headers for word in ("--header", header)]
    limits = ["--connections", str(connections), "--seconds", str(seconds), "--requests", str(requests)]
    return [sys.executable, "-m", "tests.load.client", server.url(body), str(rendered.file), *headers, *limits]


def send(server: Running, words: Sequence[str]) -> Report:
    """Runs a client to its end.

    Raises:
        ServerError: It failed; the text has its message and the end of the server's log.
    """
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise ServerError(f"{server.name}: {done.stderr.strip()}\nIts log ends with\n{server.tail()}")
    return Report(**json.loads(done.stdout))


@contextmanager
def disturbance(server: Running, seconds: float) -> Iterator[None]:
    """Keeps another client busy posting `MANY_ROWS` bodies for longer than a measurement takes.

    Raises:
        ServerError: It failed.
    """
    words = command(server, MANY_ROWS, 1, seconds + 3 * LEAD_SECONDS)
    other = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        time.sleep(LEAD_SECONDS)
        yield
        _, message = other.communicate()
        if other.returncode:
            raise ServerError(f"{server.name}: {message.strip()}\nIts log ends with\n{server.tail()}")
    finally:
        other.kill()
        other.wait()


def measure(server: Running, case: Case, seconds: float) -> Figures:
    """Measures a case for so many seconds; the CPU time is that of all requests from the first to the last.

    Beside other requests nobody could say whose it is, and there is none.

    Raises:
        ServerError: A client failed.
    """
    words = command(server, case.body, case.connections, seconds)
    if case.disturbed:
        with disturbance(server, seconds):
            return figures_of(send(server, words), COUNTS[case.body])
    before = cpu_seconds(server.pid)
    report = send(server, words)
    cpu = cpu_seconds(server.pid) - before
    answered = report.requests + case.connections  # the first of each connection is not counted
    return {"cpu": 1e3 * cpu / answered, **figures_of(report, COUNTS[case.body])}


def figures_of(report: Report, rows: int) -> Figures:
    """Returns what a client saw, given the rows of a request."""
    rate = report.requests / report.seconds
    return {
        "requests": rate,
        "rows": rate * rows,
        "p50": report.p50,
        "p90": report.p90,
        "p99": report.p99,
        "max": report.max,
        "client": 1e-3 * report.cpu,
    }


def medians(rounds: Sequence[Figures]) -> Figures:
    """Returns the median of each figure."""
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def live(name: str, folder: Path, body: BodyName, seconds: float) -> Figures:
    """Starts a server while no other runs, and sends it something; returns `start` in seconds and `memory` in MB.

    Pages that several servers share would count only in part for each, were they running, too.
    """
    with running(name, folder, body) as server:
        send(server, command(server, body, 16, seconds))
        return {"start": server.start_seconds, "memory": pss_megabytes(server.pid)}


def fill(name: str, folder: Path, requests: int) -> Figures:
    """Sends a server of its own single rows; returns its `memory` in MB, and its `growth` since it was warm."""
    with running(name, folder, ROW) as server:
        send(server, command(server, ROW, 16, PATIENCE, WARM_UP_REQUESTS))
        warm = pss_megabytes(server.pid)
        send(server, command(server, ROW, 16, PATIENCE, requests))
        memory = pss_megabytes(server.pid)
    return {"memory": memory, "growth": memory - warm}
