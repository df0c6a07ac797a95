"""The fits of section 4.1: three methods on toy data, by the paper's letter and by recipes that get there."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from training.datasets.toy import ToyData, toy, toy_csv
from training.experiments.starts import restart_memberships, widen_to_isometry
from training.fitting import FitError, Member, fit
from training.jobs import build
from training.methods.mixture_autoencoder import MixtureAutoencoder
from training.progress import watched
from training.settings import H, MethodName, Settings

SEEDS = range(5)

DATA_SEED = 0

DATA: dict[str, Callable[[], ToyData]] = {"toy.csv": toy_csv, "generated": lambda: toy(DATA_SEED)}
"""The tables by name: the authors' own, and one of our generator's."""

NETWORK: dict[str, Any] = {
    "hidden": (64, 32, 16),
    "latent": 3,
    "components": 3,
    "scaling": "table",
    "residuals": False,
}
"""What the paper says of both methods' networks (section 4.1.1); the estimation network is `Settings`' default."""


@dataclass(frozen=True)
class Variant:
    """A row of the table.

    Attributes:
        name: What the paper calls it.
        method: The name of the method.
        h: The scale function of the distortion.
        lambdas: lambda1 and lambda2 (section 4.1.1).
        published: The paper's residual, if it gives one (section 4.1.2).
    """

    name: str
    method: MethodName
    h: H
    lambdas: tuple[float, float]
    published: float | None


VARIANTS = (
    Variant("DAGMM", "DAGMM", "identity", (1e-4, 1e-9), None),
    Variant("RaDOGAGA(d)", "RaDOGAGA", "identity", (1e6, 1e6), 0.0100),
    Variant("RaDOGAGA(log d)", "RaDOGAGA", "log", (1e3, 1e4), 0.0027),
)

FAITHFUL: dict[str, Any] = {"batch_size": 128, "epochs": 200}
"""The paper to the letter; batch size and epochs, on which it is silent, are ours."""

QUICKER: dict[str, Any] = {"batch_size": 512, "learning_rate": 1e-3, "schedule": "cosine", "reshuffle": True}

ONE_FIT: dict[str, Any] = {**QUICKER, "epochs": 200}

FIT_AGAIN: dict[str, Any] = {**QUICKER, "epochs": 100}


@dataclass(frozen=True)
class Plan:
    """How a toy model is fitted.

    Attributes:
        method: The name of the method.
        first: The settings of its fit.
        widened: Whether the fit starts from the latent scale of Eq. (9).
        second: The settings of a second fit, before which the estimation network starts anew from k-means.
        starts: How many fits there are for a seed, of which the one with the lowest loss is kept.
    """

    method: MethodName
    first: Settings
    widened: bool
    second: Settings | None
    starts: int = 1

    def to_json(self) -> dict[str, Any]:
        """Returns the plan as JSON values."""
        return {
            "first": self.first.to_json(),
            "widened": self.widened,
            "second": self.second.to_json() if self.second else None,
            **({"starts": self.starts} if self.starts > 1 else {}),
        }


RECIPES: dict[str, tuple[dict[str, Any], bool, dict[str, Any] | None, int]] = {
    "faithful": (FAITHFUL, False, None, 1),
    "one fit": (ONE_FIT, True, None, 1),
    "robust": (ONE_FIT, True, FIT_AGAIN, 3),
}
"""The settings of the first fit, whether it is widened, the settings of the second, and the starts, by the name."""

SEEDS_BETWEEN_STARTS = 1000

RECIPES_OF: dict[str, tuple[str, ...]] = {"toy.csv": ("faithful", "one fit", "robust"), "generated": ("robust",)}
"""The recipes that have rows in the table, by the table of data."""


def plan_of(variant: Variant, recipe: str) -> Plan:
    """Returns how a variant is fitted under a recipe; DAGMM's latent has no scale to be widened to."""
    lambda1, lambda2 = variant.lambdas
    first, widened, second, starts = RECIPES[recipe]

    def settings(own: dict[str, Any]) -> Settings:
        return Settings(h=variant.h, lambda1=lambda1, lambda2=lambda2, **{**NETWORK, **own})

    return Plan(
        method=variant.method,
        first=settings(first),
        widened=widened and variant.method == "RaDOGAGA",
        second=settings(second) if second else None,
        starts=starts,
    )


def fit_toy(
    plan: Plan, data: ToyData, seeds: Sequence[int], folder: Path, console: Console
) -> list[MixtureAutoencoder | FitError]:
    """Fits models to all rows of toy data, one for each seed, together; of several starts the likeliest is kept.

    Finished fits stay in the folder as checkpoints, from which the same call returns without training, as does one for
    a plan that differs by its second fit alone from where the first one ended.

    Raises:
        FitInterrupted: A signal asked to stop.
    """
    x = torch.from_numpy(data.x)
    rows = torch.arange(len(x))
    starts = [seed + number * SEEDS_BETWEEN_STARTS for seed in seeds for number in range(plan.starts)]
    members = [Member(build(plan.method, x, plan.first, start), rows, start) for start in starts]
    first, second = (
        folder / f"toy-{digest([data.name, plan.method, starts, plan.widened, stages])}.pt"
        for stages in ([plan.first.to_json()], [plan.first.to_json(), plan.second and plan.second.to_json()])
    )
    label = f"{data.name} {plan.method} {plan.first.h}"
    if plan.widened:
        for member in members:
            widen_to_isometry(member.method, x)
    with watched(label, console) as observer:
        failures = {}
        if not second.exists():
            failures = fit(members, x, plan.first, observer=observer, checkpoint=first, resume=first.exists())
        if plan.second:
            for index, member in enumerate(members):
                member.method.float()
                if not second.exists() and index not in failures:
                    restart_memberships(member.method, x, member.seed)
            failures = fit(members, x, plan.second, observer=observer, checkpoint=second, resume=second.exists())
    fits = [failures.get(index, member.method) for index, member in enumerate(members)]
    return [best(fits[first : first + plan.starts], x) for first in range(0, len(fits), plan.starts)]


def best(starts: Sequence[MixtureAutoencoder | FitError], x: Tensor) -> MixtureAutoencoder | FitError:
    """Returns the fit with the lowest loss over all rows x (N, M), or what went wrong if none came to an end."""
    fitted = [start for start in starts if not isinstance(start, FitError)]
    return min(fitted, key=lambda method: sum(method.frozen_terms(x).values())) if fitted else starts[0]


def digest(value: object) -> str:
    """Returns a short name for a JSON value."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]
