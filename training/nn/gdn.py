"""Divisive normalization of images, and its approximate inverse."""

import torch
from torch import Tensor, nn

from training.nn.bounds import lower_bound
from training.nn.exportable import convolve
from training.nn.members import over_members

PEDESTAL = 2.0**-36
"""What is added under the square roots that beta and gamma are kept as, so that their gradient does not vanish at 0."""

LEAST_BETA = 1e-6


class GDN(nn.Module):
    r"""Creates a generalized divisive normalization (GDN) layer.

    .. math:: y_i = x_i \, / \, \sqrt{\beta_i + \sum_j \gamma_{ij} x_j^2}

    :math:`\beta \geq 10^{-6}` and :math:`\gamma \geq 0` are kept as square roots, which makes steps small where they
    are. They start at 1 and at 0.1 times the identity.

    References:
        Density Modeling of Images using a Generalized Normalization Transformation (Ballé et al., 2016)
        https://arxiv.org/abs/1511.06281

    Arguments:
        channels: The number of channels :math:`C`.
        inverse: Whether to multiply instead of divide (IGDN).
    """

    def __init__(self, channels: int, inverse: bool = False) -> None:
        super().__init__()
        self.root_beta = nn.Parameter((torch.ones(channels) + PEDESTAL).sqrt())
        self.root_gamma = nn.Parameter((0.1 * torch.eye(channels) + PEDESTAL).sqrt())
        self.inverse = inverse

    @property
    def beta(self) -> Tensor:
        r"""The constants :math:`\beta`, of shape (..., C)."""
        return lower_bound(self.root_beta, (LEAST_BETA + PEDESTAL) ** 0.5) ** 2 - PEDESTAL

    @property
    def gamma(self) -> Tensor:
        r"""The weights :math:`\gamma`, of shape (..., C, C)."""
        return lower_bound(self.root_gamma, PEDESTAL**0.5) ** 2 - PEDESTAL

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes images of shape (..., N, C, H, W)."""
        return over_members(self.normalize, x, self.beta, self.gamma)

    def normalize(self, x: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
        """Normalizes images (N, C, H, W) by constants (C,) and weights (C, C)."""
        power = convolve(x.square(), gamma[..., None, None], beta, stride=1, padding=0)
        return x * (power.sqrt() if self.inverse else power.rsqrt())


class IGDN(GDN):
    r"""Creates a layer that approximately undoes GDN.

    .. math:: y_i = x_i \sqrt{\beta_i + \sum_j \gamma_{ij} x_j^2}

    References:
        End-to-end Optimized Image Compression (Ballé et al., 2017), section 3
        https://arxiv.org/abs/1611.01704

    Arguments:
        channels: The number of channels :math:`C`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, inverse=True)
