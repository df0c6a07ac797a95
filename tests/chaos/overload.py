"""Three times as many requests as the service can answer, and what becomes of those that it takes.

The load is open: requests are due when a Poisson process says, on as many connections as that needs, and latencies
begin when a request is due (`tests.load.offered`). Requests have 256 rows of Thyroid, 14 kB and one to two milliseconds
of work each: a refusal costs some 50 microseconds, half of what a single row does, so that twice as many refusals as
answers can only be had at the price of the answers if these are as small; and nor could the second core offer as much.
Capacity is what a closed loop of 8 connections gets just before and just after. On a machine that others use, too, a
rate says little without how long the service waited for a core; so both rates are those of the time that it didn't.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson

from tests.chaos.bars import Bar, Outcome
from tests.chaos.observing import JSON, closed_loop, cpu_wait, resident_mb, watching
from tests.load.offered import Phase
from tests.server import SECONDS, serving

ROWS = 256
FEATURES = 6
MANY_ROWS = 16_384
FACTOR = 3.0
"""Offered over capacity."""

QUIET = 0.1
"""Offered over capacity before and after."""

PAUSE = 0.25
"""Seconds between two health checks, each with a scrape beside it, which takes as long as several requests."""

GOODPUT = 0.9
SLOWER = 5.0
SETTLED_SECONDS = 1.0
MEMORY_MB = 64.0
HEALTH_MS = 250.0
SINGLE_MS = 250.0
"""The most that are allowed: memory by which the service grows, the slowest percentile of health checks and scrapes
under overload, and that of single rows beside clients that post the largest bodies."""


@dataclass(frozen=True)
class Seen:
    """What was measured.

    Attributes:
        capacity: Requests answered per second in which the service had a core, by a closed loop.
        goodput: The same under overload.
        phases: Before, under overload, and after it.
        grown: MB by which its memory grew.
        health_ms: The slowest percentile of health checks under overload; scrapes accordingly.
        wrong: Health checks and scrapes that were not answered 200.
        single_ms: The slowest percentile of single rows beside clients that post the largest bodies.
        alone_ms: The same without them.
    """

    capacity: float
    goodput: float
    phases: Sequence[Phase]
    grown: float
    health_ms: float
    scrape_ms: float
    wrong: Sequence[str]
    single_ms: float
    alone_ms: float


def judge(seen: Seen) -> Outcome:
    """Holds what was measured against what is promised."""
    before, over, after = seen.phases
    share, slower = seen.goodput / seen.capacity, over.p99 / before.sent_p99
    figures: Mapping[str, float] = {
        "capacity_per_second": round(seen.capacity),
        "offered_per_second": round(over.due / over.seconds),
        "accepted_per_second": round(over.answered_within / over.seconds),
        "goodput_over_capacity": round(share, 3),
        "accepted": over.accepted,
        "refused": over.refused,
        "failed": sum(phase.failed for phase in seen.phases),
        "unloaded_p99_ms": round(before.sent_p99, 2),
        "accepted_p50_ms": round(over.p50, 2),
        "accepted_p99_ms": round(over.p99, 2),
        "accepted_p99_over_unloaded": round(slower, 2),
        "refused_p99_ms": round(over.refused_p99, 2),
        "connections": over.connections,
        "last_refusal_after_seconds": round(after.settled, 2),
        "memory_growth_mb": round(seen.grown, 1),
        "health_p99_ms": round(seen.health_ms, 1),
        "metrics_p99_ms": round(seen.scrape_ms, 1),
        "single_row_p99_ms": round(seen.alone_ms, 1),
        "single_row_p99_beside_long_bodies_ms": round(seen.single_ms, 1),
    }
    failure = next((phase.failure for phase in seen.phases if phase.failure), "")
    held = [
        (over.refused > 0, "nothing was refused, so this was no overload"),
        (share >= GOODPUT, f"goodput is {share:.2f} of capacity, at least {GOODPUT} is promised"),
        (slower <= SLOWER, f"the p99 of accepted requests is {slower:.1f} x the unloaded one, at most {SLOWER:g} x"),
        (not failure, f"requests ended otherwise than answered or refused: {failure}"),
        (seen.grown <= MEMORY_MB, f"memory grew by {seen.grown:.0f} MB, at most {MEMORY_MB:g}"),
        (
            after.settled <= SETTLED_SECONDS and after.accepted > 0,
            f"requests were still refused {after.settled:.2f} s after the overload, at most {SETTLED_SECONDS:g} s",
        ),
        (not seen.wrong, f"health checks or scrapes were not answered 200: {', '.join(seen.wrong[:3])}"),
        (seen.health_ms <= HEALTH_MS, f"the p99 of health checks is {seen.health_ms:.0f} ms, at most {HEALTH_MS:g}"),
        (seen.scrape_ms <= HEALTH_MS, f"the p99 of scrapes is {seen.scrape_ms:.0f} ms, at most {HEALTH_MS:g}"),
        (
            seen.single_ms <= SINGLE_MS,
            f"the p99 of single rows beside long bodies is {seen.single_ms:.0f} ms, at most {SINGLE_MS:g}",
        ),
    ]
    return Outcome(figures, [sentence for true, sentence in held if not true])


def write_body(folder: Path, rows: int) -> Path:
    """Writes a request's body with so many rows."""
    x = np.random.default_rng(0).random((rows, FEATURES)).round(6)
    file = folder / f"{rows} rows"
    file.write_bytes(orjson.dumps({"dataset": "thyroid", "vectors": x}, option=orjson.OPT_SERIALIZE_NUMPY))
    return file


def offer(url: str, body: Path, phases: Sequence[tuple[float, float]]) -> list[Phase]:
    """Runs `tests.load.offered`."""
    command = [sys.executable, "-m", "tests.load.offered", url, str(body), "--header", JSON]
    command += [f"--phase={rate}:{seconds}" for rate, seconds in phases]
    whole = sum(seconds for _, seconds in phases)
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * SECONDS + whole)
    if done.returncode:
        raise AssertionError(done.stderr)
    return [Phase(**phase) for phase in json.loads(done.stdout)]


def rate_of(answered: float, seconds: float, waited: float) -> float:
    """Returns requests per second in which the service didn't wait for a core."""
    return answered / max(seconds - waited, seconds / 10)


def single_rows(url: str, folder: Path, seconds: float) -> tuple[float, float]:
    """Returns the p99 of single rows in ms beside two clients, each with two connections and the longest bodies, and
    without them."""
    one, many = write_body(folder, 1), write_body(folder, MANY_ROWS)
    alone = closed_loop(url, one, 4, seconds).p99
    command = [sys.executable, "-m", "tests.load.client", url, str(many), "--header", JSON, "--connections", "4"]
    beside = subprocess.Popen([*command, "--seconds", str(seconds + 2)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        time.sleep(1)
        p99 = closed_loop(url, one, 4, seconds).p99
    finally:
        _, errors = beside.communicate(timeout=2 * SECONDS)
    if beside.returncode:
        raise AssertionError(errors.decode())
    return p99, alone


def measure(folder: Path, scale: float) -> Seen:
    """Overloads a service."""
    body, seconds = write_body(folder, ROWS), max(0.7, 30 * scale)
    short = max(0.7, min(5.0, 30 * scale))
    with serving(folder / "log") as server, server.client():
        url, pid = f"{server.url()}/score", server.process.pid

        def capacity() -> tuple[float, float]:
            waited = cpu_wait(pid)
            with watching(server.url(), pid, PAUSE):  # scrapes cost the same here and there
                report = closed_loop(url, body, 8, short)
            free = rate_of(report.requests, report.seconds, cpu_wait(pid) - waited)
            return report.requests / report.seconds, free

        closed_loop(url, body, 8, 0.5)
        (before, free), memory = capacity(), resident_mb(pid)
        quiet = offer(url, body, [(QUIET * before, short)])
        waited = cpu_wait(pid)
        with watching(server.url(), pid, PAUSE) as watch:
            over, after = offer(url, body, [(FACTOR * before, seconds), (QUIET * before, max(1.5, short))])
        waited = (cpu_wait(pid) - waited) * seconds / (seconds + after.seconds)
        goodput = rate_of(over.answered_within, seconds, waited)
        single, alone = single_rows(url, folder, max(0.7, short / 2))
        return Seen(
            (free + capacity()[1]) / 2,
            goodput,
            [*quiet, over, after],
            max(watch.memory) - memory,
            watch.p99_ms("/health/ready"),
            watch.p99_ms("/metrics"),
            watch.wrong,
            single,
            alone,
        )


def run(scale: float) -> Outcome:
    """Overloads a service for `scale` times 30 seconds."""
    with tempfile.TemporaryDirectory() as folder:
        return judge(measure(Path(folder), scale))


BAR = Bar(
    2,
    "Offered three times its capacity for 30 s, the service answers at least 90 % of its capacity, the p99 of what it"
    " accepts is at most 5 times the unloaded one, memory is bounded, and all is back to normal within 1 s.",
    run,
)
