"""From a dataset's name to fitted models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor

from training.datasets import DATASETS, IMAGES
from training.datasets.base import Dataset, Labels, Split, protocol_a, protocol_b
from training.fitting import FitError, Member, Observer, fit
from training.methods.base import Method
from training.methods.dagmm import DAGMM
from training.methods.ensemble import Ensemble
from training.methods.factorized_radogaga import FactorizedRaDOGAGA
from training.methods.image_autoencoder import brightness
from training.methods.mixture_autoencoder import MixtureAutoencoder
from training.methods.radogaga import RaDOGAGA
from training.nn.conv import ImageShape
from training.preprocessing import Scaler
from training.settings import IMAGE_SETTINGS, LARGEST_VALUES, H, ImageSettings, MethodName, Settings, Size, named

METHODS: dict[MethodName, type[MixtureAutoencoder]] = {"RaDOGAGA": RaDOGAGA, "DAGMM": DAGMM}
"""The methods by name."""

SCALERS = {"feature": Scaler.per_feature, "table": Scaler.whole_table, "standard": Scaler.standardised}

Protocol = Literal["A", "B"]

PROTOCOLS: dict[Protocol, Callable[[Labels, int], Split]] = {"A": protocol_a, "B": protocol_b}
"""How a table is split, by name."""

SEEDS_BETWEEN_MEMBERS = 1_000_000_007
"""The members of an ensemble have seeds this far apart, beyond those of any other fit."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One fit by name.

    Attributes:
        dataset: The name of the dataset.
        method: The name of the method.
        h: The scale function of the distortion; DAGMM has h(d) = d.
        recipe: The name of the recipe.
        seed: The seed of split, weights, batches, noise and dropout.
        size: The paper's table with the network sizes and lambdas.
        overrides: Settings that differ from the named ones.
        protocol: How the table is split.
    """

    dataset: str
    method: MethodName = "RaDOGAGA"
    h: H
    recipe: str
    seed: int
    size: Size = "table2"
    overrides: dict[str, Any] = field(default_factory=dict)
    protocol: Protocol = "A"

    @property
    def settings(self) -> Settings:
        """The settings in full."""
        return named(self.dataset, self.method, self.h, self.recipe, self.size, self.overrides)


@dataclass(frozen=True, kw_only=True)
class ImageJob:
    """One fit of images by name: RaDOGAGA with a factorized density, by protocol A.

    Attributes:
        dataset: The name of the dataset.
        seed: The seed of split, weights, batches and noise.
        overrides: Settings that differ from the named ones.
    """

    dataset: str
    seed: int
    overrides: dict[str, Any] = field(default_factory=dict)
    method: ClassVar[MethodName] = "RaDOGAGA"
    recipe: ClassVar[str] = "images"
    protocol: ClassVar[Protocol] = "A"

    @property
    def settings(self) -> ImageSettings:
        """The settings in full."""
        return replace(IMAGE_SETTINGS[self.dataset], **self.overrides)


J = TypeVar("J", Job, ImageJob)
M = TypeVar("M", bound=Method)


@dataclass(frozen=True)
class Fitted(Generic[J, M]):
    """A fitted model, with what its manifest tells about it.

    Attributes:
        job: What was asked for.
        method: The fitted model.
        dataset: The rows it was fitted on.
        split: How they were split.
    """

    job: J
    method: M
    dataset: Dataset
    split: Split


class FittedModel(Fitted[Job, Method]):
    """One of a table."""


class FittedImages(Fitted[ImageJob, FactorizedRaDOGAGA]):
    """One of images, in float64."""


def build(method: MethodName, x: Tensor, settings: Settings, seed: int) -> MixtureAutoencoder:
    """Creates an untrained model for the training rows `x` (N, M), its weights drawn from `seed`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return METHODS[method](SCALERS[settings.scaling](x), settings)


def run_images(
    job: ImageJob,
    dataset: Dataset | None = None,
    *,
    observer: Observer | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
) -> FittedImages:
    """Loads images unless they are given, splits them, and fits on the normal ones of the training half.

    The fitted model is turned into float64, as those of tables are.

    Raises:
        DatasetFileError: The images can't be had.
        FitError: The fit can't start or go on.
        FitInterrupted: A signal asked it to stop.
    """
    settings, dataset = job.settings, dataset or IMAGES[job.dataset]()
    split = PROTOCOLS[job.protocol](dataset.y, job.seed)
    method = build_images(dataset, settings, job.seed)
    member = Member(method, torch.from_numpy(split.normal), job.seed)
    failures = fit(
        [member], torch.from_numpy(dataset.x), settings, observer=observer, checkpoint=checkpoint, resume=resume
    )
    for error in failures.values():
        raise error
    return FittedImages(job, method.double().requires_grad_(False), dataset, split)


def build_images(dataset: Dataset, settings: ImageSettings, seed: int) -> FactorizedRaDOGAGA:
    """Creates an untrained model for images, its weights drawn from `seed`.

    Raises:
        FitError: The settings don't suit the images, or the rows are none.
    """
    if dataset.image is None:
        raise FitError(f"{dataset.name} has rows that are no images")
    shape = ImageShape(*dataset.image)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return FactorizedRaDOGAGA(brightness(shape, LARGEST_VALUES[dataset.name]), shape, settings)
        except ValueError as error:
            raise FitError(f"{dataset.name}: {error}") from error


def run(
    job: Job, *, observer: Observer | None = None, checkpoint: Path | None = None, resume: bool = False
) -> FittedModel:
    """Loads the dataset, splits it, and fits on the normal rows of the training half.

    Raises:
        DatasetFileError: The dataset can't be had.
        FitError: The fit can't start or go on.
        FitInterrupted: A signal asked it to stop.
    """
    (result,) = run_together([job], observer=observer, checkpoint=checkpoint, resume=resume)
    if isinstance(result, FitError):
        raise result
    return result


def run_together(
    jobs: Sequence[Job], *, observer: Observer | None = None, checkpoint: Path | None = None, resume: bool = False
) -> list[FittedModel | FitError]:
    """Does what `run` does for jobs that differ by their seeds alone, training all of them as one stack.

    Returns:
        A model for each job, or what went wrong with it.

    Raises:
        DatasetFileError: The dataset can't be had.
        FitError: No fit can start or go on.
        FitInterrupted: A signal asked them to stop.
    """
    settings, dataset = jobs[0].settings, DATASETS[jobs[0].dataset]()
    x = torch.from_numpy(dataset.x)
    splits = [PROTOCOLS[job.protocol](dataset.y, job.seed) for job in jobs]
    members = []
    for job, split in zip(jobs, splits, strict=True):
        rows = torch.from_numpy(split.normal)
        for number in range(settings.members):
            seed = job.seed + number * SEEDS_BETWEEN_MEMBERS
            members.append(Member(build(job.method, x[rows], settings, seed), rows, seed))
    failures = fit(members, x, settings, observer=observer, checkpoint=checkpoint, resume=resume)
    results: list[FittedModel | FitError] = []
    for index, (job, split) in enumerate(zip(jobs, splits, strict=True)):
        own = range(index * settings.members, (index + 1) * settings.members)
        failed = [failures[member] for member in own if member in failures]
        if failed:
            results.append(failed[0])
        else:
            method = assemble([members[member].method for member in own], x[torch.from_numpy(split.normal)])
            results.append(FittedModel(job, method, dataset, split))
    return results


def assemble(members: Sequence[MixtureAutoencoder], x: Tensor) -> Method:
    """Returns a fitted model as it is, and several as an ensemble that is calibrated on the training rows (N, M)."""
    if len(members) == 1:
        return members[0]
    ensemble = Ensemble(members)
    ensemble.fit_density(x)
    return ensemble
