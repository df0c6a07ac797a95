"""GDN and IGDN, at their start and with any weights, beside plain loops."""

import math

import pytest
import torch

from training.nn.gdn import GDN, IGDN, LEAST_BETA
from training.nn.members import over_members


def randomized(layer: GDN, seed: int = 0) -> GDN:
    generator = torch.Generator().manual_seed(seed)
    layer = layer.double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator, dtype=torch.float64) + 0.1)
    return layer


def by_loops(layer: GDN, x: torch.Tensor) -> torch.Tensor:
    y = torch.empty_like(x)
    beta, gamma = layer.root_beta.detach() ** 2, layer.root_gamma.detach() ** 2
    for n in range(x.shape[0]):
        for h in range(x.shape[2]):
            for w in range(x.shape[3]):
                values = x[n, :, h, w].tolist()
                for i, value in enumerate(values):
                    power = float(beta[i]) + sum(float(gamma[i, j]) * other**2 for j, other in enumerate(values))
                    y[n, i, h, w] = value * math.sqrt(power) if layer.inverse else value / math.sqrt(power)
    return y


def test_gdn_at_initialisation() -> None:
    x = torch.randn(4, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(GDN(8)(x), x / torch.sqrt(1 + 0.1 * x**2))


def test_igdn_at_initialisation() -> None:
    x = torch.randn(4, 8, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(IGDN(8)(x), x * torch.sqrt(1 + 0.1 * x**2))


@pytest.mark.parametrize("kind", [GDN, IGDN])
def test_any_weights_beside_plain_loops(kind: type[GDN]) -> None:
    layer = randomized(kind(3))
    x = torch.randn(2, 3, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(layer(x), by_loops(layer, x), rtol=1e-9)


@pytest.mark.parametrize("kind", [GDN, IGDN])
def test_gradients_beside_finite_differences(kind: type[GDN]) -> None:
    layer = randomized(kind(2))
    x = torch.randn(1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x, *parameters: torch.func.functional_call(
            layer, dict(zip(("root_beta", "root_gamma"), parameters, strict=True)), (x,)
        ),
        (x, *layer.parameters()),
    )


def test_beta_and_gamma_stay_in_bounds_and_come_back() -> None:
    layer = GDN(2)
    with torch.no_grad():
        layer.root_beta.fill_(-3.0)
        layer.root_gamma.fill_(-3.0)
    assert torch.allclose(layer.beta, torch.tensor(LEAST_BETA))
    assert layer.gamma.abs().max() < 1e-10
    y = layer(torch.ones(1, 2, 1, 1))
    assert y.isfinite().all()
    y.sum().backward()  # less y means more beta and gamma
    assert layer.root_beta.grad is not None
    assert layer.root_gamma.grad is not None
    assert (layer.root_beta.grad < 0).all()
    assert (layer.root_gamma.grad < 0).all()


def test_float32_with_values_of_any_size() -> None:
    x = 10.0 ** torch.arange(-18, 18, dtype=torch.float32).reshape(1, 1, 6, 6)
    exact = GDN(1).double()(x.double())
    assert torch.allclose(GDN(1)(x).double(), exact, rtol=1e-5)


def test_members_of_a_stack_have_weights_of_their_own() -> None:
    layers = [randomized(GDN(3), seed) for seed in range(2)]
    x = torch.randn(2, 5, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    beta, gamma = (torch.stack([getattr(layer, name) for layer in layers]) for name in ("beta", "gamma"))
    together = over_members(GDN(3).normalize, x, beta, gamma)
    assert torch.equal(together, torch.stack([layer(own) for layer, own in zip(layers, x, strict=True)]))
    alone = over_members(GDN(3).normalize, x[:1], beta[:1], gamma[:1])
    assert torch.equal(alone, together[:1])
