"""What a fit without any setting is worth: `RaDOGAGADetector` beside an isolation forest and kNN on the same splits.

The tables are those that scikit-learn ships and those of the paper, by protocol B. The rules of `training.automatic`
were chosen on others, of the KEEL repository, among which are other versions of the cancer and digits data.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any, cast

import numpy as np
from rich.console import Console
from sklearn import datasets
from sklearn.metrics import average_precision_score, roc_auc_score

from training import baselines
from training.datasets import DATASETS
from training.datasets.base import Labels, Rows, protocol_b
from training.estimator import RaDOGAGADetector
from training.experiments.base import Request
from training.experiments.records import Metrics, read_records
from training.experiments.results import lines_file
from training.experiments.runs import Listed, Run, metrics_by_seed

SEEDS = 5

MOST_ROWS = 50_000
"""Rows of a table, at most, drawn at random with seed 0."""

OURS = "RaDOGAGA"

RIVALS = {"isolation forest": "none", "kNN": "standard"}
"""Baselines, by the scaling that is usual for each."""

Labelled = tuple[Rows, Labels]


def shipped(load: Callable[..., Any], anomalies: Sequence[int]) -> Labelled:
    """Returns a table of scikit-learn, of which some classes are the anomalies."""
    found = load()
    return found.data.astype(np.float32), np.isin(found.target, anomalies)


def digit(normal: int) -> Labelled:
    """Returns the digits as rows of 64 pixels, of which one is normal."""
    return shipped(datasets.load_digits, [number for number in range(10) if number != normal])


def of_the_paper(name: str) -> Labelled:
    """Returns a dataset of the paper, or some of its rows."""
    dataset = DATASETS[name]()
    rows = np.arange(len(dataset.x))
    if len(rows) > MOST_ROWS:
        rows = np.random.default_rng(0).choice(rows, MOST_ROWS, replace=False)
    return dataset.x[rows], dataset.y[rows]


TABLES: Mapping[str, Callable[[], Labelled]] = {
    "breast cancer": partial(shipped, datasets.load_breast_cancer, [0]),
    "wine": partial(shipped, datasets.load_wine, [0, 2]),
    "iris": partial(shipped, datasets.load_iris, [2]),
    **{f"digit {number}": partial(digit, number) for number in range(10)},
    **{name: partial(of_the_paper, name) for name in DATASETS},
}
"""The tables by name."""

table_of = cache(lambda name: TABLES[name]())


class Defaults(Listed):
    """Fits without settings, of ours and of others."""

    name = "defaults"
    summary = "fits of tables without any setting, beside an isolation forest and kNN"

    def runs(self, request: Request) -> list[Run]:
        return wanted([seed for seed in request.seeds if seed < SEEDS])

    def do(self, runs: Sequence[Run], docs: Path, console: Console) -> list[Metrics]:  # noqa: ARG002
        return [measure(run) for run in runs]

    def render(self, docs: Path) -> str:
        records = read_records(lines_file(docs, self.name))
        found = {
            name: {run.method: metrics_by_seed(records, run) for run in wanted([0]) if run.dataset == name}
            for name in TABLES
        }
        return render({name: methods for name, methods in found.items() if all(methods.values())})


def wanted(seeds: Sequence[int]) -> list[Run]:
    """Lists the runs."""
    return [
        Run(method, "", RIVALS.get(method, "automatic"), table, seed, settings_of(method))
        for table in TABLES
        for method in (OURS, *RIVALS)
        for seed in seeds
    ]


def settings_of(method: str) -> dict[str, Any]:
    """Returns what a method is given."""
    return {} if method == OURS else baselines.BASELINES[method].settings()


def measure(run: Run) -> Metrics:
    """Fits a method on half of a table's normal rows, and judges how it tells the others from the anomalies."""
    x, y = table_of(run.dataset)
    split = protocol_b(y, run.seed)
    fitted, tested = x[split.normal], x[split.test]
    if run.method == OURS:
        scores = -RaDOGAGADetector(random_state=run.seed).fit(fitted).score_samples(tested)
    else:
        scores = baselines.fit(baselines.BASELINES[run.method], run.recipe, fitted, run.seed)(tested)
    return {
        "rows": len(fitted),
        "auroc": float(roc_auc_score(y[split.test], scores)),
        "average_precision": min(1.0, float(average_precision_score(y[split.test], scores))),
    }


def render(found: Mapping[str, Mapping[str, Mapping[int, Metrics]]]) -> str:
    """Writes the table: a line per table, the mean AUROC of each method over its seeds, and the mean over tables."""
    methods = (OURS, *RIVALS)
    lines = [f"| table | fitted rows | {' | '.join(methods)} |", "|---|---|" + "---|" * len(methods)]
    means: dict[str, list[float]] = {method: [] for method in methods}
    for name, by_method in found.items():
        values = {method: [cast(float, one["auroc"]) for one in by_method[method].values()] for method in methods}
        highest = max(mean(own) for own in values.values())
        cells = []
        for method, own in values.items():
            means[method].append(mean(own))
            text = f"{mean(own):.3f}"
            text = f"**{text}**" if mean(own) == highest else text
            cells.append(f"{text} ({stdev(own):.3f})" if len(own) > 1 else text)
        rows = next(iter(by_method[OURS].values()))["rows"]
        lines.append(f"| {name} | {rows:,} | {' | '.join(cells)} |")
    if found:
        lines.append(f"| **mean** | | {' | '.join(f'{mean(means[method]):.3f}' for method in methods)} |")
    return "\n".join(lines) + "\n"
