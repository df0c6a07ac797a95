"""The two reconstruction features that DAGMM appends to the latent before the density sees it."""

import torch
from torch import Tensor

RESIDUAL_FEATURES = 2

SMALLEST_NORM = 1e-3
"""Norms are not taken smaller than this, so that a row of zeros has finite features."""

SMALLEST_SQUARE = 1e-30
"""Squared errors are not taken smaller than this, so that the root of a perfect reconstruction's has a gradient."""


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1).clamp_min(SMALLEST_NORM)
    return norm


def residual_features(x: Tensor, x_hat: Tensor, squared_error: Tensor) -> Tensor:
    r"""Returns relative distance :math:`\|x - \hat{x}\| / \|x\|` and cosine similarity side by side.

    .. math:: \frac{\|x - \hat{x}\|}{\|x\|}, \quad \frac{x \cdot \hat{x}}{\|x\| \, \|\hat{x}\|}

    Arguments:
        x: Scaled rows of shape (..., N, M).
        x_hat: Their reconstructions, of shape (..., N, M).
        squared_error: :math:`\|x - \hat{x}\|^2`, of shape (..., N), which the loss needs as well.

    Returns:
        Features of shape (..., N, 2).

    References:
        | Deep Autoencoding Gaussian Mixture Model (Zong et al., 2018), section 3.2
        | Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), section 4.2.3
    """
    norm = _norm(x)
    relative_distance = squared_error.clamp_min(SMALLEST_SQUARE).sqrt() / norm
    cosine_similarity = (x * x_hat).sum(dim=-1) / (norm * _norm(x_hat))
    return torch.stack([relative_distance, cosine_similarity], dim=-1)
