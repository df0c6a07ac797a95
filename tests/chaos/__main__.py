"""Tries to break the service, one promise after the other: `make chaos`."""

import argparse
import importlib
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from tests.chaos import records
from tests.chaos.bars import Bar, Outcome
from tests.chaos.records import FULL, Record, record_of, words, written
from tests.server import ROOT
from training.experiments.results import ResultsError, check_section

MODULES = {
    1: "swaps",
    2: "overload",
    3: "killing",
    4: "fuzzing",
    5: "corruption",
    6: "slow_clients",
    8: "guessing",
    7: "soak",
}
"""The module of each bar, in the order in which they are tried: the one that takes an hour comes last."""

DOCS = ROOT / "docs"


class NoBar(Exception):
    """A bar is not there."""


def load(number: int) -> Bar:
    """Imports a bar.

    Raises:
        NoBar: There is no such module, or it exports no bar of that number.
    """
    name = f"{__package__}.{MODULES[number]}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise NoBar(f"bar {number} is missing: there is no module {name}") from None
    bar = getattr(module, "BAR", None)
    if not isinstance(bar, Bar) or bar.number != number:
        raise NoBar(f"bar {number} is missing: {name}.BAR is {bar!r}")
    return bar


def attempt(bar: Bar, scale: float) -> Outcome:
    """Tries a bar; one that ends in an error is not met, and does not keep the others from being tried."""
    try:
        return bar.run(scale)
    except Exception as error:  # noqa: BLE001 - printed, and the bar fails by it
        traceback.print_exc()
        return Outcome({}, [f"it could not be tried to its end: {type(error).__name__}: {error}"])


def show(record: Record) -> None:
    """Prints what was found."""
    for name, value in record.figures.items():
        print(f"   {words(name)}: {written(value)}")
    for failure in record.failures:
        print(f"   NOT HELD: {failure}")
    print(f"   {'NOT MET' if record.failures else 'met'}, in {record.seconds:.0f} seconds\n", flush=True)


def numbers(text: str) -> list[int]:
    """Reads numbers of bars.

    Raises:
        ValueError: One is none.
    """
    wanted = {int(word) for word in text.split(",")}
    if unknown := wanted - MODULES.keys():
        raise ValueError(f"no bar {min(unknown)}")
    return [number for number in MODULES if number in wanted]


def share(text: str) -> float:
    """Reads a share of the full length.

    Raises:
        ValueError: It is not in (0, 1].
    """
    scale = float(text)
    if not 0 < scale <= FULL:
        raise ValueError(text)
    return scale


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description="Try to break the service.")
    parser.add_argument("--only", type=numbers, default=list(MODULES), metavar="1,2", help="these bars")
    parser.add_argument("--scale", type=share, default=FULL, help="this share of the full length, 1 unless given")
    parser.add_argument("--record", action="store_true", help="keep the figures and write docs/reliability.md")
    parser.add_argument("--resume", action="store_true", help="try no bar that was recorded in full at this commit")
    parser.add_argument("--render", action="store_true", help="only write docs/reliability.md from what is recorded")
    parser.add_argument("--docs", type=Path, default=DOCS, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Tries the bars; returns 1 if one is not met, 2 if one or its place is missing."""
    options = options_of(arguments)
    try:
        if options.record or options.render:
            check_section(options.docs, records.SECTION, records.PAGE)
        if options.render:
            records.render(options.docs)
            return 0
        bars = [load(number) for number in options.only]
    except (NoBar, ResultsError) as error:
        print(error, file=sys.stderr)
        return 2
    known = records.done_at(records.read(options.docs), records.commit()) if options.resume else {}
    failed = []
    for bar in bars:
        print(f"{bar.number}. {bar.promise}", flush=True)
        record = known.get(bar.number)
        if record is None:
            began = time.monotonic()
            record = record_of(bar, attempt(bar, options.scale), options.scale, time.monotonic() - began)
            if options.record:
                records.append(options.docs, record)
                records.render(options.docs)
        else:
            print(f"   recorded {record.date}")
        show(record)
        failed += [str(bar.number)] if record.failures else []
    print(f"not met: {', '.join(failed)}" if failed else "every bar was met")
    return 1 if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the services are ended
    sys.exit(main())
