"""Bar 7: an hour of everything at once, after which nothing has grown.

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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.bars import Bar, Outcome
from tests.chaos.deeds import EXPECTED, Deed, asked, deeds, long_json
from tests.chaos.samples import DATASET
from tests.chaos.vitals import FEWEST, Vitals, growth, judge, keep, look
from tests.chaos.wire import Hang, Malformed, Wire
from tests.manifests import write_manifest
from tests.server import MODELS, Server, serving

SECONDS = 3600.0

WARM_UP_SHARE = 0.05
"""The share of the time before the samples that count: every format, thread and cache is there by then."""

RATE = 100.0
"""Requests per second, so that the machine has room for other work beside."""

SAMPLE_SECONDS = 2.0
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


@dataclass
class Traffic:
    """One client that does everything, at an even rate and in an order that its seed says.

    Arguments:
        url: Where to.
        seed: Of the order.
    """

    url: str
    seed: int = 0
    sent: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    late: int = 0
    of_new: int = 0

    def run(self, ended: Callable[[], bool], rate: float = RATE) -> None:
        """Does one deed after the other until it is told to end."""
        chance, every = random.Random(self.seed), deeds()
        weights = [deed.weight for deed in every]
        wires: list[Wire | None] = [None] * CONNECTIONS
        due = time.monotonic()
        while not ended():
            (deed,) = chance.choices(every, weights)
            place = chance.randrange(CONNECTIONS)
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


@contextmanager
def coming_and_going(models: Path) -> Iterator[list[int]]:
    """Lets a version appear in a models folder and vanish, over and over; yields how often it came."""
    newest = max(int(folder.name) for folder in (models / DATASET).iterdir())
    folder = models / DATASET / str(newest + 1)
    hidden, ended, times = models / DATASET / f".{folder.name}", threading.Event(), [0]

    def run() -> None:
        while not ended.wait(SWAP_SECONDS):
            if folder.exists():
                folder.rename(hidden)
                shutil.rmtree(hidden)
            else:
                add_version(models / DATASET / str(newest), hidden, newest + 1)
                hidden.rename(folder)
                times[0] += 1

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield times
    finally:
        ended.set()
        thread.join()


def soak(server: Server, seconds: float, samples: Path, every: float = SAMPLE_SECONDS) -> tuple[list[Vitals], Traffic]:
    """Sends everything for some time; returns what was seen behind the warm-up, and the client."""
    url, ended = server.url(), threading.Event()
    fill_pools(url)
    traffic = Traffic(url)
    thread = threading.Thread(target=traffic.run, args=(ended.is_set,))
    began = time.monotonic()
    thread.start()
    seen: list[Vitals] = []
    try:
        looked = scraped = began
        while (now := time.monotonic()) < began + seconds and thread.is_alive():
            if now >= scraped:
                scraped = now + SCRAPE_SECONDS
                scrape(url, traffic)
            if now >= looked:
                looked = now + every
                vitals = look(server.process.pid, began)
                keep(samples, vitals)
                seen += [vitals] if vitals.at >= seconds * WARM_UP_SHARE else []
            time.sleep(min(every / 2, 0.05))
    finally:
        ended.set()
        thread.join()
    return seen, traffic


def fill_pools(url: str) -> None:
    """Sends many long bodies at once, so that every pool has all the threads that it may have from the beginning."""
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
        swaps = stack.enter_context(coming_and_going(models))
        every = min(SAMPLE_SECONDS, seconds / (5 * FEWEST))
        seen, traffic = soak(server, seconds, samples, every)
        return outcome(seen, traffic, swaps[0], has_traceback(log))


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


def outcome(seen: list[Vitals], traffic: Traffic, swaps: int, traceback: bool) -> Outcome:
    """Judges what a soak has seen."""
    found = growth(seen)
    failures = judge(found)
    if traffic.wrong:
        failures.append(f"{len(traffic.wrong)} requests went wrong, the first: {traffic.wrong[0]}")
    if swaps and not traffic.of_new:
        failures.append(f"a version came {swaps} times and never answered")
    if traceback:
        failures.append("the log has a traceback")
    figures = {
        "seconds": round(seen[-1].at),
        "processes": max(found.processes),
        "requests": sum(traffic.sent.values()),
        "connections that clients cut": traffic.sent["hung up"],
        "requests that were wrong on purpose": traffic.sent["bad"],
        "versions that came and went": swaps,
        "answers of such a version": traffic.of_new,
        "resident memory of the last half, MB": round(found.memory, 1),
        "the most that was seen, MB": max(one.rss for one in seen),
        "drift of the last half, % of resident memory": round(100 * found.drift, 3),
        "spread of its medians, % of resident memory": round(100 * found.spread, 3),
        "file descriptors added": found.descriptors,
        "threads added": found.threads,
        "file descriptors at the end": seen[-1].descriptors,
        "threads at the end": seen[-1].threads,
        "unexpected answers": len(traffic.wrong),
    }
    return Outcome(figures, failures)


BAR = Bar(
    7,
    "One hour of mixed load on two workers: resident memory flat, the last half within 1 %, "
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
