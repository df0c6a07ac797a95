"""Layers, activations and how weights start."""

import math

import pytest
import torch
from torch import Tensor

from training.nn.mlp import MLP, EstimationNetwork, Linear


def test_tanh_stands_between_layers_and_the_last_is_linear() -> None:
    network = MLP([3, 5, 4, 2])
    first, second, third = (layer for layer in network.modules() if isinstance(layer, Linear))
    assert [tuple(layer.weight.shape) for layer in (first, second, third)] == [(3, 5), (5, 4), (4, 2)]
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(network(x), third(second(first(x).tanh()).tanh()), atol=1e-6)


@pytest.mark.parametrize("activated", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), [(5, 4), (8, 2), (2, 8), (6, 3)])
@pytest.mark.parametrize("shape", [(50,), (3, 50)])
def test_a_layer_and_its_gradients_are_those_of_its_formula(
    inputs: int, outputs: int, shape: tuple[int, ...], activated: bool
) -> None:
    """Whatever way its products are computed, alone and stacked."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator).requires_grad_()

    layer = Linear(inputs, outputs)
    layer.weight = torch.nn.Parameter(drawn(*shape[:-1], inputs, outputs))
    layer.bias = torch.nn.Parameter(drawn(*shape[:-1], outputs))
    x, upstream = drawn(*shape, inputs), drawn(*shape, outputs).detach()
    expected = x @ layer.weight + layer.bias[..., None, :]
    expected = torch.tanh(expected) if activated else expected
    y = layer(x, activated=activated)
    assert torch.allclose(y, expected, atol=1e-5)
    wanted = torch.autograd.grad(expected, [x, layer.weight, layer.bias], upstream)
    for got, of_formula in zip(torch.autograd.grad(y, [x, layer.weight, layer.bias], upstream), wanted, strict=True):
        assert torch.allclose(got, of_formula, atol=1e-4)
    double = layer.double()(x.double(), activated=activated)
    assert double.dtype == torch.float64
    assert torch.allclose(double.float(), expected, atol=1e-5)


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
