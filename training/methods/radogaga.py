"""RaDOGAGA: an autoencoder guided by rate and distortion, with a Gaussian mixture over its latent."""

from collections.abc import Callable

import torch
from torch import Tensor

from training.densities.mixture import GaussianMixture
from training.distances import squared_error
from training.methods.base import Losses, Method
from training.nn.mlp import mlp
from training.preprocessing import MinMax
from training.residuals import residual_features
from training.settings import H, Settings

DELTA = 1e-3
"""The small variable inside log(d + delta) of Appendix D."""


def identity(d: Tensor) -> Tensor:
    """Returns h(d) = d."""
    return d


def logarithm(d: Tensor) -> Tensor:
    """Returns h(d) = log(d + delta)."""
    return torch.log(d + DELTA)


SCALE_FUNCTIONS: dict[H, Callable[[Tensor], Tensor]] = {"identity": identity, "log": logarithm}


class RaDOGAGA(Method):
    r"""Creates a RaDOGAGA model for anomaly detection.

    .. math:: L = -\log P_z(z) + \lambda_1 h(D(x, \hat{x})) + \lambda_2 D(\hat{x}, \check{x})

    with :math:`\hat{x}` decoded from z and :math:`\check{x}` decoded from z + epsilon. The density is a Gaussian
    mixture over z and two residual features, its memberships predicted by an estimation network. In training it
    is computed per batch; for scoring, once over all training rows. It is evaluated in float64, for the
    residuals carry no noise and their variance shrinks until float32 has no Cholesky factor of it.

    Arguments:
        scaler: The scaler, fitted on the training rows.
        settings: Sizes and weights; the rest of the settings belongs to the fit.

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), Eq. (1) to (4) and section 4.2.3
        https://arxiv.org/abs/1910.04329v1
    """

    def __init__(self, scaler: MinMax, settings: Settings) -> None:
        super().__init__()
        features, hidden, latent = scaler.features, settings.hidden, settings.latent
        dimensions = latent + 2  # the residual features
        self.latent = latent
        self.scaler = scaler
        self.encoder = mlp([features, *hidden, latent])
        self.decoder = mlp([latent, *reversed(hidden), features])
        self.estimation_network = mlp([dimensions, settings.estimation, settings.components], settings.dropout)
        self.density = GaussianMixture.unfitted(settings.components, dimensions)
        self.h = SCALE_FUNCTIONS[settings.h]
        self.lambda1 = settings.lambda1
        self.lambda2 = settings.lambda2
        self.variance_floor = settings.variance_floor

    def losses(self, x: Tensor) -> Losses:
        """Returns the three terms of Eq. (4) for a batch of shape (N, M)."""
        x = self.scaler(x)
        z = self.encoder(x)
        x_hat = self.decoder(z)
        x_check = self.decoder(z + self.noise(z))  # the paper's x with a check

        rate = -self.batch_density(x, z, x_hat)  # -log P(z), z without its noise
        distortion = self.h(squared_error(x, x_hat))  # h(D(x, x_hat))
        perturbation = squared_error(x_hat, x_check)  # D(x_hat, x_check)

        return Losses(rate, self.lambda1 * distortion, self.lambda2 * perturbation)

    @staticmethod
    def noise(z: Tensor) -> Tensor:
        """Draws epsilon, uniform on (-1/2, 1/2) and so of variance 1/12, of z's shape."""
        return torch.rand_like(z) - 0.5

    def batch_density(self, x: Tensor, z: Tensor, x_hat: Tensor) -> Tensor:
        """Returns log P(z) of shape (N,) under the mixture of this very batch, Eq. (18) and (19)."""
        y = self.density_features(x, z, x_hat)
        return GaussianMixture.from_responsibilities(y, self.responsibilities(y), self.variance_floor).log_prob(y)

    def density_features(self, x: Tensor, z: Tensor, x_hat: Tensor) -> Tensor:
        """Returns the latent with the residual features appended, (N, L + 2) in float64."""
        return torch.cat([z.double(), residual_features(x, x_hat).double()], dim=-1)

    def responsibilities(self, y: Tensor) -> Tensor:
        """Returns the estimation network's component memberships (N, K) in float64, Eq. (17)."""
        logits: Tensor = self.estimation_network(y.float())
        return torch.softmax(logits.double(), dim=-1)

    @torch.no_grad()
    def fit_density(self, x: Tensor) -> None:
        """Freezes the mixture over all training rows (N, M), with dropout off."""
        self.eval()
        y = self.scored_features(x)
        self.density = GaussianMixture.from_responsibilities(y, self.responsibilities(y), self.variance_floor)

    def encode(self, x: Tensor) -> Tensor:
        z: Tensor = self.encoder(self.scaler(x))
        return z

    def decode(self, z: Tensor) -> Tensor:
        return self.scaler.inverse(self.decoder(z))

    def score(self, x: Tensor) -> Tensor:
        return -self.density.log_prob(self.scored_features(x))

    def scored_features(self, x: Tensor) -> Tensor:
        """Returns the density's features of raw rows (N, M), their residuals taken in float64."""
        x = self.scaler(x)
        z = self.encoder(x)
        return self.density_features(x.double(), z, self.decoder(z).double())
