"""Simple detectors on the same splits as RaDOGAGA, by protocols A and B.

Scalers and detectors are fitted on the training part's normal rows only. By protocol A the ratio of test rows flagged
is the paper's, by protocol B it is that of the anomalies among them. The two can't be ranked with each other.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.baselines import BASELINES, SCALINGS, BaselineError, fit
from training.datasets import DATASETS
from training.datasets.base import Dataset, protocol_a, protocol_b
from training.experiments.base import Experiment, Request
from training.experiments.records import Record, append_record, current_commit, read_records
from training.experiments.results import lines_file
from training.metrics import evaluate
from training.thresholds import percentile_threshold

Protocol = Literal["a", "b"]

EXPERIMENTS: dict[Protocol, str] = {"a": "baselines", "b": "baselines_b"}
"""What a protocol's runs are called in the records."""

SPLITS = {"a": protocol_a, "b": protocol_b}

HEADINGS = {"minmax": "min-max", "standard": "standardised", "none": "unscaled"}

METRICS = ("f1", "auroc", "average_precision")


@dataclass(frozen=True)
class Run:
    """A baseline on a split of a dataset.

    Attributes:
        protocol: How the dataset is split and how many test rows are flagged.
        dataset: A name of `DATASETS`.
        method: A name of `BASELINES`.
        scaling: A name of `SCALINGS`.
        seed: Decides the split and everything the baseline draws.
    """

    protocol: Protocol
    dataset: str
    method: str
    scaling: str
    seed: int

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the baseline, as JSON values."""
        return BASELINES[self.method].settings()


@dataclass(frozen=True)
class Cell:
    """What a baseline with a scaling reaches on a dataset: means over its seeds, ratios in [0, 1].

    Attributes:
        method: The name of the baseline.
        scaling: The name of the scaling.
        seeds: The seeds of the runs that could be fitted.
        failed: The number of runs that could not; if that is all of them, the means are NaN.
        f1: The mean of F1.
        std: The sample's standard deviation of F1, None for a single seed.
        auroc: The mean area under the receiver operating characteristic.
        average_precision: The mean of the average precision.
    """

    method: str
    scaling: str
    seeds: tuple[int, ...]
    failed: int
    f1: float
    std: float | None
    auroc: float
    average_precision: float


class Baselines(Experiment):
    """All baselines by both protocols, in one process: their libraries have threads of their own."""

    name = "baselines"
    summary = "simple detectors on the same splits"

    def state(self, request: Request) -> str:
        runs = wanted(request.datasets, request.seeds, tuple(EXPERIMENTS))
        done = {key(record) for record in read_records(lines_file(request.docs, self.name))}
        return f"{sum(key(unfinished(each)) in done for each in runs)}/{len(runs)}"

    def reproduce(self, request: Request, console: Console) -> None:
        run(request.datasets, request.seeds, tuple(EXPERIMENTS), request.docs, console)

    def render(self, docs: Path) -> str:
        return render(read_records(lines_file(docs, self.name)))


def wanted(
    datasets: Sequence[str],
    seeds: Sequence[int],
    protocols: Sequence[Protocol],
    methods: Sequence[str] = tuple(BASELINES),
) -> list[Run]:
    """Lists the runs: a seed of all datasets before the next seed, and baselines that take little time first."""
    return [
        Run(protocol, dataset, method, scaling, seed)
        for protocol in protocols
        for seed in seeds
        for dataset in datasets
        for method in methods
        for scaling in (["none"] if BASELINES[method].scale_free else SCALINGS)
    ]


def measure(run: Run, dataset: Dataset) -> dict[str, Any]:
    """Fits a baseline and judges the test rows; a fit that fails is a result too.

    Returns:
        What `training.metrics.evaluate` says, or the reason under `failed`.
    """
    split = SPLITS[run.protocol](dataset.y, run.seed)
    try:
        score = fit(BASELINES[run.method], run.scaling, dataset.x[split.normal], run.seed)
    except BaselineError as error:
        return {"failed": str(error)}
    scores, y = score(dataset.x[split.test]), dataset.y[split.test]
    flagged = dataset.contamination if run.protocol == "a" else float(y.mean())
    return {**evaluate(y, scores, percentile_threshold(scores, flagged))}


def run(
    datasets: Sequence[str],
    seeds: Sequence[int],
    protocols: Sequence[Protocol],
    docs: Path,
    console: Console,
    methods: Sequence[str] = tuple(BASELINES),
) -> None:
    """Runs what is not in docs/results/baselines.jsonl yet, adding a line after each run.

    Arguments:
        datasets: Names of `DATASETS`.
        seeds: The seeds of the splits, and of what baselines draw.
        protocols: The protocols, one after the other.
        docs: The folder of results.md.
        console: Where to show how it goes on.
        methods: Names of `BASELINES`.

    Raises:
        DatasetFileError: A dataset can't be had.
        ResultsError: A line of the file can't be read.
    """
    lines = lines_file(docs, "baselines")
    done = {key(record) for record in read_records(lines)}
    missing = [each for each in wanted(datasets, seeds, protocols, methods) if key(unfinished(each)) not in done]
    commit = current_commit()
    tables: dict[str, Dataset] = {}
    columns = (BarColumn(bar_width=20), MofNCompleteColumn(), TextColumn("ETA"), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=len(missing))
        for each in missing:
            if each.dataset not in tables:
                tables[each.dataset] = DATASETS[each.dataset]()
            started = time.process_time()
            metrics = measure(each, tables[each.dataset])
            seconds = round(time.process_time() - started, 3)
            append_record(lines, {**unfinished(each), "metrics": metrics, "seconds": seconds, "commit": commit})
            label = f"{each.dataset}, protocol {each.protocol.upper()}, seed {each.seed}: {each.method}, {each.scaling}"
            console.print(f"{label}: {told(metrics)}, {seconds} s", highlight=False, markup=False, soft_wrap=True)
            bar.advance(task)


def told(metrics: dict[str, Any]) -> str:
    """Says in a line what a run has shown."""
    if "failed" in metrics:
        return f"failed, {metrics['failed']}"
    return "F1 {f1:.4f}, AUROC {auroc:.4f}, average precision {average_precision:.4f}".format_map(metrics)


def unfinished(run: Run) -> Record:
    """Returns the record of a run that has no result yet."""
    return Record(
        experiment=EXPERIMENTS[run.protocol],
        method=run.method,
        h="",
        recipe=run.scaling,
        dataset=run.dataset,
        seed=run.seed,
        settings=run.settings,
        metrics={},
        seconds=0.0,
        commit="",
    )


def key(record: Record) -> tuple[str, str, str, str, int, str]:
    """Returns what tells a run from others: two runs with the same key have the same result."""
    settings = json.dumps(record["settings"], sort_keys=True)
    return record["experiment"], record["dataset"], record["method"], record["recipe"], record["seed"], settings


def cells(records: Sequence[Record], dataset: str, protocol: Protocol) -> list[Cell]:
    """Summarises a dataset's runs with the baselines' present settings."""
    found = []
    for method, baseline in BASELINES.items():
        for scaling in SCALINGS:
            place = (EXPERIMENTS[protocol], dataset, method, scaling, baseline.settings())
            runs = [
                r for r in records if (r["experiment"], r["dataset"], r["method"], r["recipe"], r["settings"]) == place
            ]
            if runs:
                found.append(summary(method, scaling, runs))
    return found


def summary(method: str, scaling: str, runs: Sequence[Record]) -> Cell:
    """Summarises the runs of a baseline with a scaling."""
    fitted = [r for r in runs if "failed" not in r["metrics"]]
    seeds, failed = tuple(sorted(r["seed"] for r in fitted)), len(runs) - len(fitted)
    if not fitted:
        return Cell(method, scaling, seeds, failed, nan, None, nan, nan)
    f1, auroc, average_precision = ([float(r["metrics"][name]) for r in fitted] for name in METRICS)
    std = stdev(f1) if len(f1) > 1 else None
    return Cell(method, scaling, seeds, failed, mean(f1), std, mean(auroc), mean(average_precision))


def best(records: Sequence[Record], protocol: Protocol) -> dict[str, Cell]:
    """Returns each dataset's cell with the highest mean F1, among those with as many seeds as any.

    It is chosen by the very figures it then shows, which flatters it a little: it is what a method has to beat, not
    what one would have got without labels.
    """
    found = {dataset: comparable(cells(records, dataset, protocol)) for dataset in DATASETS}
    return {dataset: max(some, key=lambda cell: cell.f1) for dataset, some in found.items() if some}


def comparable(found: Sequence[Cell]) -> list[Cell]:
    """Returns the cells with as many fitted seeds as any of them, none if there is no fit."""
    most = max((len(cell.seeds) for cell in found), default=0)
    return [cell for cell in found if len(cell.seeds) == most > 0]


def render(records: Sequence[Record]) -> str:
    """Writes a table in Markdown for every protocol and dataset, a baseline per line and a scaling per column."""
    sections = [
        f"### {dataset}, protocol {protocol.upper()}\n\n{table(found)}"
        for protocol in EXPERIMENTS
        for dataset in DATASETS
        if (found := cells(records, dataset, protocol))
    ]
    return "\n".join(sections)


def table(found: Sequence[Cell]) -> str:
    """Writes a dataset's table: F1 with its deviation, AUROC, average precision; the highest of each in bold."""
    highest = {name: max((getattr(cell, name) for cell in comparable(found)), default=nan) for name in METRICS}
    lines = [f"| baseline | {' | '.join(HEADINGS[scaling] for scaling in SCALINGS)} | seeds |", "|---|---|---|---|---|"]
    for method in dict.fromkeys(cell.method for cell in found):
        line = {cell.scaling: cell for cell in found if cell.method == method}
        texts = [f" {show(line[scaling], highest)} " if scaling in line else " " for scaling in SCALINGS]
        counts = sorted({len(cell.seeds) for cell in line.values()})
        lines.append(f"| {method} |{'|'.join(texts)}| {' or '.join(map(str, counts))} |")
    return "\n".join(lines) + "\n"


def show(cell: Cell, highest: dict[str, float]) -> str:
    """Writes a cell: its three figures, and how many runs failed."""
    failed = [f"{cell.failed} failed"] if cell.failed else []
    if not cell.seeds:
        return failed[0]
    deviation = "" if cell.std is None else f" ({cell.std:.3f})"
    texts = [f"{cell.f1:.3f}{deviation}", f"{cell.auroc:.3f}", f"{cell.average_precision:.3f}"]
    best_of_all = [getattr(cell, name) == highest[name] for name in METRICS]
    figures = " / ".join(f"**{text}**" if bold else text for text, bold in zip(texts, best_of_all, strict=True))
    return ", ".join([figures, *failed])
