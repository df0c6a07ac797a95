"""Bounds that a parameter can come back from."""

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, FunctionCtx


class _LowerBound(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x < bound)
        return x.clamp_min(bound)

    @staticmethod
    def backward(ctx: BackwardCFunction, gradient: Tensor) -> tuple[Tensor, None]:
        (below,) = ctx.saved_tensors
        return gradient.masked_fill(below & (gradient > 0), 0.0), None


def lower_bound(x: Tensor, bound: float) -> Tensor:
    r"""Returns max(x, bound) with a gradient that lets a value return from below the bound.

    Gradients pass where x is not below the bound, and below it where a step against them moves x up. The plain
    maximum has no gradient there: a value that once fell below it would stay.

    Arguments:
        x: Values of any shape.
        bound: The smallest value returned.

    References:
        Density Modeling of Images using a Generalized Normalization Transformation (Ballé et al., 2016)
        https://arxiv.org/abs/1511.06281
    """
    if not x.requires_grad:
        return x.clamp_min(bound)  # what an exporter knows
    bounded: Tensor = _LowerBound.apply(x, bound)  # type: ignore[no-untyped-call]
    return bounded
