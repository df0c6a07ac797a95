"""The two reconstruction features that DAGMM appends to the latent before the density sees it."""

import torch
from torch import Tensor

SMALLEST_NORM = 1e-3
"""Norms are not taken smaller than this, so that a row of zeros has finite features."""


def _norm(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1)
    return norm


def relative_distance(x: Tensor, x_hat: Tensor) -> Tensor:
    r"""Returns :math:`\|x - \hat{x}\| / \|x\|` per row, of shape (N,)."""
    return _norm(x - x_hat) / _norm(x).clamp_min(SMALLEST_NORM)


def cosine_similarity(x: Tensor, x_hat: Tensor) -> Tensor:
    r"""Returns :math:`x \cdot \hat{x} / (\|x\| \, \|\hat{x}\|)` per row, of shape (N,)."""
    return (x * x_hat).sum(dim=-1) / (_norm(x).clamp_min(SMALLEST_NORM) * _norm(x_hat).clamp_min(SMALLEST_NORM))


def residual_features(x: Tensor, x_hat: Tensor) -> Tensor:
    """Returns relative distance and cosine similarity side by side.

    Arguments:
        x: Scaled rows of shape (N, M).
        x_hat: Their reconstructions, of shape (N, M).

    Returns:
        Features of shape (N, 2).

    References:
        | Deep Autoencoding Gaussian Mixture Model (Zong et al., 2018), section 3.2
        | Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), section 4.2.3
    """
    return torch.stack([relative_distance(x, x_hat), cosine_similarity(x, x_hat)], dim=-1)
