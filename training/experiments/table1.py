"""Table 1 of the paper: anomaly detection on four public datasets, by protocol A."""

from dataclasses import dataclass
from statistics import mean, stdev

import numpy as np
import torch

from training.experiments.records import Record
from training.fitting import Observer
from training.jobs import Job, run
from training.metrics import Metrics, evaluate
from training.settings import DEFAULT_H, H, named
from training.thresholds import percentile_threshold

HEADINGS = (
    *("dataset", "h", "recipe", "seeds", "precision", "recall", "F1", "paper's F1", "AUROC", "average precision"),
    *("flagged", "CPU s"),
)


@dataclass(frozen=True)
class Published:
    """A cell of the paper's table: mean and standard deviation of F1 over 20 seeds."""

    f1: float
    std: float


PAPER: dict[str, dict[H, Published]] = {
    "kddcup99": {"identity": Published(0.9624, 0.0038), "log": Published(0.9638, 0.0042)},
    "thyroid": {"identity": Published(0.6447, 0.0486), "log": Published(0.6702, 0.0585)},
    "arrhythmia": {"identity": Published(0.5433, 0.0468), "log": Published(0.5373, 0.0411)},
    "kddcup-rev": {"identity": Published(0.9797, 0.0015), "log": Published(0.9865, 0.0009)},
}


def jobs(datasets: list[str], hs: list[H] | None, recipes: list[str], seeds: list[int]) -> list[Job]:
    """Lists the runs of the table; h is the paper's better one unless given."""
    return [
        Job(dataset, h, recipe, seed, "table2", {})
        for seed in seeds
        for dataset in datasets
        for h in hs or [DEFAULT_H[dataset]]
        for recipe in recipes
    ]


def measure(job: Job, observer: Observer) -> Metrics:
    """Fits a model and measures it as the paper does: on the test half, flagging a percentile of its scores."""
    model = run(job, observer=observer)
    test = model.split.test
    with torch.no_grad():
        parts = [model.method.score(torch.from_numpy(x)).numpy() for x in np.array_split(model.dataset.x[test], 16)]
    scores = np.concatenate(parts)
    return evaluate(model.dataset.y[test], scores, percentile_threshold(scores, model.dataset.contamination))


def render(records: list[Record]) -> str:
    """Writes the table in Markdown, each cell the mean and standard deviation over the seeds at hand.

    Runs with other settings than a recipe has today stay in the file and out of the table.
    """
    lines = [
        f"| {' | '.join(HEADINGS)} |",
        f"|{'---|' * len(HEADINGS)}",
    ]
    for dataset, cells in PAPER.items():
        for h, published in cells.items():
            for recipe in ("faithful", "robust"):
                settings = named(dataset, h, recipe).to_json()
                cell = [r for r in records if (r["dataset"], r["recipe"], r["settings"]) == (dataset, recipe, settings)]
                if cell:
                    lines.append(row(dataset, h, recipe, published, cell))
    return "\n".join(lines) + "\n"


def row(dataset: str, h: H, recipe: str, published: Published, cell: list[Record]) -> str:
    """Writes one line of the table."""

    def spread(name: str) -> str:
        values = [float(r["metrics"][name]) for r in cell]
        return f"{mean(values):.4f} ({stdev(values):.4f})" if len(values) > 1 else f"{values[0]:.4f}"

    seeds = sorted(r["seed"] for r in cell)
    gapless = len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1))
    numbers = f"{seeds[0]} to {seeds[-1]}" if gapless else str(seeds)[1:-1]
    fields = [dataset, "d" if h == "identity" else "log d", recipe, numbers]
    fields += [spread(name) for name in ("precision", "recall", "f1")]
    fields += [f"{published.f1:.4f} ({published.std:.4f})", spread("auroc"), spread("average_precision")]
    fields += [f"{mean(r['metrics']['flagged'] for r in cell):.0f}", f"{mean(r['seconds'] for r in cell):.0f}"]
    return f"| {' | '.join(fields)} |"
