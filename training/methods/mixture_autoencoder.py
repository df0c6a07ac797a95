"""What RaDOGAGA and DAGMM share: an autoencoder, and a Gaussian mixture over its latent."""

from abc import abstractmethod

import torch
from torch import Tensor

from training.densities.mixture import GaussianMixture, batch_rate, mixture_moments
from training.draws import Draws
from training.methods.base import ROWS_AT_ONCE, Losses, Method, by_parts
from training.nn.mlp import MLP, EstimationNetwork
from training.preprocessing import Scaler
from training.residuals import RESIDUAL_FEATURES, compare
from training.settings import Settings

NOISE_VARIANCE = 1 / 12
"""The variance of the uniform noise on (-1/2, 1/2)."""


class MixtureAutoencoder(Method):
    """Creates an autoencoder whose latent a Gaussian mixture describes.

    The mixture is over z and two residual features, its memberships predicted by an estimation network. In training
    it is computed per batch; for scoring, once over all training rows. It is evaluated in float64, for the residuals
    carry no noise and their variance shrinks until float32 has no Cholesky factor of it.

    Arguments:
        scaler: The scaler, fitted on the training rows.
        settings: Sizes and weights; the rest of the settings belongs to the fit.

    References:
        | Deep Autoencoding Gaussian Mixture Model (Zong et al., 2018), section 3
        | Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), sections 4.1.1 and 4.2.3
    """

    density: GaussianMixture

    def __init__(self, scaler: Scaler, settings: Settings) -> None:
        super().__init__()
        features, hidden, latent = scaler.features, settings.hidden, settings.latent
        dimensions = latent + (RESIDUAL_FEATURES if settings.residuals else 0)
        self.latent = latent
        self.scaler = scaler
        self.encoder = MLP([features, *hidden, latent])
        self.decoder = MLP([latent, *reversed(hidden), features])
        self.estimation_network = EstimationNetwork(
            dimensions, settings.estimation, settings.components, settings.dropout
        )
        self.density = GaussianMixture.unfitted(settings.components, dimensions)
        self.settings = settings

    def advice(self, term: str) -> str:
        floor = self.settings.variance_floor
        return f"; if a covariance is singular, variance_floor {floor} is too small" if term == "rate" else ""

    @property
    def rate_weight(self) -> float:
        """What the loss multiplies the rate by."""
        return 1.0

    @abstractmethod
    def losses(self, x: Tensor, draws: Draws) -> Losses: ...

    def density_features(self, z: Tensor, relative_distance: Tensor, cosine: Tensor) -> Tensor:
        """Returns the latent (..., N, L) with the residual features (..., N) appended, of shape (..., N, D)."""
        if not self.settings.residuals:
            return z
        return torch.cat([z.mT, relative_distance[..., None, :], cosine[..., None, :]], dim=-2).mT

    def responsibilities(self, y: Tensor) -> Tensor:
        """Returns the estimation network's component memberships (..., N, K) in float64, without dropout, Eq. (17)."""
        return torch.softmax(self.estimation_network(y.to(self.estimation_network.last.weight.dtype)).double(), dim=-1)

    def batch_rate(self, y: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """Returns -log P(z) (..., N) and the covariances of the mixture of this very batch, Eq. (17) to (19)."""
        return batch_rate(y, self.estimation_network(y, draws), self.variance_floors(0.0))

    def variance_floors(self, latent: float) -> Tensor:
        """Returns what is added to variances (D,): the floor, and `latent` on top for those of the latent."""
        floors = torch.full((self.density.means.shape[-1],), self.settings.variance_floor, dtype=torch.float64)
        floors[: self.latent] += latent
        return floors

    @torch.no_grad()
    def fit_density(self, x: Tensor) -> None:
        """Freezes the mixture over all training rows (N, M), without dropout.

        If the rate was taken at the noisy latent, the noise's variance is added to the latent's.

        Raises:
            torch.linalg.LinAlgError: A covariance is not positive definite, even with its floor.
        """
        y = by_parts(self.scored_features, x)
        weights, means, covariances = mixture_moments(y, self.responsibilities(y))
        floors = self.variance_floors(NOISE_VARIANCE if self.settings.rate_at == "noisy" else 0.0)
        self.density = GaussianMixture(weights, means, covariances + torch.diag(floors))

    def encode(self, x: Tensor) -> Tensor:
        z: Tensor = self.encoder(self.scaler(x))
        return z

    def decode(self, z: Tensor) -> Tensor:
        return self.scaler.inverse(self.decoder(z))

    def score(self, x: Tensor) -> Tensor:
        return -self.density.log_prob(self.scored_features(x))

    @torch.no_grad()
    def frozen_terms(self, x: Tensor) -> dict[str, float]:
        """Returns the mean of each term of the loss over rows (N, M), its rate under the frozen mixture."""
        draws, totals = Draws([0]), dict[str, float]()
        for part in torch.split(x, ROWS_AT_ONCE):
            losses = {**self.losses(part, draws), "rate": self.rate_weight * self.score(part)}
            for name, term in losses.items():
                totals[name] = totals.get(name, 0.0) + float(term.sum())
        return {name: total / len(x) for name, total in totals.items()}

    def scored_features(self, x: Tensor) -> Tensor:
        """Returns the density's features (N, D) of raw rows (N, M), in float64."""
        x = self.scaler(x)
        z = self.encoder(x)
        _, *residuals = compare(x, self.decoder(z))
        return self.density_features(z, *residuals).double()
