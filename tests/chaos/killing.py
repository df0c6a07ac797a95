"""One of two workers is killed under load, and what that costs.

A closed loop of connections with a pause before each request, some 1,500 requests per second. A connection that breaks
is opened anew, and one that was closed meanwhile isn't used. What was sent to the killed worker before it was gone is
lost (the kernel takes some milliseconds to end it, and connections until then); everything else has to be answered, by
the other worker or by the one that follows.
"""

import asyncio
import os
import re
import select
import signal
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import orjson

from tests.chaos.bars import Bar, Outcome
from tests.load.client import CONTENT_LENGTH, render
from tests.server import SECONDS, SERVICE, Server, serving

CONNECTIONS = 16
PAUSE_SECONDS = 0.01
WHOLE_SECONDS = 5.0
"""Time until there are two workers again."""

REQUEST_ID = re.compile(rb"\r\nx-request-id: ([0-9a-f]{16})")
"""The half of a request's id that a worker's requests have in common."""

BODY = orjson.dumps({"dataset": "thyroid", "vectors": [[0.5] * 6]})
PROBE_SECONDS = 0.02


@dataclass(frozen=True)
class Answer:
    """An answer, or the lack of one.

    Attributes:
        sent: When its request was sent, by `time.monotonic`.
        ended: When its answer was complete, or its connection broke.
        worker: Who answered; of a failure, who had answered last on its connection; empty if nobody had.
        failure: What was wrong, if anything.
        first: Whether it was the first request of its connection.
    """

    sent: float
    ended: float
    worker: str
    failure: str = ""
    first: bool = False


@dataclass(frozen=True)
class Seen:
    """What was seen of one or several kills.

    Attributes:
        kills: When a worker was killed, and when it was gone.
        answers: All answers.
        whole_after: Seconds from each kill until two workers answered again.
    """

    kills: Sequence[tuple[float, float]]
    answers: Sequence[Answer]
    whole_after: Sequence[float] = field(default_factory=list)


def judge(seen: Seen) -> Outcome:
    """Holds what was seen against what is promised."""
    failed = [answer for answer in seen.answers if answer.failure]
    survivors = {gone: {a.worker for a in seen.answers if not a.failure and a.sent > gone} for _, gone in seen.kills}
    in_flight = [
        answer
        for answer in failed
        if any(
            answer.sent <= gone and answer.ended >= at and answer.worker not in survivors[gone]
            for at, gone in seen.kills
        )
    ]
    late = [answer for answer in in_flight if not any(answer.sent < at <= answer.ended for at, _ in seen.kills)]
    others = [answer for answer in failed if answer not in in_flight]
    slowest = max(seen.whole_after, default=0.0)
    figures = {
        "kills": len(seen.kills),
        "requests": len(seen.answers),
        "failed_in_flight": len(in_flight),
        "of_these_sent_before_it_was_gone_but_after_the_kill": len(late),
        "failed_otherwise": len(others),
        "whole_again_seconds": round(slowest, 2),
        "longest_until_gone_ms": round(1e3 * max((gone - at for at, gone in seen.kills), default=0.0), 1),
    }
    failures = []
    if not seen.answers or not seen.kills:
        failures.append("nothing was sent, or nothing was killed")
    if others:
        failures.append(
            f"{len(others)} requests failed that were not in flight on a killed worker: {others[0].failure}"
        )
    if slowest > WHOLE_SECONDS:
        failures.append(f"two workers answered again only after {slowest:.1f} s, at most {WHOLE_SECONDS:g} s")
    return Outcome(figures, failures)


class Load:
    """A closed loop.

    Arguments:
        url: Where requests go.

    Attributes:
        answers: What came of them.
        known: The workers that ever answered.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 80
        self.request = render(f"{url}/score", BODY, ["content-type: application/json"])
        self.answers: list[Answer] = []
        self.known: set[str] = set()
        self.over = False

    async def ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """Sends a request and returns who answered it.

        Raises:
            OSError: The connection broke.
            ValueError: The answer is not 200.
        """
        writer.write(self.request)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = CONTENT_LENGTH.search(head)
            await reader.readexactly(int(length[1]) if length else 0)
        except asyncio.IncompleteReadError:
            raise ConnectionError("closed within an answer") from None
        worker = REQUEST_ID.search(head)
        if not head.startswith(b"HTTP/1.1 200 ") or worker is None:
            raise ValueError(head[:100].decode(errors="replace"))
        self.known.add(worker[1].decode())
        return worker[1].decode()

    async def keep_asking(self) -> None:
        """Sends request after request, on a new connection whenever one breaks."""
        while not self.over:
            sent, first, worker = time.monotonic(), True, ""
            writer = None
            try:
                reader, writer = await asyncio.open_connection(self.host, self.port)
                while not (self.over or closed(reader, writer)):
                    sent = time.monotonic()
                    worker = await self.ask(reader, writer)
                    self.answers.append(Answer(sent, time.monotonic(), worker, first=first))
                    first = False
                    await asyncio.sleep(PAUSE_SECONDS)
            except (OSError, ValueError) as error:
                failure = f"{error!r}, {'first' if first else 'later'} request of its connection"
                self.answers.append(Answer(sent, time.monotonic(), worker, failure, first))
            finally:
                if writer is not None:
                    writer.close()

    async def workers(self, number: int, known: set[str], deadline: float) -> set[str]:
        """Returns who answers new connections, once there are so many that are not known to be gone.

        Raises:
            TimeoutError: There are not, by the deadline.
        """
        found: set[str] = set()
        while len(found) < number:
            if time.monotonic() > deadline:
                raise TimeoutError(f"only {len(found)} workers answer")
            with suppress(OSError, ValueError):
                reader, writer = await asyncio.open_connection(self.host, self.port)
                try:
                    found |= {await self.ask(reader, writer)} - known
                finally:
                    writer.close()
            await asyncio.sleep(PROBE_SECONDS)
        return found


def closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Returns whether the other side has closed an idle connection, though the event loop may not have heard of it."""
    return reader.at_eof() or bool(select.select([writer.get_extra_info("socket").fileno()], [], [], 0)[0])


def pids(server: Server) -> list[int]:
    """Returns the workers that live, in the order in which they started."""
    started = [re.search(r"Started server process \[(\d+)\]", str(line["message"])) for line in server.lines()]
    return [int(found[1]) for found in started if found and alive(int(found[1]))]


def alive(pid: int) -> bool:
    """Returns whether a process is there, and more than a zombie; the last of its threads closes its connections."""
    process = Path(f"/proc/{pid}")
    try:
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        return state not in "ZX" or len(list((process / "task").iterdir())) > 1
    except OSError:
        return False


async def kill(server: Server, load: Load) -> tuple[tuple[float, float], float]:
    """Kills a worker; returns when that was and when it was gone, and how long until there were two again."""
    before, living = set(load.known), pids(server)
    at = time.monotonic()
    os.kill(living[0], signal.SIGKILL)
    while alive(living[0]):
        await asyncio.sleep(0.001)
    gone = time.monotonic()
    await load.workers(1, before, at + 4 * WHOLE_SECONDS)  # somebody who was not there before
    whole = time.monotonic() - at
    if len(pids(server)) < len(living):
        raise AssertionError(f"a new worker answers, but only {len(pids(server))} live")
    return (at, gone), whole


async def measure(server: Server, kills: int, pause: float) -> Seen:
    """Kills a worker again and again under load."""
    load = Load(server.url())
    await load.workers(2, set(), time.monotonic() + SECONDS)
    asking = [asyncio.create_task(load.keep_asking()) for _ in range(CONNECTIONS)]
    times, whole = [], []
    try:
        for _ in range(kills):
            await asyncio.sleep(pause)
            killed, after = await kill(server, load)
            times.append(killed)
            whole.append(after)
        await asyncio.sleep(pause)
    finally:
        load.over = True
        await asyncio.wait_for(asyncio.gather(*asking), SECONDS)
    return Seen(times, load.answers, whole)


def run(scale: float) -> Outcome:
    """Kills a worker `scale` times ten times, but once at least."""
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder) / "log", SERVICE, workers=2) as server,
        server.client(),
    ):
        return judge(asyncio.run(measure(server, max(1, round(10 * scale)), max(0.3, min(2.0, 20 * scale)))))


BAR = Bar(
    3,
    "Of two workers under load one is killed (kill -9): only the requests in flight on it fail, and there are two again"
    " within 5 s.",
    run,
)
