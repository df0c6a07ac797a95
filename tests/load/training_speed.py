"""How fast and in how much memory models are trained, beside two references measured in the same run.

``python -m tests.load.training_speed`` prints, per dataset's shape, the CPU time of a step per model: (a) of the plain
loop in `reference.py`, one model after the other; (b) of the step's multiply-adds at the rate of a large float32
product of matrices; and of the stacked fit. The measurements take turns, many short rounds each, and of each the
fastest counts: it is the one that was disturbed least. Peak memory is that of a process of its own, less what it has
before it starts. Tables are random and have two full batches of rows, so that every step is of the same size: only
shapes matter.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from tests.load.processes import processor
from tests.load.reference import Reference
from training.experiments.records import current_commit
from training.experiments.results import lines_file, write_section
from training.experiments.sweep import MEMBERS_AT_ONCE, MEMBERS_OF_SMALL_TABLES
from training.fitting import Member, Run
from training.jobs import build
from training.memory import keep_freed_memory
from training.methods.mixture_autoencoder import MixtureAutoencoder
from training.settings import DEFAULT_H, Settings, named

SHAPES = {"thyroid": (2048, 6), "arrhythmia": (256, 274), "kddcup99": (2048, 121)}
"""Rows, in two full batches, and features."""

ROUNDS = 60
SECONDS_PER_ROUND = 0.1
SIDE = 1536
"""The side of the square matrices whose product sets the floor."""


def table_of(name: str) -> Tensor:
    """Makes a table of a dataset's shape, uniform on [0, 1)."""
    return torch.rand(*SHAPES[name], generator=torch.Generator().manual_seed(0))


def members_of(name: str) -> int:
    """Returns how many models of a dataset are trained together."""
    return MEMBERS_AT_ONCE.get(name, MEMBERS_OF_SMALL_TABLES)


def stacked(name: str, settings: Settings, members: int) -> Run[MixtureAutoencoder]:
    """Starts a fit of several models."""
    x = table_of(name)
    rows = torch.arange(len(x))
    return Run([Member(build("RaDOGAGA", x, settings, seed), rows, seed) for seed in range(members)], x, settings)


def multiply_adds(name: str, settings: Settings) -> int:
    """Counts the multiply-adds of a step of one model: products of matrices, forwards and backwards."""
    rows = min(settings.batch_size, SHAPES[name][0])
    features, k, d = SHAPES[name][1], settings.components, settings.latent + 2
    widths = [features, *settings.hidden, settings.latent]
    coder = sum(inputs * outputs for inputs, outputs in pairwise(widths))
    estimation = d * settings.estimation + settings.estimation * k
    mixture = 2 * k * d * d  # moments, and whitening
    forwards = 3 * coder + estimation + mixture  # once the encoder, twice the decoder
    return rows * (3 * forwards - features * widths[1])  # the rows themselves need no gradient


def seconds_per_call(function: Callable[[], object]) -> float:
    """Returns the CPU seconds of a call, over a moment of calls."""
    started, calls = time.process_time(), 0
    while (passed := time.process_time() - started) < SECONDS_PER_ROUND:
        function()
        calls += 1
    return passed / calls


def measure(name: str) -> dict[str, float]:
    """Returns milliseconds of CPU per step and model: of the reference, the floor, the stack and one model alone."""
    settings, x = named(name, "RaDOGAGA", DEFAULT_H[name]), table_of(name)
    members = members_of(name)
    reference, run, alone = Reference(x, settings), stacked(name, settings, members), stacked(name, settings, 1)
    a, b, out = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE), torch.empty(SIDE, SIDE)
    share = multiply_adds(name, settings) / SIDE**3
    rounds = [
        {
            "reference": seconds_per_call(reference.advance),
            "floor": seconds_per_call(lambda: torch.mm(a, b, out=out)) * share,
            "stacked": seconds_per_call(run.advance) / members,
            "alone": seconds_per_call(alone.advance),
        }
        for _ in range(ROUNDS)
    ]
    return {key: 1e3 * min(each[key] for each in rounds) for key in rounds[0]}


def peak(name: str, kind: str) -> float:
    """Returns the MiB that some steps of a fit take at most, measured in a process of its own."""
    command = [sys.executable, "-m", "tests.load.training_speed", "--peak", name, kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout))


def peak_here(name: str, kind: str) -> float:
    """Returns the MiB by which some steps raise this process's memory; Linux counts it."""
    settings = named(name, "RaDOGAGA", DEFAULT_H[name])
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = status("VmRSS")
    advance = (
        Reference(table_of(name), settings).advance
        if kind == "reference"
        else stacked(name, settings, members_of(name)).advance
    )
    for _ in range(10):
        advance()
    return (status("VmHWM") - before) / 1024


def status(field: str) -> int:
    """Returns a figure of this process's memory, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


Line = dict[str, Any]
"""What was found for one dataset's shape, as JSON values."""

COLUMNS: dict[str, Callable[[Line], str]] = {
    "shape of": lambda line: line["shape"],
    "members": lambda line: str(line["members"]),
    "(a) plain loop": lambda line: f"{line['reference']:.3g}",
    "(b) floor": lambda line: f"{line['floor']:.3g}",
    "alone": lambda line: f"{line['alone']:.3g}",
    "stacked": lambda line: f"{line['stacked']:.3g}",
    "stacked / (a)": lambda line: f"{line['stacked'] / line['reference']:.2f}",
    "stacked / (b)": lambda line: f"{line['stacked'] / line['floor']:.2f}",
    "peak MiB": lambda line: f"{line['peak']:.0f}",
    "peak MiB of (a)": lambda line: f"{line['peak_of_reference']:.0f}",
}


def record(docs: Path, lines: Sequence[Line]) -> None:
    """Adds lines to docs/results/speed.jsonl and writes their table into docs/results.md."""
    with lines_file(docs, "speed").open("a") as stream:
        stream.writelines(json.dumps(line) + "\n" for line in lines)
    rows = [list(COLUMNS), ["---"] * len(COLUMNS), *([cell(line) for cell in COLUMNS.values()] for line in lines)]
    text = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    note = f"CPU milliseconds per step and model, on one thread of an {lines[0]['processor']}."
    write_section(docs, "speed", f"{text}\n\n{note}\n", "python -m tests.load.training_speed --record docs")


def main() -> None:
    """Prints the table, and keeps it if asked to."""
    parser = argparse.ArgumentParser(description="Measure training beside two references.")
    parser.add_argument("--peak", nargs=2, metavar=("dataset", "kind"), help="print the peak memory of one and stop")
    parser.add_argument("--record", type=Path, metavar="docs", help="keep the table in this folder's results.md, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    if options.peak:
        print(json.dumps(peak_here(*options.peak)))
        return
    same = {"processor": processor(), "torch": torch.__version__, "commit": current_commit()}
    lines: list[Line] = []
    for name in SHAPES:
        memory = {"peak": peak(name, "stacked"), "peak_of_reference": peak(name, "reference")}
        lines.append({"shape": name, "members": members_of(name), **measure(name), **memory, **same})
    table = Table(*COLUMNS, title="training: CPU ms per step and model")
    for line in lines:
        table.add_row(*(cell(line) for cell in COLUMNS.values()))
    Console(width=140).print(table)
    if options.record:
        record(options.record, lines)


if __name__ == "__main__":
    main()
