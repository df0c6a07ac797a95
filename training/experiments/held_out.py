"""Which settings suit a dataset, judged without labels: by normal training rows that were held out of the fit.

Neither the test half nor any anomaly is looked at. What counts, in this order:

1. calibration: the share of held-out rows whose score is above the 95 % quantile of the fitted rows' scores should
   be a twentieth. More means that the density has learned the fitted rows by heart and calls new normal ones strange.
2. where that does not tell the candidates apart, the loss of Eq. (4) on the held-out rows.
"""

from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.datasets import DATASETS
from training.datasets.base import protocol_a
from training.experiments.records import Record
from training.fitting import FitError, Observer, build, fit
from training.jobs import Job
from training.methods.radogaga import RaDOGAGA
from training.settings import DEFAULT_H, Scaling

HELD_OUT = 0.2
"""The share of the normal training rows that is not fitted."""

QUANTILE = 0.95

FLOORS = (1e-6, 1e-5, 1e-4, 1e-3)

SCALINGS: dict[str, tuple[Scaling, ...]] = {
    "thyroid": ("feature",),
    "arrhythmia": ("feature", "table"),
    "kddcup99": ("feature",),
    "kddcup-rev": ("feature",),
}


@dataclass(frozen=True)
class Generalisation:
    """How a fit does on rows that it has not seen.

    Attributes:
        fitted_loss: The mean loss of fitted rows, in nats, with the density frozen.
        held_out_loss: The mean loss of held-out rows, in nats.
        above: The share of held-out rows above the 95 % quantile of the fitted rows' scores.
    """

    fitted_loss: float
    held_out_loss: float
    above: float


def jobs(datasets: list[str], seeds: list[int]) -> list[Job]:
    """Lists the candidates: each floor, and each scaling where the choice is open, for every seed."""
    return [
        Job(name, DEFAULT_H[name], "robust", seed, "table2", {"scaling": scaling, "variance_floor": floor})
        for seed in seeds
        for name in datasets
        for scaling in SCALINGS[name]
        for floor in FLOORS
    ]


def judge(method: RaDOGAGA, fitted: Tensor, held_out: Tensor) -> Generalisation:
    """Compares a fitted model's losses and scores on the rows (N, M) it was fitted on with those on others."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fitted_loss, held_out_loss = (_frozen_loss(method, x) for x in (fitted, held_out))
        bound = np.quantile(method.score(fitted).numpy(), QUANTILE)
        above = float((method.score(held_out).numpy() > bound).mean())
    return Generalisation(fitted_loss, held_out_loss, above)


def _frozen_loss(method: RaDOGAGA, x: Tensor) -> float:
    """Returns the mean loss, its rate under the frozen mixture in place of a batch's."""
    losses = method.losses(x)
    return float((method.score(x) + losses.distortion + losses.perturbation).mean())


def measure(job: Job, observer: Observer) -> dict[str, Any]:
    """Fits four fifths of the normal training rows, and judges by the rest; a fit that fails is a result too.

    Raises:
        DatasetFileError: The dataset can't be had.
    """
    dataset = DATASETS[job.dataset]()
    rows = np.random.default_rng(job.seed).permutation(protocol_a(dataset.y, job.seed).normal)
    count = int(HELD_OUT * len(rows))
    held_out, fitted = (torch.from_numpy(dataset.x[part]) for part in (rows[:count], rows[count:]))
    method = build(fitted, job.settings, job.seed)
    try:
        fit(method, fitted, job.settings, job.seed, observer=observer)
    except FitError as error:
        return {"failed": str(error)}
    return asdict(judge(method, fitted, held_out))


def render(records: list[Record]) -> str:
    """Writes the table in Markdown: a candidate per line, each figure the mean over its seeds."""
    lines = [
        "| dataset | scaling | variance floor | seeds | failed | loss, fitted | loss, held out | above 95 % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, scalings in SCALINGS.items():
        for scaling in scalings:
            for floor in FLOORS:
                key = (name, scaling, floor)
                cell = [
                    r
                    for r in records
                    if (r["dataset"], r["settings"]["scaling"], r["settings"]["variance_floor"]) == key
                ]
                if cell:
                    lines.append(row(name, scaling, floor, cell))
    return "\n".join(lines) + "\n"


def row(name: str, scaling: str, floor: float, cell: list[Record]) -> str:
    """Writes one line of the table."""
    done = [r["metrics"] for r in cell if "failed" not in r["metrics"]]
    fields = [name, scaling, f"{floor:g}", str(len(cell)), str(len(cell) - len(done))]
    for metric, form in (("fitted_loss", ".1f"), ("held_out_loss", ".1f"), ("above", ".3f")):
        fields.append(format(mean(m[metric] for m in done), form) if done else "")
    return f"| {' | '.join(fields)} |"
