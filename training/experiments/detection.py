"""The paper's tables of anomaly detection on public data: Table 1, Table 4, and both methods by protocol B."""

from collections.abc import Sequence
from pathlib import Path

import torch

from training.experiments.base import Request, Sweep
from training.experiments.records import Metrics
from training.experiments.sweep import Runner
from training.fitting import FitError, Observer
from training.jobs import FittedModel, Job, Protocol, run_together
from training.methods.base import by_parts
from training.metrics import evaluate
from training.settings import H, MethodName, Size
from training.thresholds import percentile_threshold

VARIANTS: tuple[tuple[MethodName, H], ...] = (("DAGMM", "identity"), ("RaDOGAGA", "identity"), ("RaDOGAGA", "log"))
"""The methods of the tables: DAGMM, RaDOGAGA(d) and RaDOGAGA(log d)."""


class Detection(Sweep):
    """A table of the paper, or one that its readers will look for.

    Arguments:
        name: The experiment's name.
        summary: What it regenerates.
        size: The paper's table with the network sizes and lambdas.
        protocol: How the data is split.
        recipes: The recipes that have rows in it.
    """

    def __init__(self, name: str, summary: str, size: Size, protocol: Protocol, recipes: tuple[str, ...]) -> None:
        self.name = name
        self.summary = summary
        self.size = size
        self.protocol = protocol
        self.recipes = recipes

    def jobs(self, request: Request) -> list[Job]:
        """Lists the runs; of ensembles there are RaDOGAGA's only."""
        return [
            Job(
                dataset=dataset,
                method=method,
                h=h,
                recipe=recipe,
                seed=seed,
                size=self.size,
                protocol=self.protocol,
            )
            for seed in request.seeds
            for dataset in request.datasets
            for recipe in request.recipes or self.recipes
            if recipe in self.recipes
            for method, h in VARIANTS
            if (method, recipe) != ("DAGMM", "ensemble")
        ]

    @property
    def runner(self) -> Runner:
        return run_group

    def render(self, docs: Path) -> str:
        raise NotImplementedError


def run_group(group: Sequence[Job], observer: Observer, checkpoint: Path) -> list[Metrics]:
    """Fits models together and measures each on its test rows; a fit that fails is a result too.

    Raises:
        DatasetFileError: The dataset can't be had.
        FitInterrupted: A signal asked to stop.
    """
    models = run_together(group, observer=observer, checkpoint=checkpoint, resume=checkpoint.exists())
    return [{"failed": str(model)} if isinstance(model, FitError) else measure(model) for model in models]


def measure(model: FittedModel) -> Metrics:
    """Measures a model as the paper does: on the test rows, flagging a percentile of their scores.

    By protocol A that is the paper's percentile for the dataset; by protocol B as many rows as there are anomalies.
    Scores are float32, as the exported graphs return them.
    """
    test = model.split.test
    y = model.dataset.y[test]
    with torch.no_grad():
        scores = by_parts(model.method.score, torch.from_numpy(model.dataset.x[test])).float().numpy()
    contamination = model.dataset.contamination if model.job.protocol == "A" else float(y.mean())
    return evaluate(y, scores, percentile_threshold(scores, contamination))
