"""Fully connected networks, alone or stacked: parameters and rows may have a leading member axis."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from training.draws import Draws


class _Network(torch.autograd.Function):
    """Stacked layers with tanh between them as one node, for training in float32.

    Written for a CPU, where what counts are passes over the rows. Inside, rows come last, for BLAS and sums are slow
    where what lies side by side is narrow; outside that shows in strides only. tanh x is computed as
    1 - 2 sigma(-2x), which is several times as fast.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, kept: Tensor | None, *parameters: Tensor) -> Tensor:
        layers = list(zip(parameters[::2], parameters[1::2], strict=True))
        values, activations = [x.mT], []
        for weight, bias in layers[:-1]:
            sigma = torch.baddbmm((-2 * bias)[..., None], (-2 * weight).mT, values[-1]).sigmoid_()
            activations.append(torch.rsub(sigma, 1, alpha=2))
            values.append(activations[-1])
        if kept is not None:
            kept = kept.mT
            values[-1] = activations[-1] * kept
        weight, bias = layers[-1]
        ctx.save_for_backward(kept, *parameters[::2], *values, *activations)  # type: ignore[arg-type]
        return torch.baddbmm(bias[..., None], weight.mT, values[-1]).mT

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        kept, *saved = ctx.saved_tensors  # type: ignore[attr-defined]
        count = (len(saved) + 1) // 3
        weights, values, activations = saved[:count], saved[count : 2 * count], saved[2 * count :]
        of_value = gradient.mT.contiguous()
        of_parameters: list[Tensor] = []
        for i in reversed(range(count)):
            of_parameters[:0] = product_over_rows(values[i], of_value), of_value.sum(dim=-1)
            if i > 0:
                of_value = torch.bmm(weights[i], of_value)
                if kept is not None and i == count - 1:
                    of_value = of_value * kept
                of_value = torch.ops.aten.tanh_backward(of_value, activations[i - 1])
        needed = ctx.needs_input_grad[0]  # type: ignore[attr-defined]
        return torch.bmm(weights[0], of_value).mT if needed else None, None, *of_parameters


def product_over_rows(x: Tensor, y: Tensor) -> Tensor:
    """Returns x y^T for (S, I, N) and (S, O, N), by way of y x^T where BLAS is quicker at that."""
    inputs, outputs = x.shape[1], y.shape[1]
    if 2 * outputs <= inputs or (inputs % 8 == 0 and outputs % 8 != 0):  # BLAS takes results in pieces of 8 columns
        return torch.bmm(y, x.mT).mT
    return torch.bmm(x, y.mT)


def network(x: Tensor, layers: Sequence["Linear"], kept: Tensor | None = None) -> Tensor:
    """Sends rows (..., N, inputs) through layers with tanh between them.

    Arguments:
        x: The rows.
        layers: The layers.
        kept: What the last hidden layer's values are multiplied by, of shape (..., N, width).
    """
    if x.dtype == torch.float32 and x.dim() == layers[0].weight.dim() == 3:
        parameters = [parameter for layer in layers for parameter in (layer.weight, layer.bias)]
        fused: Tensor = _Network.apply(x, kept, *parameters)  # type: ignore[no-untyped-call]
        return fused
    for layer in layers[:-1]:
        x = torch.tanh(layer(x))
    y: Tensor = layers[-1](x if kept is None else x * kept)
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
        return x @ self.weight + self.bias[..., None, :]


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
        return network(x, [*self.hidden, self.last])


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
        kept = None
        if draws and self.dropout > 0:
            drawn = draws.uniform(y.shape[-2], self.first.weight.shape[-1])
            kept = (drawn >= self.dropout).to(y.dtype).div_(1 - self.dropout).reshape(*y.shape[:-1], -1)
        return network(y, [self.first, self.last], kept)
