"""Distances D(x, y) between rows, each with the signature (..., N, M), (..., N, M) -> (..., N)."""

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, FunctionCtx


class _SquaredError(torch.autograd.Function):
    """The squared error with its gradient, in as few passes over the rows as there can be."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, y: Tensor) -> Tensor:
        difference = x - y
        ctx.save_for_backward(difference)
        return difference.square().sum(dim=-1)

    @staticmethod
    def backward(ctx: BackwardCFunction, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (difference,) = ctx.saved_tensors
        of_y = (-2 * gradient)[..., None] * difference
        return of_y.neg() if ctx.needs_input_grad[0] else None, of_y


def squared_error(x: Tensor, y: Tensor) -> Tensor:
    r"""Returns the squared error, summed over features: :math:`\|x - y\|^2`.

    The sum (not the mean) is what the paper's lambdas belong to.

    Arguments:
        x: Rows of shape (..., N, M).
        y: Rows of shape (..., N, M).

    Returns:
        One distance per row, of shape (..., N).

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), Eq. (6)
    """
    squared: Tensor = _SquaredError.apply(x, y)  # type: ignore[no-untyped-call]
    return squared
