"""docs/results.md: every figure in it comes from the JSON lines beside it."""

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from training.experiments import table1 as table
from training.experiments.records import read_records
from training.settings import DEFAULT_H, H

BEGIN = "<!-- table1: written by `python -m training reproduce table1` -->"
END = "<!-- end of table1 -->"


def table1(
    datasets: list[str], hs: list[H] | None, recipes: list[str], seeds: Iterable[int], docs: Path, console: Console
) -> None:
    """Runs what is missing of Table 1, and writes the table into docs/results.md after each run.

    Arguments:
        datasets: The datasets.
        hs: The scale functions; for each dataset the paper's better one unless given.
        recipes: The recipes.
        seeds: The seeds.
        docs: The folder with results.md; the lines are in its folder `results`.
        console: Where to show how it goes on.
    """
    lines = docs / "results" / "table1.jsonl"
    wanted = [
        job
        for job in table.jobs(datasets, ("identity", "log"), recipes, seeds)
        if job.h in (hs or [DEFAULT_H[job.dataset]])
    ]
    table.sweep(wanted, lines, console)
    write_section(docs / "results.md", table.render(read_records(lines)))


def write_section(page: Path, text: str) -> None:
    """Replaces what stands between the page's marks, and leaves the rest as it is."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")
