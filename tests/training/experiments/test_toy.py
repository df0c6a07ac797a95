"""Section 4.1: the measure on densities whose answer is known, and a short fit from end to end."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from training import fitting
from training.datasets.toy import toy
from training.experiments import toy as module
from training.experiments import toy_fits
from training.experiments.base import Request
from training.experiments.runs import Run
from training.experiments.toy import Toy, proportionality, render, unit_range
from training.experiments.toy_fits import VARIANTS, plan_of
from training.fitting import FitError
from training.jobs import build
from training.methods.dagmm import DAGMM
from training.methods.mixture_autoencoder import MixtureAutoencoder

DENSITY = np.exp(np.random.default_rng(0).normal(-5, 2, size=1000))


def test_a_proportional_density_leaves_no_residual_and_has_slope_1() -> None:
    found = proportionality(DENSITY, -np.log(DENSITY) - 7)
    assert found["residual"] == pytest.approx(0, abs=1e-12)
    assert found["mean_absolute"] == pytest.approx(0, abs=1e-6)
    assert found["slope"] == pytest.approx(1)
    assert found["r2"] == pytest.approx(1)


def test_the_residual_is_that_of_scipys_regression_whatever_the_units() -> None:
    scores = -0.5 * np.log(DENSITY) + np.random.default_rng(1).normal(size=1000)
    pz = unit_range(np.exp(-scores))
    design = np.stack([DENSITY, np.ones(1000)], axis=1)
    expected = np.linalg.lstsq(design, pz, rcond=None)[1][0] / 1000
    found = proportionality(DENSITY, scores)
    assert found["residual"] == pytest.approx(expected)
    assert found["slope"] == pytest.approx(0.5, abs=0.05)
    moved = proportionality(1e4 * DENSITY, scores + 800)  # exp(-800) is 0 in float64
    assert moved["residual"] == pytest.approx(expected)


def test_a_collapsed_density_has_a_small_residual_so_the_slope_stands_beside_it() -> None:
    scores = np.zeros(1000)
    scores[0] = -20.0
    found = proportionality(DENSITY, scores)
    assert found["residual"] < 0.0027
    assert abs(found["slope"]) < 0.1


def test_plans_have_the_papers_lambdas_and_dagmm_is_not_widened() -> None:
    plans = {variant.name: plan_of(variant, "robust") for variant in VARIANTS}
    assert [(plan.first.lambda1, plan.first.lambda2) for plan in plans.values()] == [
        (1e-4, 1e-9),
        (1e6, 1e6),
        (1e3, 1e4),
    ]
    assert [plan.widened for plan in plans.values()] == [False, True, True]
    assert plan_of(VARIANTS[1], "faithful").first.learning_rate == 1e-4


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Makes every plan short, and leaves one small table."""
    short = {"epochs": 3, "batch_size": 100}
    recipes = {
        name: ({**first, **short}, widened, second and short, starts)
        for name, (first, widened, second, starts) in toy_fits.RECIPES.items()
    }
    monkeypatch.setattr(toy_fits, "RECIPES", recipes)
    monkeypatch.setattr(module, "SEEDS", range(2))
    monkeypatch.setattr(module, "DATA", {"generated": lambda: toy(0, rows=300)})
    return recipes


def request(docs: Path, recipes: Sequence[str] | None = None) -> Request:
    return Request((), recipes, (), 1, docs)


@pytest.mark.usefixtures("small")
def test_it_runs_once_and_draws_from_what_it_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, console = Toy(), Console(quiet=True)
    assert experiment.state(request(tmp_path)) == "0/6"
    assert experiment.state(request(tmp_path, ["faithful"])) == "0/0"
    experiment.reproduce(request(tmp_path), console)
    assert experiment.state(request(tmp_path)) == "6/6"
    monkeypatch.setattr(toy_fits, "fit", None)  # whoever trains again fails
    experiment.reproduce(request(tmp_path), console)
    text = experiment.render(tmp_path)
    assert text.count("| `robust` | 2 | 0 |") == 3
    names = ["generated-densities", "generated-latents"]
    figures = sorted((tmp_path / "figures").iterdir())
    assert [figure.stem for figure in figures] == names
    assert all(f"figures/{name}.png" in text for name in names)
    first = [figure.read_bytes() for figure in figures]
    assert experiment.render(tmp_path) == text
    assert [figure.read_bytes() for figure in figures] == first


def test_a_finished_fit_is_taken_up_again_without_training(
    small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, console = toy(0, rows=300), Console(quiet=True)
    plan = plan_of(VARIANTS[2], "robust")
    assert plan.first.epochs == small["robust"][0]["epochs"]
    first = toy_fits.fit_toy(plan, data, [0, 1], tmp_path, console)
    monkeypatch.setattr(fitting.Run, "advance", None)  # whoever trains again fails
    again = toy_fits.fit_toy(plan, data, [0, 1], tmp_path, console)
    for one, other in zip(first, again, strict=True):
        assert isinstance(one, MixtureAutoencoder)
        assert isinstance(other, MixtureAutoencoder)
        assert module.measure(one, data)["residual"] == pytest.approx(module.measure(other, data)["residual"])


@pytest.mark.usefixtures("small")
def test_of_several_starts_the_one_with_the_lowest_loss_is_kept(tmp_path: Path) -> None:
    data, plan = toy(0, rows=300), plan_of(VARIANTS[1], "robust")
    x = torch.from_numpy(data.x)

    def loss(seed: int, starts: int) -> float:
        (fitted,) = toy_fits.fit_toy(replace(plan, starts=starts), data, [seed], tmp_path, Console(quiet=True))
        assert isinstance(fitted, MixtureAutoencoder)
        return sum(fitted.frozen_terms(x).values())

    alone = [loss(start, 1) for start in (7, 1007, 2007)]
    assert len({round(value, 3) for value in alone}) == 3
    assert loss(7, 3) == pytest.approx(min(alone), rel=1e-3)


def test_a_start_that_fails_is_passed_over() -> None:
    x = torch.rand(50, 16)
    fitted, error = build("RaDOGAGA", x, plan_of(VARIANTS[1], "robust").first, 0).double(), FitError("step 1")
    fitted.fit_density(x)
    assert toy_fits.best([error, fitted], x.double()) is fitted
    assert toy_fits.best([error, error], x) is error


@pytest.mark.usefixtures("small")
def test_a_fit_that_fails_is_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = replace(toy(0, rows=300), x=np.full((300, 16), np.nan, dtype=np.float32))
    monkeypatch.setattr(module, "DATA", {"generated": lambda: broken})
    (found, _) = Toy().do(
        [run for run in Toy().runs(request(tmp_path)) if run.method == "DAGMM"], tmp_path, Console(quiet=True)
    )
    assert "step 1 of" in found["failed"]
    assert not (tmp_path / "results" / "toy").exists()


def metrics(residual: float) -> dict[str, Any]:
    return {"residual": residual, "mean_absolute": 0.1, "slope": 0.9, "r2": 0.8, "weights": [0.2, 0.3, 0.5]}


def test_a_line_has_mean_deviation_worst_seed_and_failures() -> None:
    run = Run("RaDOGAGA", "log", "robust", "toy.csv", 0, {})
    line = render([(run, [metrics(0.001), metrics(0.003), {"failed": "step 1"}])]).splitlines()[2]
    assert line == (
        "| toy.csv | RaDOGAGA(log d) | `robust` | 3 | 1 | 0.00200 (0.00141) | 0.0027 | 0.00300"
        " | 0.1000 (0.0000) | 0.900 (0.000) | 0.800 (0.000) | 0.200 |"
    )


def test_dagmm_has_no_published_residual() -> None:
    run = Run("DAGMM", "identity", "faithful", "toy.csv", 0, {})
    assert "| 0.00200 |  | 0.00200 |" in render([(run, [metrics(0.002)])])
    assert issubclass(DAGMM, MixtureAutoencoder)
