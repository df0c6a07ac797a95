"""Fully connected networks, alone or stacked: parameters and rows may have a leading member axis."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, FunctionCtx

from training.draws import Draws


class _FastTanh(torch.autograd.Function):
    """tanh x as 2 sigma(2x) - 1, which PyTorch computes several times as fast on a CPU, written over its argument."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        y = x.mul_(2).sigmoid_().mul_(2).sub_(1)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: BackwardCFunction, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        of_x: Tensor = torch.ops.aten.tanh_backward(gradient, y)
        return of_x


def tanh_(x: Tensor) -> Tensor:
    """Returns tanh x, and may write it over x."""
    y: Tensor = _FastTanh.apply(x) if x.dtype == torch.float32 else torch.tanh(x)  # type: ignore[no-untyped-call]
    return y


class Linear(nn.Module):
    r"""Creates an affine layer, :math:`y = x W + b`, that can be stacked.

    Weights start Glorot-uniform and biases at zero, as in the implementation the paper builds on.

    Arguments:
        inputs: The width of the input.
        outputs: The width of the output.

    References:
        | Understanding the difficulty of training deep feedforward neural networks (Glorot & Bengio, 2010)
        | Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), section 4.1.1
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(inputs, outputs)))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Maps rows of shape (..., N, inputs) to (..., N, outputs)."""
        return (x @ self.weight).add_(self.bias[..., None, :])


class MLP(nn.Module):
    """Creates a fully connected network with tanh between its layers and a linear last layer.

    Arguments:
        sizes: The width of the input, of each hidden layer and of the output.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(Linear(inputs, outputs) for inputs, outputs in pairwise(sizes[:-1]))
        self.last = Linear(*sizes[-2:])

    def forward(self, x: Tensor) -> Tensor:
        """Maps rows of shape (..., N, inputs) to (..., N, outputs)."""
        for layer in self.hidden:
            x = tanh_(layer(x))
        y: Tensor = self.last(x)
        return y


class EstimationNetwork(nn.Module):
    """Creates the network that predicts, from a row's features, which mixture component it belongs to.

    Arguments:
        dimensions: The number of features D.
        width: The width of its only hidden layer.
        components: The number of mixture components K.
        dropout: The probability with which a hidden value is dropped in training.

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), Eq. (17)
    """

    def __init__(self, dimensions: int, width: int, components: int, dropout: float) -> None:
        super().__init__()
        self.first = Linear(dimensions, width)
        self.last = Linear(width, components)
        self.dropout = dropout

    def forward(self, y: Tensor, draws: Draws | None = None) -> Tensor:
        """Returns logits (..., N, K) for rows (..., N, D); without draws there is no dropout."""
        hidden = tanh_(self.first(y))
        if draws and self.dropout > 0:
            kept = draws.uniform(*hidden.shape[-2:]).reshape(hidden.shape) >= self.dropout
            hidden = hidden * kept / (1 - self.dropout)
        logits: Tensor = self.last(hidden)
        return logits
