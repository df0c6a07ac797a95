"""Bar 7: an hour of everything at once, after which nothing has grown.

What bodies take while they are answered comes and goes, by a quarter of all. So the hour has rests: nothing is sent
and no version is there that comes and goes, until what was freed has been given back. What a service holds then is what
it keeps, and that is judged; what it holds under load is told beside it.

`python -m tests.chaos.soak --minutes 10 --samples soak/` soaks for a shorter time and keeps what it saw.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from service import trimming
from tests.chaos.bars import Bar, Outcome
from tests.chaos.deeds import EXPECTED, Deed, asked, dealt, long_json
from tests.chaos.samples import DATASET
from tests.chaos.vitals import Vitals, growth, judge, keep, look
from tests.chaos.wire import Hang, Malformed, Wire
from tests.manifests import write_manifest
from tests.server import MODELS, Server, serving

SECONDS = 3600.0
"""Of load; the rests come on top."""

RESTS = 24
WARM_UP_RESTS = 2
"""Rests that do not count: behind them every format, thread and cache is there."""

SETTLE_SECONDS = 2 * trimming.SECONDS_BETWEEN
"""How long a rest is: twice as long as between two times that a service gives back what bodies took."""

RATE = 100.0
"""Requests per second, so that the machine has room for other work beside."""

SAMPLE_SECONDS = 0.5
SCRAPE_SECONDS = 10.0
SWAP_SECONDS = 4.0
"""How long a version stays in the models folder, and how long it stays away."""

WORKERS = 2
PATIENCE = 30.0
SECONDS_TO_START = 60.0
CONNECTIONS = 6
LONG_AT_ONCE = 16

MOST_BURSTS = 0.5
"""Seconds by which requests may be late and still all be sent; what is later is left out."""


class Traffic:
    """One client that does everything, at an even rate. Deeds are dealt like cards: every deck has the same.

    Arguments:
        url: Where to.
        seed: Of the order.
    """

    def __init__(self, url: str, seed: int = 0) -> None:
        self.url = url
        self.sent: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.late = 0
        self.of_new = 0
        self._chance = random.Random(seed)
        self._dealt = dealt(self._chance)

    def run(self, ended: Callable[[], bool], rate: float = RATE) -> None:
        """Does one deed after the other until it is told to end; goes on where it was when it is run again."""
        wires: list[Wire | None] = [None] * CONNECTIONS
        due = time.monotonic()
        while not ended():
            deed, place = next(self._dealt), self._chance.randrange(CONNECTIONS)
            if deed.fresh:
                self._do(deed, Wire(self.url, PATIENCE)).close()
            else:
                wires[place] = self._again(deed, wires[place] or Wire(self.url, PATIENCE))
            due += 1 / rate
            wait = due - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            elif wait < -MOST_BURSTS:
                self.late, due = self.late + 1, time.monotonic()
        for wire in wires:
            if wire is not None:
                wire.close()

    def _again(self, deed: Deed, wire: Wire) -> Wire | None:
        """Does a deed over a connection that is kept, and returns it if it was not closed since or by it."""
        before = len(self.wrong)
        self._do(deed, wire)
        if len(self.wrong) == before:
            return wire
        wire.close()
        return None

    def _do(self, deed: Deed, wire: Wire) -> Wire:
        sort = deed.sort or "hung up"
        self.sent[sort] += 1
        try:
            wire.send(deed.data)
            if deed.sort is not None:
                reply = wire.reply()
                found = reply.status if reply else "a closed connection"
                if found not in EXPECTED[deed.sort]:
                    self.wrong.append(f"{sort}: {found} to {deed.data[:80]!r}")
                self.of_new += (sort, found) == ("empty", 200)
        except (Hang, Malformed) as error:
            self.wrong.append(f"{sort}: {error} to {deed.data[:80]!r}")
        return wire


def add_version(source: Path, target: Path, number: int) -> None:
    """Copies a version under another number, with the digest that its manifest then has."""
    shutil.copytree(source, target)
    manifest = target / "manifest.json"
    write_manifest(manifest, json.loads(manifest.read_text()) | {"version": number})


class Guest:
    """A version that comes and goes in a models folder, behind the newest that is there.

    Arguments:
        models: The models folder.

    Attributes:
        times: How often it came.
    """

    def __init__(self, models: Path) -> None:
        self.times = 0
        newest = max(int(folder.name) for folder in (models / DATASET).iterdir())
        self._newest, self._folder = newest, models / DATASET / str(newest + 1)
        self._hidden = self._folder.with_name(f".{self._folder.name}")

    def turn(self) -> None:
        """Lets it come if it is not there, and go if it is."""
        if self._folder.exists():
            self.leave()
            return
        add_version(self._folder.with_name(str(self._newest)), self._hidden, self._newest + 1)
        self._hidden.rename(self._folder)
        self.times += 1

    def leave(self) -> None:
        """Lets it go if it is there."""
        if self._folder.exists():
            self._folder.rename(self._hidden)
            shutil.rmtree(self._hidden)


@dataclass(frozen=True)
class Seen:
    """What was counted, behind the warm-up: at the end of every rest, and under load."""

    rested: list[Vitals] = field(default_factory=list)
    loaded: list[Vitals] = field(default_factory=list)


@dataclass
class Every:
    """Something that is done again and again; for the first time when that time is over once.

    Arguments:
        seconds: How often.
        action: What.
    """

    seconds: float
    action: Callable[[], None]

    def __post_init__(self) -> None:
        self._due = time.monotonic() + self.seconds

    def do(self) -> None:
        """Does it if it is due."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + self.seconds
            self.action()


def soak(server: Server, seconds: float, guest: Guest, samples: Path) -> tuple[Seen, Traffic]:
    """Sends everything for some time, with rests between.

    Arguments:
        server: What it is sent to.
        seconds: How long, without the rests.
        guest: A version of the server's models folder; there in half of the load, and in no rest.
        samples: Where all that is counted is kept.
    """
    fill_pools(server.url())
    began, period = time.monotonic(), seconds / RESTS
    traffic, seen, loaded = Traffic(server.url()), Seen(), list[Vitals]()

    def count(resting: bool) -> Vitals:
        vitals = look(server.process.pid, began, resting)
        keep(samples, vitals)
        return vitals

    for number in range(RESTS):
        loaded.clear()
        jobs = [
            Every(SCRAPE_SECONDS, lambda: scrape(server.url(), traffic)),
            Every(SWAP_SECONDS, guest.turn),
            Every(min(SAMPLE_SECONDS, period / 4), lambda: loaded.append(count(resting=False))),
        ]
        load(traffic, period, jobs)
        guest.leave()
        time.sleep(min(SETTLE_SECONDS, period))
        rested = count(resting=True)
        if number >= WARM_UP_RESTS:
            seen.loaded.extend(loaded)
            seen.rested.append(rested)
    return seen, traffic


def load(traffic: Traffic, seconds: float, jobs: Sequence[Every]) -> None:
    """Sends everything for some time, does jobs beside it, and passes on what the client raised."""
    ended, end = threading.Event(), time.monotonic() + seconds
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(traffic.run, ended.is_set)
        try:
            while time.monotonic() < end and not sending.done():
                for job in jobs:
                    job.do()
                time.sleep(min(seconds / 20, 0.05))
        finally:
            ended.set()
        sending.result()


def fill_pools(url: str) -> None:
    """Sends many long bodies at once, so that threads that read such have done so before anything is counted."""
    data = long_json()
    wires = [Wire(url, PATIENCE) for _ in range(LONG_AT_ONCE)]
    for wire in wires:
        wire.send(data)
    for wire in wires:
        wire.reply()
        wire.close()


def scrape(url: str, traffic: Traffic) -> None:
    """Asks for the metrics, as Prometheus does."""
    wire = Wire(url, PATIENCE)
    wire.send(asked("/metrics"))
    reply = wire.reply()
    traffic.sent["scrapes"] += 1
    if reply is None or reply.status not in EXPECTED["good"]:
        traffic.wrong.append(f"/metrics: {reply and reply.status}")
    wire.close()


def run(scale: float) -> Outcome:
    """Soaks a service with two workers."""
    return soaked(scale * SECONDS)


def soaked(seconds: float, kept: Path | None = None, workers: int = WORKERS) -> Outcome:
    """Soaks a service of its own, and judges what it held.

    Arguments:
        seconds: How long.
        kept: Where the samples and the log go; nowhere that outlives this, unless given.
        workers: Its processes.
    """
    with ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        folder = kept or temporary
        folder.mkdir(parents=True, exist_ok=True)
        models = temporary / "models"
        shutil.copytree(MODELS, models)
        log, samples = folder / "service.log", folder / "samples.jsonl"
        samples.unlink(missing_ok=True)
        server = stack.enter_context(serving(log, workers=workers, models=models))
        await_ready(server, workers)
        guest = Guest(models)
        seen, traffic = soak(server, seconds, guest, samples)
        return outcome(seen, traffic, guest.times, has_traceback(log))


def await_ready(server: Server, workers: int) -> None:
    """Waits until every worker has said that it is ready.

    Raises:
        AssertionError: One is not in time; the text is the log.
    """
    deadline = time.monotonic() + SECONDS_TO_START
    while sum(line["message"] == "ready" for line in server.lines()) < workers:
        if time.monotonic() > deadline or server.process.poll() is not None:
            raise AssertionError(server.log.read_text())
        time.sleep(0.1)


def has_traceback(log: Path) -> bool:
    """Tells whether a log has a traceback; it may be long."""
    with log.open() as stream:
        return any("Traceback" in line for line in stream)


def outcome(seen: Seen, traffic: Traffic, versions: int, traceback: bool) -> Outcome:
    """Judges what a soak has seen."""
    under_load = growth(seen.loaded)
    found = growth(seen.rested)
    found = replace(found, processes=found.processes | under_load.processes)
    failures = judge(found)
    if traffic.wrong:
        failures.append(f"{len(traffic.wrong)} requests went wrong, the first: {traffic.wrong[0]}")
    if versions and not traffic.of_new:
        failures.append(f"a version came {versions} times and never answered")
    if traceback:
        failures.append("the log has a traceback")
    figures = {
        "seconds": round(seen.rested[-1].at),
        "rests": len(seen.rested),
        "processes": max(found.processes),
        "requests": sum(traffic.sent.values()),
        "connections that clients cut": traffic.sent["hung up"],
        "requests that were wrong on purpose": traffic.sent["bad"],
        "versions that came and went": versions,
        "answers of such a version": traffic.of_new,
        "unexpected answers": len(traffic.wrong),
        "resident memory at rest in the last half, MB": round(found.memory, 1),
        "its drift, %": round(100 * found.drift, 3),
        "spread of its medians, %": round(100 * found.spread, 3),
        "file descriptors added": found.descriptors,
        "threads added": found.threads,
        "file descriptors at the end": seen.rested[-1].descriptors,
        "threads at the end": seen.rested[-1].threads,
        "samples under load": len(seen.loaded),
        "resident memory under load in the last half, MB": round(under_load.memory, 1),
        "drift under load, %": round(100 * under_load.drift, 3),
        "spread of medians under load, %": round(100 * under_load.spread, 3),
        "the most that was seen, MB": max(one.rss for one in seen.loaded),
    }
    return Outcome(figures, failures)


BAR = Bar(
    7,
    "One hour of mixed load on two workers: resident memory flat, at rest within 1 % in the last half, "
    "and neither file descriptors nor threads grow.",
    run,
)


def main() -> int:
    """Soaks for some minutes, and keeps what was seen."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description="Soak a service.")
    parser.add_argument("--minutes", type=float, default=SECONDS / 60)
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--samples", type=Path, required=True, help="the folder of samples.jsonl and service.log")
    options = parser.parse_args()
    found = soaked(options.minutes * 60, options.samples, options.workers)
    for name, value in found.figures.items():
        print(f"{name}: {value}")
    print("\n".join(found.failures) or "met")
    return 0 if found.met else 1


if __name__ == "__main__":
    sys.exit(main())
