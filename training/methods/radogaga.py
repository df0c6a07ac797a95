"""RaDOGAGA: an autoencoder guided by rate and distortion, and the one with a Gaussian mixture over its latent."""

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from training.distances import squared_error
from training.draws import Draws
from training.methods.base import Losses, Method
from training.methods.mixture_autoencoder import MixtureAutoencoder
from training.nn.mlp import MLP
from training.residuals import compare
from training.settings import H, RateDistortionSettings, Settings

DELTA = 1e-3
"""The small variable inside log(d + delta) of Appendix D."""


def identity(d: Tensor) -> Tensor:
    """Returns h(d) = d."""
    return d


def logarithm(d: Tensor) -> Tensor:
    """Returns h(d) = log(d + delta)."""
    return torch.log(d + DELTA)


SCALE_FUNCTIONS: dict[H, Callable[[Tensor], Tensor]] = {"identity": identity, "log": logarithm}


class RateDistortion(Method):
    r"""What RaDOGAGA is, whichever density describes its latent and whichever distance compares its rows.

    .. math:: L = -\log P_z(z) + \lambda_1 h(D(x, \hat{x})) + \lambda_2 D(\hat{x}, \check{x})

    with :math:`\hat{x}` decoded from z and :math:`\check{x}` decoded from z + epsilon.

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), Eq. (1) to (4)
        https://arxiv.org/abs/1910.04329v1
    """

    encoder: nn.Module
    decoder: nn.Module
    settings: RateDistortionSettings

    @property
    @abstractmethod
    def lambdas(self) -> tuple[float, float]:
        """The weights lambda1 and lambda2 of distortion and perturbation beside a rate in nats per row."""

    @abstractmethod
    def compare(self, x: Tensor, x_hat: Tensor) -> tuple[Tensor, ...]:
        """Returns D(x, x_hat) (..., N) of scaled rows (..., N, M), and behind it what else the density wants to see."""

    @abstractmethod
    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns D(x, y) (..., N) of scaled rows (..., N, M)."""

    @abstractmethod
    def rate(self, z: Tensor, *residuals: Tensor, draws: Draws) -> Tensor:
        """Returns -log P(z) (..., N) of latents (..., N, L), in nats, beside what `compare` returned with D."""

    def losses(self, x: Tensor, draws: Draws) -> Losses:
        """Returns the three terms of Eq. (4) for a batch of shape (..., N, M)."""
        lambda1, lambda2 = self.lambdas
        x = self.scaler(x)
        z = self.encoder(x)
        z_noisy = z + self.noise(z, draws)
        x_hat = self.decoder(z)
        x_check = self.decoder(z_noisy)  # the paper's x with a check

        distance, *residuals = self.compare(x, x_hat)  # D(x, x_hat)
        rate = self.rate(z if self.settings.rate_at == "z" else z_noisy, *residuals, draws=draws)  # -log P(z)
        distortion = self.scaled(distance)  # h(D(x, x_hat))
        perturbation = self.distance(x_hat, x_check)  # D(x_hat, x_check)

        return {"rate": rate, "distortion": lambda1 * distortion, "perturbation": lambda2 * perturbation}

    @staticmethod
    def noise(z: Tensor, draws: Draws) -> Tensor:
        """Draws epsilon, uniform on (-1/2, 1/2) and so of variance 1/12, of z's shape."""
        return draws.uniform(*z.shape[-2:]).reshape(z.shape) - 0.5

    def scaled(self, d: Tensor) -> Tensor:
        """Returns h(d) for distances of shape (..., N), or h of their mean for each of them."""
        h = SCALE_FUNCTIONS[self.settings.h]
        return h(d) if self.settings.h_of == "row" else h(d.mean(dim=-1, keepdim=True)).expand_as(d)


class RaDOGAGA(RateDistortion, MixtureAutoencoder):
    """Creates a RaDOGAGA model for anomaly detection, with a Gaussian mixture over its latent.

    D is the squared error.

    Arguments:
        scaler: The scaler, fitted on the training rows.
        settings: Sizes and weights; the rest of the settings belongs to the fit.

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), section 4.2.3
        https://arxiv.org/abs/1910.04329v1
    """

    encoder: MLP
    decoder: MLP
    settings: Settings

    @property
    def lambdas(self) -> tuple[float, float]:
        return self.settings.lambda1, self.settings.lambda2

    def compare(self, x: Tensor, x_hat: Tensor) -> tuple[Tensor, ...]:
        return compare(x, x_hat)

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        return squared_error(x, y)

    def rate(self, z: Tensor, *residuals: Tensor, draws: Draws) -> Tensor:
        rate, _ = self.batch_rate(self.density_features(z, *residuals), draws)
        return rate
