"""Layers, activations and how weights start."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from training.nn.mlp import MLP, EstimationNetwork, Linear, network


def test_tanh_stands_between_layers_and_the_last_is_linear() -> None:
    network = MLP([3, 5, 4, 2])
    first, second, third = (layer for layer in network.modules() if isinstance(layer, Linear))
    assert [tuple(layer.weight.shape) for layer in (first, second, third)] == [(3, 5), (5, 4), (4, 2)]
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(network(x), third(second(first(x).tanh()).tanh()), atol=1e-6)


SIZES = [[5, 4], [8, 2], [6, 30, 24, 3], [9, 16, 5, 20]]


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_stack_of_layers_and_its_gradients_are_those_of_their_formula(sizes: list[int], dropped: bool) -> None:
    """Float32, in which stacks are trained, goes another way than float64, which is written as the formula is."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    layers = [Linear(inputs, outputs) for inputs, outputs in pairwise(sizes)]
    for layer in layers:
        layer.weight = torch.nn.Parameter(drawn(3, *layer.weight.shape))
        layer.bias = torch.nn.Parameter(drawn(3, *layer.bias.shape))
    x, upstream = drawn(3, 50, sizes[0]).requires_grad_(), drawn(3, 50, sizes[-1])
    kept = (drawn(3, 50, sizes[-2]) > 0).float() * 2 if dropped and len(sizes) > 2 else None

    found = []
    for dtype in (torch.float32, torch.float64):
        own = [layer.to(dtype) for layer in layers]
        inputs = [x.detach().to(dtype).requires_grad_(), *(p for layer in own for p in layer.parameters())]
        y = network(inputs[0], own, None if kept is None else kept.to(dtype))
        assert y.dtype == dtype
        found.append([y, *torch.autograd.grad(y, inputs, upstream.to(dtype))])
    for fast, slow in zip(*found, strict=True):
        assert torch.allclose(fast.double(), slow, rtol=1e-4, atol=1e-4)


def test_a_stack_is_its_members_side_by_side() -> None:
    members, stacked = [Linear(3, 2) for _ in range(4)], Linear(3, 2)
    stacked.weight = torch.nn.Parameter(torch.stack([member.weight.detach() for member in members]))
    stacked.bias = torch.nn.Parameter(torch.arange(8.0).reshape(4, 2))
    x = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    y = network(x, [stacked])
    for i, member in enumerate(members):
        assert torch.allclose(y[i], x[i] @ member.weight + torch.tensor([2.0 * i, 2 * i + 1]))
    assert torch.allclose(network(x[0], [stacked])[2], x[0] @ members[2].weight + torch.tensor([4.0, 5.0]))


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
