"""The mixture against scipy's and numpy's formulas."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from torch import Tensor

from training.densities.mixture import (
    GaussianMixture,
    batch_rate,
    mixture_log_prob,
    mixture_moments,
    precisions_cholesky,
)


def random_mixture(seed: int, components: int, dimensions: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = np.random.default_rng(seed)
    roots = generator.normal(size=(components, dimensions, dimensions))
    covariances = roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(dimensions)
    weights = generator.dirichlet(np.ones(components))
    means = 3 * generator.normal(size=(components, dimensions))
    return torch.from_numpy(weights), torch.from_numpy(means), torch.from_numpy(covariances)


def random_rows(seed: int, rows: int, dimensions: int, components: int) -> tuple[Tensor, Tensor]:
    generator = np.random.default_rng(seed)
    y = generator.normal(size=(rows, dimensions)) @ generator.normal(size=(dimensions, dimensions))
    return torch.from_numpy(y), torch.from_numpy(generator.dirichlet(np.ones(components), size=rows))


@pytest.mark.parametrize(("components", "dimensions"), [(1, 1), (2, 3), (4, 10), (2, 40)])
@pytest.mark.parametrize("seed", range(3))
def test_log_prob_is_that_of_scipy(seed: int, components: int, dimensions: int) -> None:
    weights, means, covariances = random_mixture(seed, components, dimensions)
    y = torch.from_numpy(5 * np.random.default_rng(seed).normal(size=(50, dimensions)))
    expected = logsumexp(
        [
            weights[k].log().item()
            + multivariate_normal(means[k].numpy(), covariances[k].numpy()).logpdf(y.numpy()).reshape(50)
            for k in range(components)
        ],
        axis=0,
    )
    assert np.allclose(GaussianMixture(weights, means, covariances).log_prob(y), expected, rtol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_moments_are_weighted_means_and_covariances(seed: int) -> None:
    y, responsibilities = random_rows(seed, 200, 4, 3)
    weights, means, covariances = mixture_moments(y, responsibilities)
    assert torch.allclose(weights, responsibilities.mean(dim=0))
    for k in range(3):
        own = responsibilities[:, k].numpy()
        assert np.allclose(means[k], np.average(y, axis=0, weights=own))
        assert np.allclose(covariances[k], np.cov(y.numpy().T, aweights=own, ddof=0))


def test_moments_of_all_rows_are_not_the_mean_of_batches() -> None:
    y, responsibilities = random_rows(0, 200, 4, 2)
    y[100:] += 10
    whole = mixture_moments(y, responsibilities)[2]
    batches = [mixture_moments(y[part], responsibilities[part])[2] for part in (slice(100), slice(100, 200))]
    assert (whole.diagonal(dim1=1, dim2=2) > sum(batches).diagonal(dim1=1, dim2=2)).all()  # type: ignore[union-attr]


def test_far_rows_never_saturate() -> None:
    mixture = GaussianMixture(*random_mixture(0, 3, 5))
    energies = -mixture.log_prob(torch.ones(1, 5, dtype=torch.float64) * 10.0 ** torch.arange(1, 8)[:, None])
    assert energies.isfinite().all()
    assert (energies.diff() > 0).all()


def test_a_determinant_beyond_float32_is_no_trouble() -> None:
    dimensions = 40
    covariances = 1e-4 * torch.eye(dimensions, dtype=torch.float64)[None]
    assert torch.linalg.det(covariances.float()) == 0
    mixture = GaussianMixture(torch.ones(1).double(), torch.zeros(1, dimensions).double(), covariances)
    expected = -0.5 * dimensions * np.log(2 * np.pi * 1e-4)
    assert mixture.log_prob(torch.zeros(1, dimensions).double()).item() == pytest.approx(expected)


def with_floor(y: Tensor, responsibilities: Tensor, floor: float = 1e-6) -> GaussianMixture:
    weights, means, covariances = mixture_moments(y, responsibilities)
    return GaussianMixture(weights, means, covariances + floor * torch.eye(y.shape[-1]).double())


def test_an_empty_component_stays_finite_and_counts_for_nothing() -> None:
    y, _ = random_rows(0, 100, 3, 1)
    one, none = torch.ones(100, 1).double(), torch.zeros(100, 1).double()
    two = with_floor(y, torch.cat([one, none], dim=1))
    assert torch.allclose(two.log_prob(y), with_floor(y, one).log_prob(y))


def test_a_singular_covariance_is_an_error_not_a_number() -> None:
    y = torch.zeros(10, 2, dtype=torch.float64)
    with pytest.raises(torch.linalg.LinAlgError, match="not positive definite"):  # type: ignore[attr-defined]
        with_floor(y, torch.ones(10, 1).double(), 0.0)
    assert with_floor(y, torch.ones(10, 1).double()).log_prob(y).isfinite().all()


def slow_rate(y: Tensor, responsibilities: Tensor, floors: Tensor) -> tuple[Tensor, Tensor]:
    """What `batch_rate` computes, by its parts, with the gradient that autograd finds."""
    weights, means, covariances = mixture_moments(y, responsibilities)
    covariances = covariances + torch.diag(floors)
    return -mixture_log_prob(y, weights.log(), means, precisions_cholesky(covariances)), covariances


@pytest.mark.parametrize("shape", [(40,), (3, 40)])
def test_the_rate_of_a_batch_and_its_gradient_are_those_of_its_parts(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(*shape, 4, dtype=torch.float64, generator=generator).requires_grad_()
    logits = torch.randn(*shape, 3, dtype=torch.float64, generator=generator).requires_grad_()
    floors = torch.tensor([1e-3, 0.1, 1e-6, 2.0], dtype=torch.float64)
    upstream = torch.rand(*shape, dtype=torch.float64, generator=generator)
    found = []
    for rate_of in (batch_rate, lambda y, logits, floors: slow_rate(y, torch.softmax(logits, dim=-1), floors)):
        rate, covariances = rate_of(y, logits, floors)
        total = (upstream * rate).sum() + 0.1 * covariances.diagonal(dim1=-2, dim2=-1).reciprocal().sum()
        found.append([rate, covariances, *torch.autograd.grad(total, [y, logits])])
    for fast, slow in zip(*found, strict=True):
        assert torch.allclose(fast, slow, rtol=1e-9, atol=1e-9)


def test_the_rate_of_rows_in_float32_is_computed_where_float32_has_no_cholesky_factor() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(200, 3, generator=generator)
    y[:, 1] *= 1e-4
    y[:, 2] = y[:, 0] + y[:, 1]
    logits, floors = torch.randn(200, 2, generator=generator), torch.full((3,), 1e-10, dtype=torch.float64)
    assert torch.linalg.cholesky_ex(torch.cov(y.T)).info > 0
    found = []
    for dtype in (torch.float32, torch.float64):
        rows, own = y.to(dtype).requires_grad_(), logits.to(dtype).requires_grad_()
        rate, _ = batch_rate(rows, own, floors)
        found.append([rate, *torch.autograd.grad(rate.mean(), [rows, own])])
    for single, double in zip(*found, strict=True):
        assert single.dtype == torch.float32
        assert torch.allclose(single.double(), double, rtol=1e-3, atol=1e-3 * double.abs().max().item())


def test_the_rate_of_a_batch_agrees_with_finite_differences() -> None:
    generator = torch.Generator().manual_seed(1)
    y = torch.randn(12, 2, dtype=torch.float64, generator=generator).requires_grad_()
    logits = torch.randn(12, 2, dtype=torch.float64, generator=generator).requires_grad_()
    floors = torch.full((2,), 0.1, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda y, p: batch_rate(y, p, floors), (y, logits))


def test_a_singular_member_of_a_stack_is_nan_and_the_others_are_not() -> None:
    y = torch.randn(2, 30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y[1] = 0.0
    y.requires_grad_()
    rate, _ = batch_rate(y, torch.zeros(2, 30, 1).double(), torch.zeros(2).double())
    assert rate[0].isfinite().all()
    assert rate[1].isnan().all()
    (gradient,) = torch.autograd.grad(rate.sum(), [y])
    assert gradient[0].isfinite().all()


def test_the_state_holds_all_that_scoring_needs() -> None:
    mixture = GaussianMixture(*random_mixture(0, 2, 3))
    restored = GaussianMixture.unfitted(2, 3)
    restored.load_state_dict(mixture.state_dict())
    y = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(restored.log_prob(y), mixture.log_prob(y))
