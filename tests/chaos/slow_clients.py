"""500 clients that are slow on purpose, and what others notice of them.

A third sends a header byte by byte, a third a body, and a third asks for more than the kernel's buffers hold and never
reads it. They connect one by one. What single rows take is measured with them and without them in turns, for the
machine's own moods last longer than a turn, and the median of the ratios counts. The service's limits are set to a few
seconds, so that the slow ones are seen being cut off; the defaults are longer.
"""

import asyncio
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import orjson

from tests.chaos.bars import Bar, Outcome
from tests.chaos.observing import closed_loop, median, open_files, resident_mb
from tests.load.client import render
from tests.server import SERVICE, serving

CLIENTS = 500
ROUNDS = 5
LIMIT_SECONDS = 10.0
SLACK_SECONDS = 3.0
"""By how much a client may be cut off later than its limit says: the service looks four times a second."""

GIVEN_UP_SECONDS = 30.0
"""Time after which a client that was not cut off goes by itself."""

TRICKLE_SECONDS = 0.5
RATIO = 2.0
MEMORY_MB = 128.0
FILES = 2
"""Files more than before: the service may open one or two for reasons of its own."""

JSON = ["content-type: application/json"]
LATENT_FEATURES = 8
ROW = orjson.dumps({"dataset": "thyroid", "vectors": [[0.5] * 6]})
LATENTS = orjson.dumps({"dataset": "kddcup99", "version": 1, "latents": [[0.0] * LATENT_FEATURES] * 300})
ANSWERS = 2
"""Answers that a client asks for and doesn't read, of some 400 kB each; the second is not begun before the first is
taken."""

SECONDS_TO_BE_SLOW = 1.0
"""Until the last of them has asked for what it doesn't read."""


@dataclass(frozen=True)
class Seen:
    """What was measured.

    Attributes:
        ratios: The p99 of single rows with the slow clients over that without, of each round.
        with_ms: That p99 with them, the median.
        without_ms: The same without them.
        cut_after: Seconds until the last client of each kind was cut off; infinite if one was not.
        connected: How many slow clients there still were when the others had been measured, at least.
        memory: MB by which the service grew at most.
        files: Files that it has open at the end beyond those it had before.
    """

    ratios: Sequence[float]
    with_ms: float
    without_ms: float
    cut_after: dict[str, float]
    connected: int
    memory: float
    files: int


def judge(seen: Seen, expected: int) -> Outcome:
    """Holds what was measured against what is promised."""
    ratio = median(seen.ratios)
    figures = {
        "slow_clients": seen.connected,
        "rounds": len(seen.ratios),
        "p99_ratio": round(ratio, 2),
        "p99_ratio_highest": round(max(seen.ratios), 2),
        "p99_with_ms": round(seen.with_ms, 2),
        "p99_without_ms": round(seen.without_ms, 2),
        **{f"{kind}_cut_off_seconds": round(seconds, 2) for kind, seconds in seen.cut_after.items()},
        "memory_growth_mb": round(seen.memory, 1),
        "more_open_files": seen.files,
    }
    failures = []
    if seen.connected < expected:
        failures.append(f"only {seen.connected} slow clients were there at once, {expected} are meant")
    if ratio > RATIO:
        failures.append(f"the p99 of others is {ratio:.2f} x that without slow clients, at most {RATIO:g} x")
    for kind, seconds in seen.cut_after.items():
        if seconds > allowed(kind):
            failures.append(f"{kind}: the last was cut off after {seconds:.1f} s, at most {allowed(kind):g} s")
    if seen.memory > MEMORY_MB:
        failures.append(f"memory grew by {seen.memory:.0f} MB, at most {MEMORY_MB:g}")
    if seen.files > FILES:
        failures.append(f"{seen.files} more files are open than before")
    return Outcome(figures, failures)


def allowed(kind: str) -> float:
    """Returns the seconds within which a client is cut off: its limit, and a second in which a body is just held."""
    return LIMIT_SECONDS + SLACK_SECONDS + (1.0 if kind == "slow_body" else 0.0)


def kinds(url: str) -> dict[str, tuple[bytes, bytes]]:
    """Returns what each kind of slow client sends at once, and what it then sends byte by byte."""
    whole = render(f"{url}/score", ROW + b" " * 1000, JSON)
    head = whole.index(b"\r\n\r\n") + 4
    return {
        "slow_header": (whole[:20], whole[20:head]),
        "slow_body": (whole[:head], whole[head:]),
        "never_reading": (render(f"{url}/decode", LATENTS, JSON) * ANSWERS, b""),
    }


class Crowd:
    """Slow clients in a thread of their own.

    Arguments:
        url: The service.
        number: How many.

    Attributes:
        cut_after: Seconds from when a client had begun until it was cut off, by kind.
    """

    def __init__(self, url: str, number: int) -> None:
        self.url, self.number = url, number
        self._begun = 0
        self.cut_after: dict[str, list[float]] = {kind: [] for kind in kinds(url)}
        self._all_there = threading.Event()
        self._held: set[int] = set()

    @property
    def connected(self) -> int:
        """How many are connected and were not cut off."""
        return self._begun - sum(map(len, self.cut_after.values()))

    def wait(self) -> None:
        """Waits until all are there."""
        if not self._all_there.wait(60):
            raise AssertionError(f"only {self.connected} of {self.number} slow clients could connect")

    async def run(self) -> None:
        """Lets them loose, until all are cut off."""
        parts, sent = urlsplit(self.url), list(kinds(self.url).items())
        watching = asyncio.create_task(self._look())
        running = []
        for i in range(self.number):
            connection = socket.socket()
            connection.setblocking(False)
            if i % len(sent) == len(sent) - 1:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await asyncio.get_running_loop().sock_connect(connection, (parts.hostname, parts.port))
            self._begun += 1
            kind, (at_once, trickle) = sent[i % len(sent)]
            running.append(asyncio.create_task(self._be_slow(connection, kind, at_once, trickle)))
            await asyncio.sleep(0.01 if kind == "never_reading" else 0.002)  # what they ask for is to be answered
        self._all_there.set()
        await asyncio.gather(*running)
        watching.cancel()

    async def _look(self) -> None:
        while True:
            self._held = served_ports(urlsplit(self.url).port or 80)
            await asyncio.sleep(TRICKLE_SECONDS / 2)

    async def _be_slow(self, connection: socket.socket, kind: str, at_once: bytes, trickle: bytes) -> None:
        loop, started = asyncio.get_running_loop(), time.monotonic()
        over = started + GIVEN_UP_SECONDS
        with connection, suppress(OSError):
            sending = asyncio.create_task(loop.sock_sendall(connection, at_once))
            while time.monotonic() < over:
                await asyncio.sleep(TRICKLE_SECONDS)
                if kind == "never_reading":
                    if connection.getsockname()[1] not in self._held:
                        break
                else:
                    await loop.sock_sendall(connection, trickle[:1])
                    trickle = trickle[1:]
                    with suppress(BlockingIOError):
                        if not connection.recv(65_536):
                            break
            sending.cancel()
        ended = time.monotonic()
        self.cut_after[kind].append(ended - started if ended < over else float("inf"))


def served_ports(port: int) -> set[int]:
    """Returns the ports of clients of which this machine still holds anything at its end of the connection.

    A client that reads nothing hears nothing, so it can't tell when it was cut off.
    """
    lines = [line.split()[1:3] for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ends = [(int(here.split(":")[1], 16), int(there.split(":")[1], 16)) for here, there in lines]
    return {there for here, there in ends if here == port}


@contextmanager
def crowd(url: str, number: int) -> Iterator[Crowd]:
    """Lets slow clients loose on a service, and waits until all of them were cut off."""
    slow = Crowd(url, number)
    thread = threading.Thread(target=lambda: asyncio.run(slow.run()))
    thread.start()
    try:
        slow.wait()
        yield slow
    finally:
        thread.join()


def measure(folder: Path, clients: int, rounds: int, seconds: float) -> Seen:
    """Measures single rows with and without slow clients, in turns."""
    row = folder / "row"
    row.write_bytes(ROW)
    limits = {"header_seconds": LIMIT_SECONDS, "body_seconds": LIMIT_SECONDS, "write_seconds": LIMIT_SECONDS}
    with serving(folder / "log", SERVICE, **limits) as server, server.client():
        url, pid = server.url(), server.process.pid
        closed_loop(f"{url}/score", row, 16, 0.5)
        memory, files = resident_mb(pid), open_files(pid)
        most, connected, without, beside = 0.0, clients, [], []
        cut: dict[str, float] = {}
        for _ in range(rounds):
            without.append(closed_loop(f"{url}/score", row, 16, seconds).p99)
            with crowd(url, clients) as slow:
                time.sleep(SECONDS_TO_BE_SLOW)
                beside.append(closed_loop(f"{url}/score", row, 16, seconds).p99)
                connected = min(connected, slow.connected)
                most = max(most, resident_mb(pid) - memory)
            for kind, times in slow.cut_after.items():
                cut[kind] = max(cut.get(kind, 0.0), *times)
        settled = time.monotonic() + 10
        while open_files(pid) > files + FILES and time.monotonic() < settled:
            time.sleep(0.1)
        ratios = [a / b for a, b in zip(beside, without, strict=True)]
        return Seen(ratios, median(beside), median(without), cut, connected, most, open_files(pid) - files)


def run(scale: float) -> Outcome:
    """Sends `scale` times 500 slow clients, 30 at least, in `scale` times five rounds, one at least."""
    clients = max(30, min(CLIENTS, round(CLIENTS * scale)))
    with tempfile.TemporaryDirectory() as folder:
        seen = measure(Path(folder), clients, max(1, round(ROUNDS * scale)), 1.5 if scale >= 1 else 0.8)
    return judge(seen, clients)


BAR = Bar(
    6,
    "Beside 500 clients that send a header or a body byte by byte or never read, the p99 of others is at most twice"
    " that without them, and the slow ones are cut off in time.",
    run,
)
