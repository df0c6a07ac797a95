"""The learned densities beside numerical integration, autograd and scipy; with far tails and in float32."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor, nn

from training.densities.factorized import DeepFactorized, UniformNoise


class Normal(nn.Module):
    """Standard normal features."""

    def log_cdf(self, y: Tensor) -> Tensor:
        return torch.special.log_ndtr(y)  # type: ignore[no-any-return]

    def log_survival(self, y: Tensor) -> Tensor:
        return torch.special.log_ndtr(-y)  # type: ignore[no-any-return]


def randomized(dimensions: int = 3, seed: int = 0, scale: float = 2.0) -> DeepFactorized:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        density = DeepFactorized(dimensions, scale=scale).double()
        with torch.no_grad():
            for parameter in density.parameters():
                parameter.add_(0.5 * torch.randn_like(parameter))
    return density


def by_hand(density: DeepFactorized, dimension: int, y: float) -> float:
    x = np.array([y])
    for layer in range(len(density.matrices)):
        matrix, bias = (p[layer][dimension].detach().numpy() for p in (density.matrices, density.biases))
        x = np.log1p(np.exp(matrix)) @ x + bias[:, 0]
        if layer < len(density.factors):
            x = x + np.tanh(density.factors[layer][dimension].detach().numpy()[:, 0]) * np.tanh(x)
    return float(1 / (1 + np.exp(-x[0])))


def column(values: list[float], dimensions: int = 1) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None].expand(-1, dimensions)


@torch.no_grad()
def test_the_distribution_function_is_the_papers() -> None:
    density = randomized()
    y = column([-3.0, -0.4, 0.0, 1.3], 3)
    expected = [[by_hand(density, dimension, value) for dimension in range(3)] for value in y[:, 0].tolist()]
    assert density.log_cdf(y).exp().numpy() == pytest.approx(np.array(expected), rel=1e-10)
    assert (density.log_cdf(y).exp() + density.log_survival(y).exp()).numpy() == pytest.approx(1, rel=1e-12)


@torch.no_grad()
def test_it_grows_from_0_to_1() -> None:
    grid = torch.linspace(-400, 400, 4001, dtype=torch.float64)[:, None].expand(-1, 3)
    cdf = randomized().log_cdf(grid).exp()
    assert (cdf.diff(dim=0) >= 0).all()
    assert cdf[0].max() < 1e-6
    assert cdf[-1].min() > 1 - 1e-6


@pytest.mark.parametrize("dimension", range(3))
def test_the_noisy_density_is_the_integral_over_a_unit_interval_of_the_slope(dimension: int) -> None:
    density = randomized()

    def slope(y: float) -> float:
        point = torch.full((1, 3), y, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(density.log_cdf(point).exp()[0, dimension], point)
        return float(gradient[0, dimension])

    for y in (-4.0, -0.7, 0.2, 3.0):
        expected, _ = quad(slope, y - 0.5, y + 0.5, epsabs=1e-12)
        found = UniformNoise(density).log_prob_by_feature(column([y], 3))[0, dimension].exp()
        assert found.item() == pytest.approx(expected, rel=1e-7)


@torch.no_grad()
def test_the_noisy_density_integrates_to_one() -> None:
    noisy = UniformNoise(randomized())
    grid = torch.arange(-3000, 3001, dtype=torch.float64)[:, None].expand(-1, 3) * 0.1
    assert (noisy.log_prob_by_feature(grid).exp().sum(dim=0) * 0.1).numpy() == pytest.approx(1, abs=1e-6)


@torch.no_grad()
def test_any_density_that_knows_its_distribution_function_will_do() -> None:
    y = np.array([-30.0, -9.0, -2.0, 0.0, 0.3, 5.0, 9.0, 30.0])
    found = UniformNoise(Normal()).log_prob_by_feature(column(y.tolist()))[:, 0].numpy()
    left = -np.abs(y)  # the same by symmetry, where scipy does not cancel
    upper, lower = norm.logcdf(left + 0.5), norm.logcdf(left - 0.5)
    assert found == pytest.approx(upper + np.log1p(-np.exp(lower - upper)), rel=1e-10)


@torch.no_grad()
def test_the_rate_is_in_nats_and_adds_up() -> None:
    noisy = UniformNoise(randomized())
    y = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one_by_one = -noisy.log_prob_by_feature(y).exp().log().sum(dim=-1)
    assert noisy.rate(y).shape == (5,)
    assert torch.allclose(noisy.rate(y), one_by_one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
@torch.no_grad()
def test_the_rate_grows_on_in_the_far_tails(dtype: torch.dtype, sign: float) -> None:
    noisy = UniformNoise(randomized().to(dtype))
    far = sign * 10.0 ** torch.arange(1, 31, dtype=dtype)[:, None].expand(-1, 3)
    rate = noisy.rate(far)
    assert rate.isfinite().all()
    assert (rate.diff() > 0).all()


@torch.no_grad()
def test_float32_agrees_with_float64() -> None:
    y = torch.cat([torch.linspace(-60, 60, 241), 10.0 ** torch.arange(2, 6)])[:, None].expand(-1, 3)
    exact = UniformNoise(randomized()).rate(y.double())
    assert torch.allclose(UniformNoise(randomized().float()).rate(y).double(), exact, rtol=2e-4, atol=1e-5)


def test_gradients_beside_finite_differences_also_far_out() -> None:
    noisy = UniformNoise(randomized(2))
    y = torch.tensor([[-40.0, 0.1], [0.8, 55.0], [-0.2, -3.0]], dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in noisy.named_parameters()]
    assert torch.autograd.gradcheck(
        lambda y, *parameters: torch.func.functional_call(noisy, dict(zip(names, parameters, strict=True)), (y,)),
        (y, *noisy.parameters()),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_far_out_are_finite_and_lead_back(dtype: torch.dtype) -> None:
    noisy = UniformNoise(randomized().to(dtype))
    far = torch.tensor([[-1e4, 1e4, 1e3], [1e8, -1e8, 1e20]], dtype=dtype, requires_grad=True)
    noisy.rate(far).sum().backward()  # type: ignore[no-untyped-call]
    assert far.grad is not None
    assert torch.equal(far.grad[0].sign(), far.detach()[0].sign())
    assert far.grad.isfinite().all()
    for name, parameter in noisy.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_a_fit_finds_the_density_of_its_data() -> None:
    generator = np.random.default_rng(0)
    mixture = np.where(generator.random(2000) < 0.3, generator.normal(-3, 0.7, 2000), generator.normal(2, 1.0, 2000))
    x = torch.from_numpy(mixture)[:, None]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        density = DeepFactorized(1).double()
    noisy = UniformNoise(density)
    optimizer = torch.optim.Adam(noisy.parameters(), lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        noise = torch.from_numpy(generator.random((len(x), 1))) - 0.5
        noisy.rate(x + noise).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    cdf = density.log_cdf(column([-3.0, -0.5, 2.0])).exp().detach()[:, 0].numpy()
    exact = 0.3 * norm.cdf([-3.0, -0.5, 2.0], -3, 0.7) + 0.7 * norm.cdf([-3.0, -0.5, 2.0], 2, 1.0)
    assert cdf == pytest.approx(exact, abs=0.04)


@torch.no_grad()
def test_a_stack_computes_what_its_members_do() -> None:
    members = [UniformNoise(randomized(3, seed)) for seed in range(2)]
    parameters, buffers = torch.func.stack_module_state(members)
    y = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    together = torch.func.functional_call(members[0], (parameters, buffers), (y,))
    assert torch.allclose(together, torch.stack([own.rate(rows) for own, rows in zip(members, y, strict=True)]))
