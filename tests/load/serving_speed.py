"""How fast the service is, beside what can't be beaten and beside its peers, all measured in the same run.

``python -m tests.load.serving_speed`` starts every server on the loopback, lets clients take turns at them for some
rounds, and prints the medians of each and the bars the service has to reach. A server's CPU time is that of all its
processes; it is the steady figure, while rates and latencies move with whatever else the machine does: the client
shares the servers' cores. Servers that are not measured are idle meanwhile. ``make bench-serving`` installs the peers
and runs this.
"""

import argparse
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from tests.load.bars import BATCHING, FILLED, ORJSON, RAW, SERVICE, SHARED, TWO, USUAL, alone
from tests.load.bodies import FLOATS, MANY_FLOATS, ROW, ROWS, BodyName
from tests.load.measuring import Case, Figures, fill, live, measure
from tests.load.processes import processor
from tests.load.servers import CANDIDATES, ServerError, running, version_of
from tests.load.serving_report import Run, check_place, record, show
from training.experiments.records import current_commit
from training.experiments.results import ResultsError

Say = Callable[[str], None]
"""Tells whoever waits what is being measured."""


@dataclass(frozen=True)
class Amount:
    """How much is measured.

    Attributes:
        rounds: How often everything is.
        seconds: How long each case is.
        warm_up_seconds: How long a server that runs alone is sent something.
        requests: How many single rows the memory has to stand.
    """

    rounds: int
    seconds: float
    warm_up_seconds: float
    requests: int


FULL = Amount(rounds=9, seconds=1.25, warm_up_seconds=1.0, requests=200_000)
QUICK = Amount(rounds=1, seconds=1.0, warm_up_seconds=0.3, requests=5_000)

JSON_PEERS = ("mosec, orjson", "MLServer", "LitServe", "BentoML")

CASES = [
    *(Case(name, ROW) for name in (SERVICE, SHARED, ORJSON, TWO, TWO, "raw ASGI, constant answer", USUAL, *JSON_PEERS)),
    *(Case(name, ROW, disturbed=True) for name in (SERVICE, USUAL)),
    *2 * (Case(SERVICE, ROW, 1), Case(BATCHING, ROW, 1)),
    *(Case(name, ROW, 64) for name in (SERVICE, BATCHING, ORJSON, "mosec, batching")),
    *(Case(name, ROWS) for name in (SERVICE, ORJSON, USUAL, *JSON_PEERS)),
    *(Case(name, FLOATS) for name in (SERVICE, TWO, TWO, RAW, "mosec, float32")),
    *(Case(name, MANY_FLOATS) for name in (SERVICE, RAW, "mosec, float32")),
]
"""One round; what is compared stands close together. Connections are shared between workers by chance, and a few
percent are asked about at one connection: what stands twice is measured twice, over connections of its own."""

NAMES = list(dict.fromkeys(case.server for case in CASES))

LIBRARIES = ("fastapi", "numpy", "onnxruntime", "orjson", "uvicorn", "uvloop")


def first_body(name: str) -> BodyName:
    """Returns the first that a server is sent in a round."""
    return next(case.body for case in CASES if case.server == name)


def measure_alone(say: Say, folder: Path, amount: Amount) -> tuple[dict[str, list[Figures]], dict[str, str]]:
    """Starts servers one by one, and the service several times; returns what was found, and why peers are missing.

    Raises:
        ServerError: The service or a limit did not start, or did not answer with 200.
    """
    found: dict[str, list[Figures]] = {}
    missing: dict[str, str] = {}
    for name in [*NAMES, *(amount.rounds - 1) * [SERVICE]]:
        say(alone(name))
        try:
            figures = live(name, folder, first_body(name), amount.warm_up_seconds)
        except ServerError as error:
            if CANDIDATES[name].environment is None:
                raise
            say(f"{name} is MISSING: {error}")
            missing[name] = str(error).partition("\n")[0]
        else:
            found.setdefault(alone(name), []).append(figures)
    say(FILLED)
    return found | {FILLED: [fill(SERVICE, folder, amount.requests)]}, missing


def measure_in_turn(say: Say, folder: Path, names: Sequence[str], amount: Amount) -> dict[str, list[Figures]]:
    """Starts servers side by side, and measures the cases one by one, round after round.

    Raises:
        ServerError: A server did not start, or did not answer with 200.
    """
    found: dict[str, list[Figures]] = {}
    with ExitStack() as stack:
        servers = {name: stack.enter_context(running(name, folder, first_body(name))) for name in names}
        for number in range(amount.rounds):
            for case in CASES if number % 2 == 0 else reversed(CASES):  # what comes before leaves its mark
                if case.server in servers:
                    say(f"round {number + 1} of {amount.rounds}: {case}")
                    found.setdefault(str(case), []).append(measure(servers[case.server], case, amount.seconds))
    return found


def run(console: Console, amount: Amount) -> Run:
    """Measures everything.

    Raises:
        ServerError: A server did not start, or did not answer with 200.
    """

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False)

    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        figures, missing = measure_alone(say, Path(temporary), amount)
        names = [name for name in NAMES if name not in missing]
        figures |= measure_in_turn(say, Path(temporary), names, amount)
    peers = dict.fromkeys(peer for name in names if (peer := CANDIDATES[name].environment))
    return Run(
        figures=figures,
        missing=missing,
        rounds=amount.rounds,
        seconds_per_measurement=amount.seconds,
        seconds=time.monotonic() - began,
        processor=processor(),
        cores=os.cpu_count() or 0,
        versions={
            "python": platform.python_version(),
            **{name: version(name) for name in LIBRARIES},
            **{peer: version_of(peer) for peer in peers},
        },
        commit=current_commit(),
    )


def main() -> int:
    """Prints the tables, and keeps them if asked to."""
    parser = argparse.ArgumentParser(description="Measure the service beside limits and peers.")
    parser.add_argument("--quick", action="store_true", help="one short round, to see whether it works")
    parser.add_argument("--record", type=Path, metavar="docs", help="keep the run in this folder, too")
    options = parser.parse_args()
    console = Console(width=140)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are ended
    try:
        if options.record:
            check_place(options.record)
        done = run(console, QUICK if options.quick else FULL)
    except (ResultsError, ServerError) as error:
        print(error, file=sys.stderr)
        return 1
    show(console, done)
    if options.record:
        record(options.record, done)
    return 0


if __name__ == "__main__":
    sys.exit(main())
