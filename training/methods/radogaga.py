"""RaDOGAGA: an autoencoder guided by rate and distortion, with a Gaussian mixture over its latent."""

from collections.abc import Callable

import torch
from torch import Tensor

from training.distances import squared_error
from training.draws import Draws
from training.methods.base import Losses
from training.methods.mixture_autoencoder import MixtureAutoencoder
from training.residuals import compare
from training.settings import H

DELTA = 1e-3
"""The small variable inside log(d + delta) of Appendix D."""


def identity(d: Tensor) -> Tensor:
    """Returns h(d) = d."""
    return d


def logarithm(d: Tensor) -> Tensor:
    """Returns h(d) = log(d + delta)."""
    return torch.log(d + DELTA)


SCALE_FUNCTIONS: dict[H, Callable[[Tensor], Tensor]] = {"identity": identity, "log": logarithm}


class RaDOGAGA(MixtureAutoencoder):
    r"""Creates a RaDOGAGA model for anomaly detection.

    .. math:: L = -\log P_z(z) + \lambda_1 h(D(x, \hat{x})) + \lambda_2 D(\hat{x}, \check{x})

    with :math:`\hat{x}` decoded from z and :math:`\check{x}` decoded from z + epsilon.

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), Eq. (1) to (4) and section 4.2.3
        https://arxiv.org/abs/1910.04329v1
    """

    def losses(self, x: Tensor, draws: Draws) -> Losses:
        """Returns the three terms of Eq. (4) for a batch of shape (..., N, M)."""
        s = self.settings
        x = self.scaler(x)
        z = self.encoder(x)
        z_noisy = z + self.noise(z, draws)
        x_hat = self.decoder(z)
        x_check = self.decoder(z_noisy)  # the paper's x with a check

        distance, *residuals = compare(x, x_hat)  # D(x, x_hat)
        y = self.density_features(z if s.rate_at == "z" else z_noisy, *residuals)
        rate, _ = self.batch_rate(y, draws)  # -log P(z)
        distortion = self.scaled(distance)  # h(D(x, x_hat))
        perturbation = squared_error(x_hat, x_check)  # D(x_hat, x_check)

        return {"rate": rate, "distortion": s.lambda1 * distortion, "perturbation": s.lambda2 * perturbation}

    @staticmethod
    def noise(z: Tensor, draws: Draws) -> Tensor:
        """Draws epsilon, uniform on (-1/2, 1/2) and so of variance 1/12, of z's shape."""
        return draws.uniform(*z.shape[-2:]).reshape(z.shape) - 0.5

    def scaled(self, d: Tensor) -> Tensor:
        """Returns h(d) for distances of shape (..., N), or h of their mean for each of them."""
        h = SCALE_FUNCTIONS[self.settings.h]
        return h(d) if self.settings.h_of == "row" else h(d.mean(dim=-1, keepdim=True)).expand_as(d)
