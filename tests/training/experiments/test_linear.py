"""Appendix D: the loss is the method's, its minimum the closed form, and below the bound there is none."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from training.draws import Draws
from training.experiments import linear as module
from training.experiments.base import Request
from training.experiments.linear import STRENGTHS, AppendixD, Linear, closed_form, linear, normal_rows, train
from training.fitting import Run
from training.methods.radogaga import DELTA
from training.settings import H

LAMBDA1, LAMBDA2 = 1.0, 1.0


def loss(h: H, a: float, b: float, variance: float) -> float:
    """Eq. (65), with the mean of h over the very rows."""
    d = (a * b - 1) ** 2 * normal_rows(variance).double().square()
    scaled = d if h == "identity" else torch.log(d + DELTA)
    entropy = math.log(a) + 0.5 * math.log(2 * math.pi * math.e * variance)
    return entropy + LAMBDA1 * float(scaled.mean()) + LAMBDA2 * b**2


@pytest.mark.parametrize("h", ["identity", "log"])
@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (1.2, 0.7), (0.6, 0.9)])
def test_the_loss_of_the_method_is_equation_65(h: H, a: float, b: float) -> None:
    variance = 3.0
    model = Linear(linear(h)).double()
    with torch.no_grad():
        model.encoder.last.weight.fill_(a)
        model.decoder.last.weight.fill_(b)
        x = normal_rows(variance).double().repeat(20, 1)  # the more rows, the closer the noise to its variance
        parts = {name: float(term.mean()) for name, term in model.losses(x, Draws([0])).items()}
    assert parts["perturbation"] == pytest.approx(LAMBDA2 * b**2, rel=0.03)  # the noise's variance is 1
    assert sum(parts.values()) == pytest.approx(loss(h, a, b, variance), abs=0.03 * LAMBDA2 * b**2 + 1e-4)


@pytest.mark.parametrize("strength", [2.1, 3.0, 10.0, 1e4])
def test_the_closed_form_is_a_minimum(strength: float) -> None:
    a, b = closed_form("identity", LAMBDA1, LAMBDA2, strength)
    least = loss("identity", a, b, strength)
    for da, db in [(1.01, 1.0), (0.99, 1.0), (1.0, 1.01), (1.0, 0.99), (1.01, 0.99), (0.99, 1.01)]:
        assert loss("identity", a * da, b * db, strength) > least


def test_the_closed_form_has_the_papers_limits() -> None:
    a, b = closed_form("identity", 5.0, 2.0, 100.0)
    assert b == 0.5
    assert a * b == pytest.approx(1 - 1 / (2 * 5.0 * 100.0), rel=1e-5)
    assert closed_form("log", 5.0, 2.0, 100.0) == (2.0, 0.5)
    assert closed_form("log", 5.0, 24.0, 1.0, noise=1 / 12) == (2.0, 0.5)


def test_below_the_bound_there_is_no_minimum() -> None:
    a, b = closed_form("identity", LAMBDA1, LAMBDA2, 1.99)
    assert math.isnan(a)
    falling = [loss("identity", product / b, b, 1.99) for product in (1.0, 0.7, 0.5, 0.3, 0.1, 0.01)]
    assert falling == sorted(falling, reverse=True)
    a, b = closed_form("identity", LAMBDA1, LAMBDA2, 2.0)
    assert a * b == 0.5


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.LINEAR, "epochs", 400)
    monkeypatch.setitem(module.LINEAR, "learning_rate", 3e-2)


@pytest.mark.usefixtures("short")
def test_training_finds_the_closed_form_and_collapses_below_the_bound() -> None:
    below, above, strong = train(linear("identity"), [1.0, 3.0, 10.0], Console(quiet=True))
    assert abs(below.a * below.b) < 0.05
    for model, strength in ((above, 3.0), (strong, 10.0)):
        a, b = closed_form("identity", LAMBDA1, LAMBDA2, strength)
        assert model.a == pytest.approx(a, rel=0.03)
        assert model.b == pytest.approx(b, rel=0.03)
    assert above.a * above.b < 0.85


@pytest.mark.usefixtures("short")
def test_the_logarithm_makes_the_decoder_the_encoders_inverse_on_either_side_of_the_bound() -> None:
    weak, strong = train(replace(linear("log"), epochs=800), [0.1, 3.0], Console(quiet=True))
    assert weak.a * weak.b == pytest.approx(1.0, abs=0.01)
    assert weak.b == pytest.approx(1 / math.sqrt(2), rel=0.02)
    assert strong.a * strong.b == pytest.approx(1.0, abs=0.001)


def request(docs: Path) -> Request:
    return Request((), None, (), 1, docs)


def test_it_runs_once_and_draws_from_its_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.LINEAR, "epochs", 3)
    experiment, console = AppendixD(), Console(quiet=True)
    assert experiment.state(request(tmp_path)) == "0/2"
    experiment.reproduce(request(tmp_path), console)
    monkeypatch.setattr(Run, "advance", None)  # whoever trains again fails
    experiment.reproduce(request(tmp_path), console)
    assert experiment.state(request(tmp_path)) == "2/2"
    text = experiment.render(tmp_path)
    assert text.count("\n| ") == 2 * len(STRENGTHS)
    assert "| d | 0.5 |" in text
    assert (tmp_path / "figures" / "appendix_d.png").stat().st_size > 1000
    monkeypatch.setitem(module.LINEAR, "epochs", 4)
    assert experiment.state(request(tmp_path)) == "0/2"


def test_rows_have_the_variance_they_should() -> None:
    assert normal_rows(7.0).square().mean().item() == pytest.approx(7.0)
    assert replace(linear("log"), h="identity") == linear("identity")
