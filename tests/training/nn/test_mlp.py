"""Layers, activations and how weights start."""

import math

import pytest
import torch

from training.nn.mlp import MLP, EstimationNetwork, Linear, tanh_


def test_tanh_stands_between_layers_and_the_last_is_linear() -> None:
    network = MLP([3, 5, 4, 2])
    first, second, third = (layer for layer in network.modules() if isinstance(layer, Linear))
    assert [tuple(layer.weight.shape) for layer in (first, second, third)] == [(3, 5), (5, 4), (4, 2)]
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(network(x), third(second(first(x).tanh()).tanh()), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tanh_and_its_gradient(dtype: torch.dtype) -> None:
    x = torch.linspace(-12, 12, 4001, dtype=dtype, requires_grad=True)
    tolerance = 4 * torch.finfo(dtype).eps
    y = tanh_(x * 1)
    assert (y - torch.tanh(x)).abs().max() < tolerance
    (gradient,) = torch.autograd.grad(y.sum(), [x])
    assert (gradient - (1 - torch.tanh(x) ** 2)).abs().max() < 2 * tolerance


def test_a_layer_with_a_member_axis_is_its_members_side_by_side() -> None:
    members, stacked = [Linear(3, 2) for _ in range(4)], Linear(3, 2)
    stacked.weight = torch.nn.Parameter(torch.stack([member.weight.detach() for member in members]))
    stacked.bias = torch.nn.Parameter(torch.arange(8.0).reshape(4, 2))
    x = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    y = stacked(x)
    for i, member in enumerate(members):
        assert torch.allclose(y[i], x[i] @ member.weight + torch.tensor([2.0 * i, 2 * i + 1]))
    assert torch.allclose(stacked(x[0])[2], x[0] @ members[2].weight + torch.tensor([4.0, 5.0]))


def test_the_estimation_network_has_one_hidden_layer() -> None:
    network = EstimationNetwork(4, 10, 3, dropout=0.5)
    y = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    hidden = torch.tanh(y @ network.first.weight + network.first.bias)
    assert torch.allclose(network(y), hidden @ network.last.weight + network.last.bias, atol=1e-6)


def test_weights_start_glorot_uniform_and_biases_at_zero() -> None:
    torch.manual_seed(0)
    layer = Linear(300, 200)
    bound = math.sqrt(6 / 500)
    assert layer.weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=1e-2)
    assert not layer.bias.any()
