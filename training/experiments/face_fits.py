"""The fits of section 4.3: two methods on faces, by appendix F and by a network that two cores can train."""

import hashlib
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from training.datasets.faces import faces
from training.experiments.face_measures import (
    DELTA,
    SENSITIVE,
    TOP,
    latents,
    sensitivities,
    similarity,
    unevenness,
    variances,
)
from training.fitting import FitError, FitInterrupted, Member, Progress, batches, fit, unfinished
from training.methods.beta_vae import BetaVAE
from training.methods.factorized_radogaga import FactorizedRaDOGAGA
from training.methods.image_autoencoder import ImageAutoencoder, brightness
from training.methods.stacking import unstack
from training.nn.conv import APPENDIX_F, ImageShape
from training.progress import watched
from training.settings import ImageSettings
from training.tables.errors import quote

METHODS: dict[str, type[ImageAutoencoder]] = {"RaDOGAGA": FactorizedRaDOGAGA, "beta-VAE": BetaVAE}
"""The methods by name, in the order in which they are fitted."""

SEED = 0

LARGEST = 255.0

WATCHED = 200
"""Test images that the curves are measured on."""


@dataclass(frozen=True)
class Recipe:
    """How both methods are fitted.

    Attributes:
        size: The height and width of the images.
        settings: The settings of each method, by its name.
        steps_between_looks: Optimiser steps from one point of a curve to the next.
        measured: Test images that D'_i and inner products are averaged over.
    """

    size: int
    settings: dict[str, ImageSettings]
    steps_between_looks: int
    measured: int

    @property
    def shape(self) -> ImageShape:
        """The shape of the images."""
        return ImageShape(3, self.size, self.size)


REDUCED: dict[str, Any] = {
    "kernels": (5, 5),
    "channels": 32,
    "hidden": 256,
    "latent": 64,
    "learning_rate": 1e-3,
    "schedule": "cosine",
}
"""A network of 0.36 million parameters for images of 16 x 16, at which 64 features suffice for an SSIM of 0.93."""

SQUARED: dict[str, Any] = {**REDUCED, "distance": "squared_error"}

FULL: dict[str, Any] = {
    "kernels": APPENDIX_F.kernels,
    "channels": APPENDIX_F.channels,
    "hidden": APPENDIX_F.hidden,
    "latent": APPENDIX_F.latent,
    "epochs": 100,
}
"""Appendix F to the letter; batch size and epochs, on which the paper is silent, are ours."""

RECIPES: dict[str, Recipe] = {
    "reduced": Recipe(
        size=16,
        settings={
            "RaDOGAGA": ImageSettings(**REDUCED, lambda1=8.0, lambda2=8.0, density_scale=3.0, epochs=100),
            "beta-VAE": ImageSettings(**REDUCED, beta=1.8e-4, epochs=80),
        },
        steps_between_looks=141,
        measured=SENSITIVE,
    ),
    "reduced-squared-error": Recipe(
        size=16,
        settings={
            "RaDOGAGA": ImageSettings(**SQUARED, lambda1=0.08, lambda2=0.08, epochs=80),
            "beta-VAE": ImageSettings(**SQUARED, beta=2e-2, epochs=40),
        },
        steps_between_looks=141,
        measured=SENSITIVE,
    ),
    "full": Recipe(
        size=64,
        settings={"RaDOGAGA": ImageSettings(**FULL), "beta-VAE": ImageSettings(**FULL)},
        steps_between_looks=20,
        measured=40,
    ),
}
"""How faces are fitted, by name; docs/results.md says how the reduced network's settings were chosen."""


def checkpoints_folder() -> Path:
    """Returns where fits are kept: RADOGAGA_CHECKPOINTS, or .checkpoints. Models of CelebA go nowhere else."""
    return Path(os.environ.get("RADOGAGA_CHECKPOINTS", ".checkpoints"))


@dataclass(frozen=True)
class FaceFit:
    """A fit, finished or as far as it has come.

    Attributes:
        method: The model, frozen.
        step: The optimiser steps taken.
        steps: The steps of the whole fit.
        seconds: The CPU time it took so far.
        train: The training images as rows (N, M), 0 to 255.
        test: The test images as rows.
    """

    method: ImageAutoencoder
    step: int
    steps: int
    seconds: float
    train: Tensor
    test: Tensor


def untrained(name: str, recipe: Recipe) -> ImageAutoencoder:
    """Creates a method's model with weights of the fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return METHODS[name](brightness(recipe.shape, LARGEST), recipe.shape, recipe.settings[name])


def checkpoint_of(name: str, recipe: Recipe) -> Path:
    """Returns where a fit is kept; its name has a digest of the settings, so that others start anew."""
    settings = json.dumps([recipe.size, name, recipe.settings[name].to_json()], sort_keys=True)
    digest = hashlib.sha256(settings.encode()).hexdigest()[:12]
    return checkpoints_folder() / f"faces-{name.lower()}-{digest}.pt"


def rows_of_faces(size: int) -> tuple[Tensor, Tensor]:
    """Loads training and test images as rows (N, M) of bytes.

    Raises:
        DatasetFileError: The images can't be had or can't be trusted.
    """
    loaded = faces(size)
    train, test = (torch.from_numpy(part.reshape(len(part), -1)) for part in (loaded.train, loaded.test))
    return train, test


def fit_faces(
    name: str, recipe: Recipe, curve: Path, console: Console, label: str, deadline: float = math.inf
) -> FaceFit:
    """Fits a model to faces, or goes on where a fit was left; a finished one is taken from its checkpoint.

    Arguments:
        name: The name of the method.
        recipe: How it is fitted.
        curve: The file of JSON lines that the losses are written to, and how things stand on test images.
        console: Where to show how it goes on.
        label: What to call it there.
        deadline: When to stop, by `time.monotonic`; the fit is then returned as it is, a new one after a step.

    Raises:
        DatasetFileError: The images can't be had or can't be trusted.
        FitError: The fit can't start or go on.
        FitInterrupted: A signal asked it to stop.
    """
    train, test = rows_of_faces(recipe.size)
    settings, method, checkpoint = recipe.settings[name], untrained(name, recipe), checkpoint_of(name, recipe)
    members = [Member(method, torch.arange(len(train)), SEED)]
    resume = checkpoint.exists()
    if not resume:
        curve.unlink(missing_ok=True)  # that of another fit
    recorder = Recorder(curve, untrained(name, recipe), test[:WATCHED], recipe.steps_between_looks)
    try:
        with watched(label, console) as observer:
            failures = fit(
                members,
                train,
                settings,
                observer=observer,
                look=recorder.look,
                checkpoint=checkpoint,
                resume=resume,
                deadline=deadline,
            )
        if failures:
            raise failures[0]
        step = 0
    except FitInterrupted:
        if time.monotonic() < deadline:
            raise
        step = unfinished(members, train, settings, checkpoint)
    method.requires_grad_(False)
    steps = settings.epochs * len(batches(len(train), settings.batch_size))
    return FaceFit(method, step or steps, steps, recorder.seconds, train, test)


class Recorder:
    """Writes a curve: the means of the losses since the line before, and measures on some test images.

    Lines beyond the step that a fit goes on from are dropped, for they are written again.

    Arguments:
        path: The file of JSON lines.
        scratch: A model that the weights are copied into.
        x: Raw test rows (N, M).
        every: Steps from line to line.
    """

    def __init__(self, path: Path, scratch: ImageAutoencoder, x: Tensor, every: int) -> None:
        self.path = path
        self.scratch = scratch.requires_grad_(False)
        self.x = x
        self.every = every
        self.lines = read_curve(path)
        self.sums: dict[str, float] = {}
        self.count = 0
        self.started: float | None = None
        self.before = 0.0

    @property
    def seconds(self) -> float:
        """The CPU time of the fit so far, over all calls."""
        if self.started is None:
            return float(self.lines[-1]["seconds"]) if self.lines else 0.0
        return self.before + time.process_time() - self.started

    def look(self, stacked: ImageAutoencoder, progress: Progress) -> None:
        """Takes note of a step, and writes a line if one is due."""
        if self.started is None:
            self.lines = [line for line in self.lines if line["step"] < progress.step]
            self.before = self.seconds
            self.started = time.process_time()
        self.count += 1
        for name, value in progress.terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        if progress.step % self.every == 0 or progress.step == progress.steps:
            self.write(stacked, progress.step)

    def write(self, stacked: ImageAutoencoder, step: int) -> None:
        """Writes all lines anew, with the one of this step behind them."""
        unstack(stacked, [self.scratch])
        z = latents(self.scratch, self.x)
        alike, error = similarity(self.scratch, self.x, z)
        spread = variances(z)
        top = spread.argsort(descending=True)[:TOP]
        deltas = 10 * DELTA * spread.sqrt().clamp_min(1e-3)  # in float32
        line = {
            "step": step,
            "seconds": round(self.seconds, 1),
            **{name: round(total / self.count, 4) for name, total in self.sums.items()},
            "ssim": round(alike, 5),
            "squared_error": round(error, 7),
            "unevenness": round(unevenness(sensitivities(self.scratch, z[:50], deltas, top.tolist())), 4),
        }
        self.sums, self.count = {}, 0
        self.lines.append(line)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("".join(f"{json.dumps(line)}\n" for line in self.lines))


def read_curve(path: Path) -> list[dict[str, Any]]:
    """Reads the lines of a curve; there are none before its first.

    Raises:
        FitError: A line is no JSON object with a step and seconds.
    """
    lines: list[dict[str, Any]] = []
    for number, text in enumerate(path.read_text().splitlines() if path.exists() else [], start=1):
        try:
            line = json.loads(text)
            lines.append({**line, "step": int(line["step"]), "seconds": float(line["seconds"])})
        except (ValueError, TypeError, KeyError) as error:
            expected = 'a JSON object with "step" and "seconds"'
            raise FitError(f"{path}, line {number}, is {quote(text)}, expected {expected}; delete the file") from error
    return lines
