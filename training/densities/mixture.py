"""The Gaussian mixture whose parameters an estimation network predicts."""

import math

import torch
from torch import Tensor, nn

SMALLEST_COUNT = 1e-12
"""A component owning fewer rows than this counts as owning this many, so that an empty one stays finite."""


def mixture_moments(y: Tensor, responsibilities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Returns weights, means and covariances of a mixture from the rows' responsibilities.

    .. math::
        \hat\pi_k = \frac1N \sum_l \hat\gamma_{lk}, \quad
        \hat\mu_k = \frac{\sum_l \hat\gamma_{lk} y_l}{\sum_l \hat\gamma_{lk}}, \quad
        \hat\Sigma_k = \frac{\sum_l \hat\gamma_{lk} (y_l - \hat\mu_k)(y_l - \hat\mu_k)^T}{\sum_l \hat\gamma_{lk}}

    Arguments:
        y: Rows of shape (N, D).
        responsibilities: Component memberships of shape (N, K), each row summing to 1.

    Returns:
        Weights (K,), means (K, D) and covariances (K, D, D).

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), Eq. (18)
    """
    counts = responsibilities.sum(dim=0).clamp_min(SMALLEST_COUNT)
    weights = counts / counts.sum()
    means = responsibilities.mT @ y / counts[:, None]
    centred = y - means[:, None]
    weighted = responsibilities.mT[:, :, None] * centred
    covariances = weighted.mT @ centred / counts[:, None, None]
    return weights, means, covariances


def mixture_log_prob(y: Tensor, log_weights: Tensor, means: Tensor, precisions_cholesky: Tensor) -> Tensor:
    r"""Returns the log-density of each row under a Gaussian mixture.

    .. math:: \log \sum_k \hat\pi_k \, |2\pi\hat\Sigma_k|^{-1/2}
        \exp\left(-\tfrac12 (y - \hat\mu_k)^T \hat\Sigma_k^{-1} (y - \hat\mu_k)\right)

    Arguments:
        y: Rows of shape (N, D).
        log_weights: Logarithms of the component weights, of shape (K,).
        means: Component means of shape (K, D).
        precisions_cholesky: Upper triangular :math:`U_k` of shape (K, D, D) with :math:`U_k U_k^T = \Sigma_k^{-1}`.

    Returns:
        Log-densities of shape (N,), in nats.

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), Eq. (19), with the sign of a density
    """
    whitened = (y - means[:, None]) @ precisions_cholesky
    mahalanobis = whitened.square().sum(dim=-1)
    log_determinants = precisions_cholesky.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
    constants = log_weights + log_determinants - 0.5 * means.shape[-1] * math.log(2 * math.pi)
    return torch.logsumexp(constants[:, None] - 0.5 * mahalanobis, dim=0)


class GaussianMixture(nn.Module):
    r"""Creates a Gaussian mixture with full covariances, ready to evaluate.

    What scoring needs is kept as buffers: ONNX has no Cholesky decomposition, so it happens here.

    Arguments:
        weights: Component weights of shape (K,).
        means: Component means of shape (K, D).
        covariances: Component covariances of shape (K, D, D).
        variance_floor: The value added to each variance, :math:`\Sigma_k + f I`.

    Raises:
        torch.linalg.LinAlgError: A covariance is not positive definite, even with its floor.
    """

    log_weights: Tensor
    means: Tensor
    precisions_cholesky: Tensor

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor, variance_floor: float = 0.0) -> None:
        super().__init__()
        identity = torch.eye(means.shape[-1], dtype=means.dtype, device=means.device)
        cholesky = torch.linalg.cholesky(covariances + variance_floor * identity)
        self.register_buffer("log_weights", weights.log())
        self.register_buffer("means", means)
        self.register_buffer("precisions_cholesky", torch.linalg.solve_triangular(cholesky, identity, upper=False).mT)

    @classmethod
    def from_responsibilities(
        cls, y: Tensor, responsibilities: Tensor, variance_floor: float = 0.0
    ) -> "GaussianMixture":
        """Fits the mixture in closed form to rows (N, D) with responsibilities (N, K), Eq. (18)."""
        return cls(*mixture_moments(y, responsibilities), variance_floor=variance_floor)

    @classmethod
    def unfitted(cls, components: int, dimensions: int) -> "GaussianMixture":
        """Creates `components` equal standard normals in `dimensions` (float64): a place to load a state into."""
        weights = torch.full((components,), 1 / components, dtype=torch.float64)
        means = torch.zeros(components, dimensions, dtype=torch.float64)
        return cls(weights, means, torch.eye(dimensions, dtype=torch.float64).expand(components, -1, -1))

    @property
    def covariances(self) -> Tensor:
        """The covariances with their floor, of shape (K, D, D)."""
        covariances: Tensor = torch.linalg.inv(self.precisions_cholesky @ self.precisions_cholesky.mT)
        return covariances

    def log_prob(self, y: Tensor) -> Tensor:
        """Returns log-densities (N,) of rows (N, D), in nats."""
        return mixture_log_prob(y, self.log_weights, self.means, self.precisions_cholesky)
