"""Section 4.3's model as an anomaly scorer: nine handwritten digits are normal, one is not."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from rich.console import Console

from training.baselines import BASELINES, fit
from training.datasets.base import Dataset, Split, protocol_a
from training.datasets.digits import ANOMALY, digits
from training.experiments.base import Request
from training.experiments.records import Metrics, read_records
from training.experiments.results import lines_file
from training.experiments.runs import Listed, Run, metrics_by_seed
from training.jobs import FittedImages, ImageJob, run_images
from training.metrics import evaluate
from training.progress import watched
from training.thresholds import percentile_threshold

SEEDS = range(5)

OTHER_SEEDS = range(1)
"""Seeds of the splits with another digit as the anomaly."""

RIVALS = ("PCA residual", "kNN")
"""Baselines on the same splits, on pixels as they are: all have one unit."""

METHOD = "RaDOGAGA"

PARTS = ("cost", "rate", "distortion")
"""What RaDOGAGA's score may be; the first is the shipped model's."""


class Digits(Listed):
    """RaDOGAGA with a factorized density on digits, beside PCA and kNN."""

    name = "digits"
    summary = "images: one digit against nine, by a factorized density"

    def runs(self, _: Request) -> list[Run]:
        anomalies = [ANOMALY, *(digit for digit in range(10) if digit != ANOMALY)]
        return [
            Run(method, h, recipe, "digits", seed, {"anomaly": anomaly, **settings})
            for anomaly in anomalies
            for method, h, recipe, settings in variants()
            for seed in (SEEDS if anomaly == ANOMALY else OTHER_SEEDS)
        ]

    def do(self, runs: Sequence[Run], docs: Path, console: Console) -> list[Metrics]:
        dataset = digits(anomaly=runs[0].settings["anomaly"])
        if runs[0].method != METHOD:
            return [measure_rival(run, dataset, protocol_a(dataset.y, run.seed)) for run in runs]
        found, unfinished = [], []
        for run in runs:
            job = ImageJob(dataset="digits", seed=run.seed)
            path = (
                lines_file(docs, self.name).parent / ".unfinished" / f"digits-{run.settings['anomaly']}-{run.seed}.pt"
            )
            with watched(
                f"{run.label}, {run.settings['anomaly']} is the anomaly, seed {run.seed}", console
            ) as observer:
                model = run_images(job, dataset, observer=observer, checkpoint=path, resume=path.exists())
            found.append(measure(model))
            unfinished.append(path)
        for path in unfinished:
            path.unlink(missing_ok=True)
        return found

    def render(self, docs: Path) -> str:
        records = read_records(lines_file(docs, self.name))
        cells: dict[int, dict[str, list[Metrics]]] = {}
        for run in self.runs(Request((), None, (), 1, docs)):
            if of_setting := metrics_by_seed(records, run):
                cells.setdefault(run.settings["anomaly"], {})[run.method] = list(of_setting.values())
        return table(cells)


def variants() -> list[tuple[str, str, str, dict[str, Any]]]:
    """Lists method, h, recipe and settings of what is compared."""
    ours = ImageJob(dataset="digits", seed=0)
    rivals = [(name, "", "none", BASELINES[name].settings()) for name in RIVALS]
    return [(METHOD, "identity", ours.recipe, ours.settings.to_json()), *rivals]


@torch.no_grad()
def measure(model: FittedImages) -> Metrics:
    """Judges the test half by a fitted model's cost, by its rate alone and by its distortion alone."""
    method, test, dataset = model.method, model.split.test, model.dataset
    y = dataset.y[test]

    def parts_of(rows: np.ndarray[Any, np.dtype[np.intp]]) -> dict[str, torch.Tensor]:
        x = torch.from_numpy(dataset.x[rows]).double()
        rate, cost = method.rate(method.encode(x)), method.score(x)
        return {"cost": cost, "rate": rate, "distortion": cost - rate}

    scores = {name: part.numpy() for name, part in parts_of(test).items()}
    judged = {
        name: evaluate(y, score, percentile_threshold(score, dataset.contamination)) for name, score in scores.items()
    }
    fitted = {name: float(part.mean()) for name, part in parts_of(model.split.normal).items()}
    tested = {name: float(score[~y].mean()) for name, score in scores.items()}
    return {**judged, "nats of fitted rows": fitted, "nats of normal test rows": tested}


def measure_rival(run: Run, dataset: Dataset, split: Split) -> Metrics:
    """Judges the test half by a baseline."""
    score = fit(BASELINES[run.method], run.recipe, dataset.x[split.normal], run.seed)
    scores, y = score(dataset.x[split.test]), dataset.y[split.test]
    return {"cost": evaluate(y, scores, percentile_threshold(scores, dataset.contamination))}


def table(cells: dict[int, dict[str, list[Metrics]]]) -> str:
    """Writes AUROC in Markdown, a line for each digit that is the anomaly."""
    lines = [
        "| anomaly | seeds | RaDOGAGA, rate + distortion | rate alone | distortion alone | PCA residual | kNN |",
        "|---|---|---|---|---|---|---|",
    ]
    for anomaly, found in sorted(cells.items(), key=lambda cell: (-len(cell[1].get(METHOD, ())), cell[0])):
        fields = [str(anomaly), str(max(len(runs) for runs in found.values()))]
        fields += [spread(found.get(METHOD, []), part) for part in PARTS]
        fields += [spread(found.get(name, []), "cost") for name in RIVALS]
        lines.append(f"| {' | '.join(fields)} |")
    return "\n".join(lines) + "\n"


def spread(runs: Sequence[Metrics], part: str) -> str:
    """Writes the mean of AUROC over runs, and its deviation if there are several."""
    if not runs:
        return ""
    values = [run[part]["auroc"] for run in runs]
    return f"{mean(values):.3f}" + (f" ({stdev(values):.3f})" if len(values) > 1 else "")
