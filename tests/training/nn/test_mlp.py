"""Layers, activations and how weights start."""

import math

import pytest
import torch
from torch import nn

from training.nn.mlp import mlp


def test_tanh_stands_between_layers_and_the_last_is_linear() -> None:
    network = mlp([3, 5, 4, 2])
    assert [type(layer) for layer in network] == [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear]
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    first, second, third = (layer for layer in network if isinstance(layer, nn.Linear))
    assert torch.equal(network(x), third(second(first(x).tanh()).tanh()))


def test_dropout_stands_behind_each_tanh() -> None:
    network = mlp([3, 5, 2], dropout=0.25)
    assert [type(layer) for layer in network] == [nn.Linear, nn.Tanh, nn.Dropout, nn.Linear]
    assert network[2].p == 0.25


def test_weights_start_glorot_uniform_and_biases_at_zero() -> None:
    torch.manual_seed(0)
    (layer,) = mlp([300, 200])
    assert isinstance(layer, nn.Linear)
    bound = math.sqrt(6 / 500)
    assert layer.weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=1e-2)
    assert not layer.bias.any()
