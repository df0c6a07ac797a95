"""What `make chaos` found, a line of JSON per bar and run, and the table they make in docs/reliability.md."""

import json
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from tests.chaos.bars import Bar, Figure, Outcome
from tests.load.processes import processor
from tests.load.serving_report import markdown
from tests.server import ROOT
from training.experiments.results import lines_file, write_section

SECTION, PAGE = "chaos", "reliability.md"

COMMAND = "make chaos OPTIONS=--record"

FULL = 1.0


@dataclass(frozen=True)
class Record:
    """One try of a bar.

    Attributes:
        bar: Its number.
        promise: What it promises.
        scale: The share of its full length that was tried.
        commit: What was tried, with a plus if files differed from it.
        date: When, in UTC.
        processor: The processor's name.
        cores: How many of its cores there were.
        python: The version of Python.
        seconds: How long it took.
        figures: What was measured.
        failures: What was not held.
    """

    bar: int
    promise: str
    scale: float
    commit: str
    date: str
    processor: str
    cores: int
    python: str
    seconds: float
    figures: dict[str, Figure]
    failures: list[str]


def record_of(bar: Bar, outcome: Outcome, scale: float, seconds: float) -> Record:
    """Notes what was found, and where."""
    return Record(
        bar.number,
        bar.promise,
        scale,
        commit(),
        datetime.now(UTC).isoformat(timespec="seconds"),
        processor(),
        os.cpu_count() or 0,
        platform.python_version(),
        round(seconds, 1),
        dict(outcome.figures),
        outcome.failures,
    )


def commit() -> str:
    """Returns the short name of the commit, with a plus if files outside docs/ differ from it.

    Figures are recorded in docs/ while others are still to come.
    """
    name = _git("rev-parse", "--short", "HEAD")
    return name + ("+" if _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs") else "")


def read(docs: Path) -> list[Record]:
    """Reads the lines there are, the oldest first."""
    file = lines_file(docs, SECTION)
    return [Record(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


def append(docs: Path, record: Record) -> None:
    """Adds a line."""
    with lines_file(docs, SECTION).open("a") as stream:
        stream.write(json.dumps(asdict(record)) + "\n")


def done_at(records: Iterable[Record], name: str) -> dict[int, Record]:
    """Returns the last full try of each bar at a commit; there is none at a commit from which files differ."""
    return {r.bar: r for r in records if r.commit == name and r.scale == FULL and not name.endswith("+")}


def newest(records: Iterable[Record]) -> dict[int, Record]:
    """Returns the last full try of each bar."""
    return {r.bar: r for r in sorted(records, key=lambda r: r.date) if r.scale == FULL}


def render(docs: Path) -> None:
    """Writes the table of the last full tries into docs/reliability.md.

    Raises:
        ResultsError: The page or the marks in it are missing.
    """
    write_section(docs, SECTION, tables(newest(read(docs))), COMMAND, PAGE)


def tables(found: dict[int, Record]) -> str:
    """Writes the verdicts, and under them every figure."""
    if not found:
        return "No bar has been recorded in full.\n"
    verdicts = [["bar", "promise", "verdict", "minutes", "commit", "date"]]
    figures = [["bar", "figure", "measured"]]
    failures = []
    for number, record in sorted(found.items()):
        minutes, date = f"{record.seconds / 60:.1f}", record.date.partition("T")[0]
        verdict = "**not met**" if record.failures else "met"
        verdicts.append([str(number), record.promise, verdict, minutes, f"`{record.commit}`", date])
        figures += [[str(number), words(name), written(value)] for name, value in record.figures.items()]
        failures += [f"- Bar {number}: {failure}" for failure in record.failures]
    last = max(found.values(), key=lambda record: record.date)
    where = f"Measured on {last.cores} cores of an {last.processor}, Python {last.python}."
    parts = [markdown(verdicts), *(["\n".join(failures)] if failures else []), markdown(figures), where]
    return "\n\n".join(parts) + "\n"


def words(name: str) -> str:
    """Writes a figure's name for readers."""
    return name.replace("_", " ")


def written(value: Figure) -> str:
    """Writes a figure for readers."""
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
