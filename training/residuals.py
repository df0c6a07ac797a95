"""The two reconstruction features that DAGMM appends to the latent before the density sees it."""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

RESIDUAL_FEATURES = 2

SMALLEST_NORM = 1e-3
"""Norms are not taken smaller than this, so that a row of zeros has finite features."""

SMALLEST_SQUARE = 1e-30
"""Squared errors are not taken smaller than this, so that the root of a perfect reconstruction's has a gradient."""


class _Comparison(torch.autograd.Function):
    r"""The squared error e, the relative distance r and the cosine c of rows, with their gradient in closed form.

    With :math:`n = \|x\|`, :math:`m = \|\hat{x}\|` and :math:`d = x - \hat{x}`, and cotangents
    :math:`g_e, g_r, g_c`, that of :math:`\hat{x}` is :math:`\alpha x - \beta d` with

    .. math::
        \alpha = \frac{g_c}{m} \left(\frac1n - \frac{c}{m}\right), \quad
        \beta = 2 g_e + \frac{g_r}{n \sqrt{e}} - \frac{g_c \, c}{m^2}

    where the terms in which a norm or the square is at its smallest are left out. x gets no gradient.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, x_hat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        difference = x - x_hat
        squared_error = difference.square().sum(dim=-1)
        root = squared_error.clamp_min(SMALLEST_SQUARE).sqrt()
        of_x, of_x_hat = (row.square().sum(dim=-1).sqrt().clamp_min(SMALLEST_NORM) for row in (x, x_hat))
        relative_distance = root / of_x
        cosine = (x * x_hat).sum(dim=-1) / (of_x * of_x_hat)
        ctx.save_for_backward(x, difference, squared_error, root, of_x, of_x_hat, cosine)
        return squared_error, relative_distance, cosine

    @staticmethod
    def backward(ctx: FunctionCtx, g_e: Tensor, g_r: Tensor, g_c: Tensor) -> tuple[None, Tensor]:
        x, difference, squared_error, root, n, m, cosine = ctx.saved_tensors  # type: ignore[attr-defined]
        g_r = torch.where(squared_error > SMALLEST_SQUARE, g_r, 0)
        shrinking = torch.where(m > SMALLEST_NORM, g_c * cosine / m.square(), 0)  # what the norm of x_hat takes away
        alpha = g_c / (n * m) - shrinking
        beta = 2 * g_e + g_r / (n * root) - shrinking
        return None, (difference * (-beta)[..., None]).addcmul_(x, alpha[..., None])


def compare(x: Tensor, x_hat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Returns the squared error, the relative distance and the cosine similarity of rows and their reconstructions.

    .. math:: \|x - \hat{x}\|^2, \quad \frac{\|x - \hat{x}\|}{\|x\|}, \quad \frac{x \cdot \hat{x}}{\|x\| \, \|\hat{x}\|}

    The latter two are the residual features; the loss needs the first as well. x gets no gradient.

    Arguments:
        x: Scaled rows of shape (..., N, M).
        x_hat: Their reconstructions, of shape (..., N, M).

    Returns:
        Three tensors of shape (..., N).

    References:
        | Deep Autoencoding Gaussian Mixture Model (Zong et al., 2018), section 3.2
        | Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), section 4.2.3
    """
    squared_error, relative_distance, cosine = _Comparison.apply(x, x_hat)  # type: ignore[no-untyped-call]
    return squared_error, relative_distance, cosine
