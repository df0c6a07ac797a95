"""The residual features by hand, and where rows are zero."""

import math

import pytest
import torch
from torch import Tensor

from training.distances import squared_error
from training.residuals import residual_features


def features_of(x: Tensor, x_hat: Tensor) -> Tensor:
    return residual_features(x, x_hat, squared_error(x, x_hat))


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


@pytest.mark.parametrize(("x", "x_hat"), [([0.0, 0.0], [0.0, 0.0]), ([0.0, 0.0], [1.0, 1.0]), ([1.0, 1.0], [0.0, 0.0])])
def test_rows_of_zeros_have_finite_features_and_gradients(x: list[float], x_hat: list[float]) -> None:
    given, decoded = torch.tensor([x], requires_grad=True), torch.tensor([x_hat], requires_grad=True)
    features = features_of(given, decoded)
    features.sum().backward()  # type: ignore[no-untyped-call]
    assert given.grad is not None
    assert decoded.grad is not None
    for values in (features, given.grad, decoded.grad):
        assert values.isfinite().all()
