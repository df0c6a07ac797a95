"""Fully connected networks, alone or stacked: parameters and rows may have a leading member axis."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from training.draws import Draws


class _Layer(torch.autograd.Function):
    """An affine layer, with tanh behind it or not, for training in float32.

    It is one node that makes few passes over the rows and keeps nothing but its output. tanh x is computed as
    2 sigma(2x) - 1, and some products transposed: on a CPU both are several times as fast.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor, activated: bool) -> Tensor:
        y = product(x, weight).add_(bias[..., None, :])
        if activated:
            y = y.mul_(2).sigmoid_().mul_(2).sub_(1)
        ctx.save_for_backward(x, weight, *([y] if activated else []))
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        x, weight, *activations = ctx.saved_tensors  # type: ignore[attr-defined]
        for y in activations:
            gradient = torch.ops.aten.tanh_backward(gradient, y)
        of_x = product(gradient, weight.mT) if ctx.needs_input_grad[0] else None  # type: ignore[attr-defined]
        of_weight = (gradient.mT @ x).mT if is_narrowing(weight) else x.mT @ gradient
        return of_x, of_weight, gradient.sum(dim=-2), None


def is_narrowing(weight: Tensor) -> bool:
    """Says whether a layer's output is at most half as wide as its input."""
    return 2 * weight.shape[-1] <= weight.shape[-2]


def product(x: Tensor, weight: Tensor) -> Tensor:
    """Returns x W, transposed on the way if the result is narrow: BLAS is slow where rows of results are short."""
    return (weight.mT @ x.mT).mT.contiguous() if is_narrowing(weight) else x @ weight


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

    def forward(self, x: Tensor, activated: bool = False) -> Tensor:
        """Maps rows of shape (..., N, inputs) to (..., N, outputs), through tanh if `activated`."""
        if x.dtype == torch.float32:
            y: Tensor = _Layer.apply(x, self.weight, self.bias, activated)  # type: ignore[no-untyped-call]
            return y
        y = x @ self.weight + self.bias[..., None, :]
        return torch.tanh(y) if activated else y


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
            x = layer(x, activated=True)
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
        hidden = self.first(y, activated=True)
        if draws and self.dropout > 0:
            kept = draws.uniform(*hidden.shape[-2:]).reshape(hidden.shape) >= self.dropout
            hidden = hidden * kept / (1 - self.dropout)
        logits: Tensor = self.last(hidden)
        return logits
