"""Eq. (9): known exactly for linear decoders, and told apart from their neighbours."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from training.datasets.toy import toy
from training.experiments import isometry as module
from training.experiments.base import Request
from training.experiments.isometry import EquationNine, gram, isometry, measure, render
from training.experiments.records import append_record, record_of
from training.experiments.results import lines_file
from training.experiments.runs import Run
from training.jobs import build
from training.methods.mixture_autoencoder import MixtureAutoencoder
from training.nn.mlp import MLP
from training.settings import Settings

LAMBDA2 = 24.0
"""With noise of variance 1/12 the columns should have length 1/2."""


def linear_decoder(columns: Tensor) -> MLP:
    decoder = MLP(columns.shape[::-1]).double()
    with torch.no_grad():
        decoder.last.weight.copy_(columns.T)
    return decoder


def test_columns_of_a_linear_decoder_are_its_weights() -> None:
    columns = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    products = gram(linear_decoder(columns), torch.randn(4, 3, dtype=torch.float64))
    assert products.shape == (4, 3, 3)
    assert torch.allclose(products, (columns.T @ columns).expand(4, 3, 3))


def test_a_curved_decoder_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    decoder, z, step = MLP([2, 6, 4]).double(), torch.randn(3, 2, dtype=torch.float64), 1e-5
    shifts = step * torch.eye(2, dtype=torch.float64)
    columns = torch.stack([(decoder(z + shift) - decoder(z - shift)) / (2 * step) for shift in shifts], dim=-1)
    assert torch.allclose(gram(decoder, z), columns.mT @ columns, atol=1e-8)


def test_an_isometry_has_the_identity_for_ratios() -> None:
    products = 0.25 * torch.eye(3, dtype=torch.float64).expand(6, 3, 3)
    found = isometry(products, unit=0.25)
    assert found["matrix"] == np.eye(3).tolist()
    assert [found[key] for key in ("diagonal", "diagonal_deviation", "largest_off", "mean_off")] == [1.0, 0.0, 0.0, 0.0]


def test_what_cancels_over_rows_is_seen_in_the_mean_magnitude_alone() -> None:
    products = torch.tensor([[[2.0, 1.0], [1.0, 4.0]], [[2.0, -1.0], [-1.0, 4.0]]], dtype=torch.float64)
    found = isometry(products, unit=2.0)
    assert (found["diagonal"], found["diagonal_deviation"]) == (1.5, 0.5)
    assert (found["largest_off"], found["mean_off"]) == (0.0, 0.5)
    own = isometry(products, unit=None)
    assert own["diagonal"] == 1.0
    assert own["mean_off"] == pytest.approx(1 / 3)


def model() -> tuple[MixtureAutoencoder, Tensor]:
    x = torch.from_numpy(toy(0, rows=50).x)
    sizes: dict[str, Any] = {"hidden": (), "latent": 3, "components": 3, "batch_size": 50, "epochs": 1}
    settings = Settings(h="identity", lambda1=1.0, lambda2=LAMBDA2, scaling="table", residuals=False, **sizes)
    return build("RaDOGAGA", x, settings, seed=0).double(), x.double()


def test_a_model_is_measured_where_distances_are_taken() -> None:
    method, x = model()
    with torch.no_grad():
        basis = torch.linalg.qr(torch.randn(16, 3, dtype=torch.float64)).Q
        method.decoder.last.weight.copy_(basis.T / 2)
    found = measure(method, x, own_unit=False)
    assert found["diagonal"] == pytest.approx(1.0)
    assert found["largest_off"] == pytest.approx(0.0, abs=1e-12)


def runs() -> list[Run]:
    return EquationNine().runs(Request((), None, (), 1, Path()))


def test_toy_and_thyroid_are_listed_for_every_seed() -> None:
    settings = {(run.dataset, run.method, run.h, run.recipe) for run in runs()}
    assert len(runs()) == 5 * len(settings) == 40
    assert ("thyroid", "RaDOGAGA", "log", "robust") in settings


def test_the_page_is_written_and_drawn_from_the_lines(tmp_path: Path) -> None:
    products = 0.25 * torch.eye(3, dtype=torch.float64).expand(6, 3, 3)
    first, second = runs()[:2]
    lines = [
        record_of("isometry", first, first.settings, dict(isometry(products, 0.25)), 1.0),
        record_of("isometry", second, second.settings, dict(isometry(2 * products, 0.25)), 1.0),
        record_of("isometry", runs()[5], runs()[5].settings, {"failed": "step 1"}, 1.0),
    ]
    for each in lines:
        append_record(lines_file(tmp_path, "isometry"), each)
    text = EquationNine().render(tmp_path)
    assert "| toy.csv | DAGMM | `faithful` | 2 | 0 | 1.500 (0.707) | 0.000 (0.000) |" in text
    assert "| toy.csv | RaDOGAGA(d) | `faithful` | 1 | 1 |" in text
    assert (tmp_path / "figures" / "isometry.png").stat().st_size > 1000
    assert render([]).count("\n") == 2


def test_toy_models_are_measured_in_their_own_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method, x = model()
    asked: list[str] = []

    def fitted(plan: Any, *_: object) -> list[MixtureAutoencoder]:  # noqa: ANN401
        asked.append(plan.method)
        return [method]

    monkeypatch.setattr(module, "fit_toy", fitted)
    monkeypatch.setattr(module, "DATA", {"toy.csv": lambda: toy(0, rows=50)})
    found = [EquationNine().do([run], tmp_path, Console(quiet=True))[0] for run in (runs()[0], runs()[5])]
    assert asked == ["DAGMM", "RaDOGAGA"]
    assert found[0]["diagonal"] == pytest.approx(1.0)  # by its own mean
    assert found[1] == measure(method, x, own_unit=False)
