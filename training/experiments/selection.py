"""Which settings suit a dataset, judged without a label beyond those that keep anomalies out of the fit.

A candidate is fitted twice on four fifths of the normal training rows, from two random starts. Then

1. agreement: the two should flag the same rows of the training half, anomalies and normal ones unsorted. A decision
   that hangs on the random start is no decision.
2. calibration: of the held-out normal rows a twentieth should score above the 95 % quantile of the fitted ones. More
   means that the density has learned the fitted rows by heart.
3. loss: Eq. (4) on the held-out rows, with the density frozen. Lower is better.

The test half is not looked at.
"""

from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.datasets import DATASETS
from training.datasets.base import Dataset, Split, protocol_a
from training.experiments.records import Record
from training.fitting import FitError, Observer, build, fit
from training.jobs import Job
from training.methods.radogaga import RaDOGAGA
from training.settings import DEFAULT_H
from training.thresholds import contamination_threshold

HELD_OUT = 0.2
"""The share of the normal training rows that is not fitted."""

QUANTILE = 0.95

OTHER_START = 1000
"""What is added to the seed for the second of the two fits."""

FAST = {"learning_rate": 1e-3, "schedule": "cosine"}
SLOW = {"learning_rate": 1e-4, "schedule": "constant"}

FLOORS: list[dict[str, Any]] = [{**FAST, "variance_floor": floor} for floor in (1e-6, 1e-5, 1e-4, 1e-3)]

CANDIDATES: dict[str, list[dict[str, Any]]] = {
    "thyroid": FLOORS,
    "arrhythmia": [{**floor, "scaling": scaling} for scaling in ("feature", "table") for floor in FLOORS],
    "kddcup99": [
        {**FAST, "dropout": 0.5, "variance_floor": 1e-6},
        {**FAST, "dropout": 0.5, "variance_floor": 1e-4},
        {**SLOW, "dropout": 0.5, "variance_floor": 1e-6},
        {**SLOW, "dropout": 0.0, "variance_floor": 1e-6},
        {**SLOW, "dropout": 0.0, "variance_floor": 1e-4},
    ],
    "kddcup-rev": FLOORS,
}
"""What differs from the robust recipe: the settings whose value the paper leaves open, or that we mean to change."""

COLUMNS = ("learning_rate", "schedule", "dropout", "variance_floor", "scaling")


@dataclass(frozen=True)
class Judgement:
    """How a candidate does.

    Attributes:
        agreement: The Jaccard index of the two sets of flagged rows, in [0, 1].
        above: The share of held-out rows above the 95 % quantile of the fitted rows' scores.
        fitted_loss: The mean loss of fitted rows, in nats.
        held_out_loss: The mean loss of held-out rows, in nats.
    """

    agreement: float
    above: float
    fitted_loss: float
    held_out_loss: float


def jobs(datasets: list[str], seeds: list[int]) -> list[Job]:
    """Lists the candidates for every seed."""
    return [
        Job(name, DEFAULT_H[name], "robust", seed, "table2", candidate)
        for seed in seeds
        for name in datasets
        for candidate in CANDIDATES[name]
    ]


def measure(job: Job, observer: Observer) -> dict[str, Any]:
    """Fits a candidate twice and judges it; a fit that fails is a result too.

    Raises:
        DatasetFileError: The dataset can't be had.
    """
    dataset = DATASETS[job.dataset]()
    split = protocol_a(dataset.y, job.seed)
    rows = np.random.default_rng(job.seed).permutation(split.normal)
    count = int(HELD_OUT * len(rows))
    held_out, fitted = (torch.from_numpy(dataset.x[part]) for part in (rows[:count], rows[count:]))
    methods = []
    for seed in (job.seed, job.seed + OTHER_START):
        method = build(fitted, job.settings, seed)
        try:
            fit(method, fitted, job.settings, seed, observer=observer)
        except FitError as error:
            return {"failed": str(error)}
        methods.append(method)
    return asdict(judge(methods, dataset, split, fitted, held_out))


def judge(methods: list[RaDOGAGA], dataset: Dataset, split: Split, fitted: Tensor, held_out: Tensor) -> Judgement:
    """Judges two fits of a candidate by the rows (N, M) they were fitted on, those held out, and the training half."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, second = (flagged_rows(method, dataset, split) for method in methods)
        fitted_loss, held_out_loss = (mean(frozen_loss(m, x) for m in methods) for x in (fitted, held_out))
        above = mean(share_above(method, fitted, held_out) for method in methods)
    return Judgement(float((first & second).sum() / (first | second).sum()), above, fitted_loss, held_out_loss)


def flagged_rows(method: RaDOGAGA, dataset: Dataset, split: Split) -> NDArray[np.bool_]:
    """Returns which rows of the training half the threshold of a shipped model would flag, of shape (N,)."""
    scores = method.score(torch.from_numpy(dataset.x[split.train])).numpy()
    flagged: NDArray[np.bool_] = scores >= contamination_threshold(scores, dataset.contamination)
    return flagged


def share_above(method: RaDOGAGA, fitted: Tensor, held_out: Tensor) -> float:
    """Returns the share of held-out rows (N, M) that score above the 95 % quantile of the fitted ones."""
    bound = np.quantile(method.score(fitted).numpy(), QUANTILE)
    return float((method.score(held_out).numpy() > bound).mean())


def frozen_loss(method: RaDOGAGA, x: Tensor) -> float:
    """Returns the mean loss of rows (N, M), its rate under the frozen mixture in place of a batch's."""
    losses = method.losses(x)
    return float((method.score(x) + losses.distortion + losses.perturbation).mean())


def render(records: list[Record]) -> str:
    """Writes the table in Markdown: a candidate per line, each figure the mean over its seeds."""
    lines = [
        "| dataset | learning rate | schedule | dropout | floor | scaling | seeds | failed"
        " | agreement | above 95 % | loss, fitted | loss, held out |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in CANDIDATES:
        for job in jobs([name], [0]):
            settings = job.settings.to_json()
            cell = [r["metrics"] for r in records if (r["dataset"], r["settings"]) == (name, settings)]
            if cell:
                lines.append(row(name, settings, cell))
    return "\n".join(lines) + "\n"


def row(name: str, settings: dict[str, Any], cell: list[Any]) -> str:
    """Writes one line of the table."""
    done = [metrics for metrics in cell if "failed" not in metrics]
    fields = [name, *(str(settings[column]) for column in COLUMNS), str(len(cell)), str(len(cell) - len(done))]
    for metric, form in (("agreement", ".3f"), ("above", ".3f"), ("fitted_loss", ".1f"), ("held_out_loss", ".1f")):
        fields.append(format(mean(metrics[metric] for metrics in done), form) if done else "")
    return f"| {' | '.join(fields)} |"
