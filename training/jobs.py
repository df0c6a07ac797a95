"""From a dataset's name to a fitted model."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.datasets import DATASETS
from training.datasets.base import Dataset, Split, protocol_a
from training.fitting import Observer, build, fit
from training.methods.radogaga import RaDOGAGA
from training.settings import H, Settings, Size, named

METHODS = {"RaDOGAGA": RaDOGAGA}
"""The methods by name."""


@dataclass(frozen=True)
class Job:
    """One fit by name.

    Attributes:
        dataset: The name of the dataset.
        h: The scale function of the distortion.
        recipe: The name of the recipe.
        seed: The seed of split, weights, batches, noise and dropout.
        size: The paper's table with the network sizes and lambdas.
        overrides: Settings that differ from the named ones.
    """

    dataset: str
    h: H
    recipe: str
    seed: int
    size: Size
    overrides: dict[str, Any]

    @property
    def settings(self) -> Settings:
        """The settings in full."""
        return named(self.dataset, self.h, self.recipe, self.size, self.overrides)


@dataclass(frozen=True)
class FittedModel:
    """A fitted model, with what its manifest tells about it.

    Attributes:
        job: What was asked for.
        method: The fitted model.
        dataset: The table it was fitted on.
        split: How the table was split.
    """

    job: Job
    method: RaDOGAGA
    dataset: Dataset
    split: Split

    @property
    def settings(self) -> Settings:
        """The settings of the fit."""
        return self.job.settings


def run(
    job: Job, *, observer: Observer | None = None, checkpoint: Path | None = None, resume: bool = False
) -> FittedModel:
    """Loads the dataset, splits it by protocol A, and fits on the normal rows of the training half.

    Raises:
        DatasetFileError: The dataset can't be had.
        FitError: The fit can't start or go on.
        FitInterrupted: A signal asked it to stop.
    """
    dataset = DATASETS[job.dataset]()
    split = protocol_a(dataset.y, job.seed)
    x = torch.from_numpy(dataset.x[split.normal])
    method = build(x, job.settings, job.seed)
    fit(method, x, job.settings, job.seed, observer=observer, checkpoint=checkpoint, resume=resume)
    return FittedModel(job, method, dataset, split)
