"""The residual features by hand, and where rows are zero."""

import math

import pytest
import torch
from torch import Tensor

from training.residuals import compare


def features_of(x: Tensor, x_hat: Tensor) -> Tensor:
    return torch.stack(compare(x, x_hat)[1:], dim=-1)


def test_features_by_hand() -> None:
    x, x_hat = torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])
    distance, cosine = features_of(x, x_hat)[0].tolist()
    assert distance == pytest.approx(math.sqrt(2) / 5)
    assert cosine == pytest.approx(24 / 25)


def test_a_perfect_reconstruction() -> None:
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(features_of(x, x), torch.tensor([0.0, 1.0]).expand(5, 2))


def test_cosine_does_not_see_the_length_of_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    x, x_hat = torch.randn(5, 7, generator=generator), torch.randn(5, 7, generator=generator)
    assert torch.allclose(features_of(x, x_hat)[:, 1], features_of(10 * x, 0.1 * x_hat)[:, 1])


def plain(x: Tensor, x_hat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What `compare` returns, with the gradient that autograd finds."""
    squared_error = (x - x_hat).square().sum(dim=-1)
    norms = [row.square().sum(dim=-1).sqrt().clamp_min(1e-3) for row in (x, x_hat)]
    return squared_error, squared_error.sqrt() / norms[0], (x * x_hat).sum(dim=-1) / (norms[0] * norms[1])


@pytest.mark.parametrize("shape", [(40, 5), (3, 40, 5)])
def test_the_comparison_and_its_gradient_are_those_of_its_formulas(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(*shape, dtype=torch.float64, generator=generator)
    x_hat = torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()
    with torch.no_grad():
        x[..., :5, :] = 0.0
        x_hat[..., 3:8, :] *= 1e-5  # norms below the smallest
    upstream = torch.randn(3, *shape[:-1], dtype=torch.float64, generator=generator)
    found = []
    for function in (compare, plain):
        values = function(x, x_hat)
        total = sum((up * value).sum() for up, value in zip(upstream, values, strict=True))
        found.append([*values, *torch.autograd.grad(total, [x_hat])])
    for closed, automatic in zip(*found, strict=True):
        assert torch.allclose(closed, automatic, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("x", "x_hat"), [([0.0, 0.0], [0.0, 0.0]), ([0.0, 0.0], [1.0, 1.0]), ([1.0, 1.0], [0.0, 0.0])])
def test_rows_of_zeros_have_finite_features_and_gradients(x: list[float], x_hat: list[float]) -> None:
    decoded = torch.tensor([x_hat], requires_grad=True)
    features = features_of(torch.tensor([x]), decoded)
    (gradient,) = torch.autograd.grad(features.sum(), [decoded])
    assert features.isfinite().all()
    assert gradient.isfinite().all()
