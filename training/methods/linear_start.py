"""RaDOGAGA for tables that nobody has tuned it for: it starts from the best linear answer, and improves on it."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from training.densities.codebook import Codebook
from training.densities.em import fit_mixture, moments_of
from training.densities.learned_mixture import LearnedMixture
from training.densities.mixture import GaussianMixture
from training.distances import squared_error
from training.draws import Draws
from training.methods.base import Losses, Method, by_parts
from training.methods.ensemble import Ensemble
from training.methods.mixture_autoencoder import NOISE_VARIANCE
from training.nn.mlp import MLP, Linear
from training.preprocessing import Scaler
from training.settings import Settings

WIDE = 1024
"""Columns beyond which a table's covariance is more work than its largest components."""


class Coder(nn.Module):
    """Creates an encoder or a decoder: an affine map, and a network that adds to it what is not linear.

    The network's last layer starts at zero, so that the whole starts as the affine map.

    Arguments:
        inputs: The width of the input.
        hidden: The widths of the network's hidden layers.
        outputs: The width of the output.
    """

    def __init__(self, inputs: int, hidden: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.affine = Linear(inputs, outputs)
        self.network = MLP([inputs, *hidden, outputs])
        nn.init.zeros_(self.network.last.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Maps rows of shape (..., N, inputs) to (..., N, outputs)."""
        y: Tensor = self.affine(x) + self.network(x)
        return y


class LinearStartRaDOGAGA(Method):
    r"""Creates a RaDOGAGA model that starts as the Karhunen-Loeve transform with a Gaussian mixture over it.

    .. math:: L = -\log P_z(z + \epsilon) + \lambda D(x, \hat{x}) + \lambda D(\hat{x}, \check{x})

    In the linear case this loss is least for the principal components of x, each scaled by
    :math:`\sqrt{2 \lambda / 12}` (Appendix D): so encoder and decoder begin there, and what training adds is what is
    not linear. P_z is a mixture whose parameters are trained with the rest, where the paper has an estimation network
    predict them; it begins as expectation maximisation fits it to the first latents.

    A row scores what it costs: its rate under the frozen mixture, and :math:`\lambda` times its distortion, which
    stands for what lies off the manifold. A deviation that the latent doesn't hold and one that it holds as noise of
    variance 1/12 then count the same.

    Arguments:
        scaler: The scaler, fitted on the training rows.
        settings: Sizes and weights.

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), Eq. (1) to (4) and Appendix D
    """

    density: GaussianMixture

    def __init__(self, scaler: Scaler, settings: Settings) -> None:
        super().__init__()
        self.scaler, self.settings, self.latent = scaler, settings, settings.latent
        self.encoder = Coder(scaler.features, settings.hidden, settings.latent)
        self.decoder = Coder(settings.latent, settings.hidden[::-1], scaler.features)
        self.prior = LearnedMixture(settings.components, settings.latent)
        self.density = GaussianMixture.unfitted(settings.components, settings.latent)

    @torch.no_grad()
    def start(self, x: Tensor, seed: int) -> None:
        """Puts encoder, decoder and mixture where the linear case has its optimum for training rows (N, M)."""
        y = self.scaler(x).double()
        centre, _, kept = principal(y, self.latent)
        unit = latent_unit(self.settings.lambda2)
        self.encoder.affine.weight.copy_(kept * unit)
        self.encoder.affine.bias.copy_(-centre @ kept * unit)
        self.decoder.affine.weight.copy_(kept.T / unit)
        self.decoder.affine.bias.copy_(centre)
        z = (y - centre) @ kept * unit
        self.prior.load(*moments_of(fit_mixture(z, self.settings.components, NOISE_VARIANCE, seed)))

    def losses(self, x: Tensor, draws: Draws) -> Losses:
        """Returns the three terms of the loss for a batch of shape (..., N, M)."""
        s = self.settings
        x = self.scaler(x)
        z = self.encoder(x)
        z_noisy = z + draws.uniform(*z.shape[-2:]).reshape(z.shape) - 0.5
        x_hat, x_check = self.decoder(z), self.decoder(z_noisy)
        return {
            "rate": -self.prior.log_prob(z_noisy),
            "distortion": s.lambda1 * squared_error(x, x_hat),
            "perturbation": s.lambda2 * squared_error(x_hat, x_check),
        }

    @torch.no_grad()
    def fit_density(self, x: Tensor) -> None:
        """Freezes the mixture: expectation maximisation over all training rows (N, M), from where training left it.

        Raises:
            torch.linalg.LinAlgError: A covariance is not positive definite.
        """
        z = by_parts(self.encode, x)
        found = fit_mixture(z, self.settings.components, NOISE_VARIANCE, seed=0, start=self.prior.as_start())
        self.density = GaussianMixture(*moments_of(found))

    def widen(self, components: int) -> None:
        """Splits components of the mixture into equal ones until there are so many; the density stays what it is.

        So fitted models of different numbers of components can be stacked.
        """
        own = torch.arange(components) % self.settings.components
        weights = self.density.log_weights.exp()[own] / torch.bincount(own)[own]
        self.density = GaussianMixture(weights, self.density.means[own], self.density.covariances[own])
        self.prior = LearnedMixture(components, self.latent)
        self.settings = replace(self.settings, components=components)

    def encode(self, x: Tensor) -> Tensor:
        z: Tensor = self.encoder(self.scaler(x))
        return z

    def decode(self, z: Tensor) -> Tensor:
        return self.scaler.inverse(self.decoder(z))

    def score(self, x: Tensor) -> Tensor:
        return self.distortion(x) - self.density.log_prob(self.encode(x).double())

    def distortion(self, x: Tensor) -> Tensor:
        """Returns the weighted distortion (..., N) of rows (N, M), in nats."""
        x = self.scaler(x)
        return self.settings.lambda1 * squared_error(x, self.decoder(self.encoder(x)))


class CodedEnsemble(Ensemble):
    """Creates an ensemble of fitted models, in which the distance to the nearest centre has a voice, too.

    A mixture with full covariances needs many rows for each component; centres need few, and tell apart what it smooths
    over. They are those of the first member's latent, and its distortion is added.

    Arguments:
        members: The models, fitted on the same rows.
        codebook: The centres.
    """

    first: LinearStartRaDOGAGA

    def __init__(self, members: Sequence[LinearStartRaDOGAGA], codebook: Codebook) -> None:
        super().__init__(members)
        self.codebook = codebook

    def energies(self, x: Tensor) -> Tensor:
        """Returns the energies (S + 1, N) of rows (N, M), the last by the centres."""
        by_centres = self.codebook.energy(self.first.encode(x)) + self.first.distortion(x)
        return torch.cat([super().energies(x), by_centres[None]])


def principal(y: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Finds the principal components of rows.

    Arguments:
        y: Rows (N, M).
        most: How many components are wanted, at most.

    Returns:
        The centre (M,), the components' variances (C,), falling, and their directions in columns (M, C), in float64.
        Of more than `WIDE` columns they are found by a randomised singular value decomposition, always the same one.
    """
    centre = y.double().mean(dim=0)
    centred = y.double() - centre
    if y.shape[1] <= WIDE:
        variances, directions = torch.linalg.eigh(centred.mT @ centred / len(y))
        return centre, variances.flip(0)[:most], directions.flip(1)[:, :most]
    found = PCA(min(most, *y.shape), svd_solver="randomized", random_state=0).fit(centred.numpy())
    variances, directions = torch.from_numpy(found.explained_variance_), torch.from_numpy(found.components_)
    return centre, variances * (len(y) - 1) / len(y), directions.mT


def latent_unit(lambda2: float) -> float:
    r"""Returns how many latent units a unit of a scaled feature becomes, :math:`\sqrt{2\lambda_2/12}`."""
    return math.sqrt(2 * lambda2 * NOISE_VARIANCE)
