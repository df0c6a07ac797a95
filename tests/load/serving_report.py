"""What `serving_speed.py` measured, as tables: on the console, and in docs/performance.md with its line of JSON."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.load.bars import BARS, Verdict, alone, judge
from tests.load.measuring import Figures, medians
from training.experiments.results import check_section, lines_file, write_section

SECTION, PAGE = "serving", "performance.md"

COMMAND = "python -m tests.load.serving_speed --record docs"


@dataclass(frozen=True)
class Run:
    """Everything that one run found.

    Attributes:
        figures: Of each case, those of every time it was measured.
        missing: The servers that could not be measured, and why.
        rounds: How often everything was measured.
        seconds_per_measurement: How long each time.
        seconds: How long the run took.
        processor: The processor's name.
        cores: How many of its cores there are.
        versions: Of Python, of the libraries and of the peers.
        commit: The commit that was measured.
    """

    figures: dict[str, list[Figures]]
    missing: dict[str, str]
    rounds: int
    seconds_per_measurement: float
    seconds: float
    processor: str
    cores: int
    versions: dict[str, str]
    commit: str

    def medians(self) -> dict[str, Figures]:
        """Returns the median of each figure of each case."""
        return {name: medians(each) for name, each in self.figures.items()}


Cells = list[str]

FIGURES: dict[str, Callable[[Figures], str]] = {
    "CPU ms/request": lambda found: f"{found['cpu']:.3f}" if "cpu" in found else "-",
    "requests/s": lambda found: f"{found['requests']:,.0f}",
    "rows/s": lambda found: f"{found['rows']:,.0f}",
    "p50 ms": lambda found: f"{found['p50']:.2f}",
    "p99 ms": lambda found: f"{found['p99']:.2f}",
}


def traffic_table(run: Run) -> list[Cells]:
    """Returns a row for every case, after the header."""
    header = ["traffic", "server", *FIGURES, "requests/s, lowest to highest"]
    rows = []
    for name, found in run.medians().items():
        server, _, traffic = name.partition(": ")
        if "requests" in found:
            rates = [each["requests"] for each in run.figures[name]]
            spread = f"{min(rates):,.0f} to {max(rates):,.0f}"
            rows.append([traffic, server, *(cell(found) for cell in FIGURES.values()), spread])
    rows.sort(key=lambda cells: cells[0])  # stable: what is compared stands together, in the order it was measured in
    return [header, *rows]


def servers_table(run: Run) -> list[Cells]:
    """Returns a row for every server, after the header: how it starts, and what it keeps; or why it is missing."""
    found = run.medians()
    servers = [name.removesuffix(alone("")) for name in found if name.endswith(alone(""))]
    rows = [[name, f"{found[alone(name)]['start']:.2f}", f"{found[alone(name)]['memory']:.0f}"] for name in servers]
    return [
        ["server", "start s", "PSS MB"],
        *rows,
        *([name, "missing", reason] for name, reason in run.missing.items()),
    ]


def bars_table(run: Run) -> list[Cells]:
    """Returns a row for every bar, after the header."""
    judged = [(heading, judge(bar, run.figures)) for heading, bars in BARS.items() for bar in bars]
    rows = [
        [heading, verdict.bar.text, value(verdict), verdict.bar.wanted(), verdict.outcome]
        for heading, verdict in judged
    ]
    return [["", "", "measured", "wanted", ""], *rows]


def value(verdict: Verdict) -> str:
    """Writes what was measured for a bar."""
    if verdict.value is None:
        return "-"
    return f"{verdict.value:,.0f}" if abs(verdict.value) >= 1000 else f"{verdict.value:.3g}"


TABLES: dict[str, Callable[[Run], list[Cells]]] = {
    "What the service has to reach": bars_table,
    "Every measurement, medians": traffic_table,
    "Start and memory, each server alone": servers_table,
}


def note(run: Run) -> str:
    """Says where and how it was measured."""
    versions = ", ".join(f"{name} {number}" for name, number in run.versions.items())
    return (
        f"{run.rounds} rounds of {run.seconds_per_measurement:g} seconds on {run.cores} cores of an {run.processor}, "
        f"at {run.commit}, in {run.seconds / 60:.0f} minutes; {versions}."
    )


def show(console: Console, run: Run) -> None:
    """Prints the tables."""
    for title, make in TABLES.items():
        header, *rows = make(run)
        table = Table(*header, title=title)
        for cells in rows:
            table.add_row(*cells, style="red" if cells[-1] == "not met" or "missing" in cells else None)
        console.print(table)
    console.print(note(run))


def markdown(rows: Sequence[Cells]) -> str:
    """Writes a table, the header first."""
    header, *rest = rows
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, ["---"] * len(header), *rest])


def check_place(docs: Path) -> None:
    """Checks that a run can be recorded, before it takes its time.

    Raises:
        ResultsError: docs/performance.md or the marks in it are missing.
    """
    check_section(docs, SECTION, PAGE)


def record(docs: Path, run: Run) -> None:
    """Adds a run's line to docs/results/serving.jsonl and writes its tables into docs/performance.md."""
    with lines_file(docs, SECTION).open("a") as stream:
        stream.write(json.dumps(asdict(run)) + "\n")
    tables = [f"### {title}\n\n{markdown(make(run))}\n" for title, make in TABLES.items()]
    write_section(docs, SECTION, "\n".join([*tables, note(run)]) + "\n", COMMAND, PAGE)
