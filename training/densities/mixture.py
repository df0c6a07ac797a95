"""The Gaussian mixture whose parameters an estimation network predicts.

The functions take any leading axes, such as one over models that are trained together. Inside, rows come last: there
are many rows and few dimensions, and sums over the few are fast only if the many lie side by side.
"""

import math

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

SMALLEST_COUNT = 1e-12
"""A component owning fewer rows than this counts as owning this many, so that an empty one stays finite."""


def mixture_moments(y: Tensor, responsibilities: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Returns weights, means and covariances of a mixture from the rows' responsibilities.

    .. math::
        \hat\pi_k = \frac1N \sum_l \hat\gamma_{lk}, \quad
        \hat\mu_k = \frac{\sum_l \hat\gamma_{lk} y_l}{\sum_l \hat\gamma_{lk}}, \quad
        \hat\Sigma_k = \frac{\sum_l \hat\gamma_{lk} (y_l - \hat\mu_k)(y_l - \hat\mu_k)^T}{\sum_l \hat\gamma_{lk}}

    Computed as two matrix products, of moments about the mean of all rows.

    Arguments:
        y: Rows of shape (..., N, D).
        responsibilities: Component memberships of shape (..., N, K), each row summing to 1.

    Returns:
        Weights (..., K), means (..., K, D) and covariances (..., K, D, D).

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), Eq. (18)
    """
    gamma = responsibilities.mT
    dimensions = y.shape[-1]
    counts = gamma.sum(dim=-1).clamp_min(SMALLEST_COUNT)
    centre = y.detach().mean(dim=-2)
    centred = (y - centre[..., None, :]).mT
    means = gamma @ centred.mT / counts[..., None]
    weighted = gamma[..., :, None, :] * centred[..., None, :, :]
    second = (weighted.flatten(-3, -2) @ centred.mT).view(*means.shape, dimensions)
    covariances = second / counts[..., None, None] - means[..., :, None] * means[..., None, :]
    return counts / counts.sum(dim=-1, keepdim=True), means + centre[..., None, :], covariances


def precisions_cholesky(covariances: Tensor) -> Tensor:
    r"""Returns upper triangular :math:`U` with :math:`U U^T = \Sigma^{-1}`, NaN where :math:`\Sigma` is singular.

    Arguments:
        covariances: Covariances of shape (..., D, D).
    """
    lower, failed = torch.linalg.cholesky_ex(covariances)
    lower = torch.where(failed[..., None, None] > 0, torch.nan, lower)
    identity = torch.eye(covariances.shape[-1], dtype=covariances.dtype, device=covariances.device)
    inverse: Tensor = torch.linalg.solve_triangular(lower, identity.expand_as(lower), upper=False)
    return inverse.mT


def mixture_log_prob(y: Tensor, log_weights: Tensor, means: Tensor, precisions_cholesky: Tensor) -> Tensor:
    r"""Returns the log-density of each row under a Gaussian mixture.

    .. math:: \log \sum_k \hat\pi_k \, |2\pi\hat\Sigma_k|^{-1/2}
        \exp\left(-\tfrac12 (y - \hat\mu_k)^T \hat\Sigma_k^{-1} (y - \hat\mu_k)\right)

    Arguments:
        y: Rows of shape (..., N, D).
        log_weights: Logarithms of the component weights, of shape (..., K).
        means: Component means of shape (..., K, D).
        precisions_cholesky: Upper triangular :math:`U_k` of shape (..., K, D, D) with
            :math:`U_k U_k^T = \Sigma_k^{-1}`.

    Returns:
        Log-densities of shape (..., N), in nats.

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), Eq. (19), with the sign of a density
    """
    mahalanobis = whiten(y, means, precisions_cholesky).square().sum(dim=-2)
    return torch.logsumexp(log_constants(log_weights, precisions_cholesky)[..., None] - 0.5 * mahalanobis, dim=-2)


def whiten(y: Tensor, means: Tensor, precisions_cholesky: Tensor) -> Tensor:
    r"""Returns :math:`U_k^T (y - \mu_k)` of shape (..., K, D, N), for all components by one matrix product."""
    whitened = precisions_cholesky.mT.flatten(-3, -2) @ y.mT
    offsets = precisions_cholesky.mT @ means[..., None]
    return whitened.view(*means.shape, y.shape[-2]) - offsets


def log_constants(log_weights: Tensor, precisions_cholesky: Tensor) -> Tensor:
    r"""Returns :math:`\log \hat\pi_k |2\pi\hat\Sigma_k|^{-1/2}` of shape (..., K)."""
    log_determinants = precisions_cholesky.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
    return log_weights + log_determinants - 0.5 * precisions_cholesky.shape[-1] * math.log(2 * math.pi)


class _BatchRate(torch.autograd.Function):
    r"""The energies of rows under the mixture of these very rows, with their gradient in closed form.

    With :math:`s_{lk} = U_k^T (y_l - \mu_k)`, the posterior :math:`p_{lk}` of component k, the energies' cotangents
    :math:`w_l` and :math:`q_{lk} = w_l p_{lk}`, the cotangent of :math:`\Sigma_k` is :math:`U_k A_k U_k^T` with

    .. math:: A_k = \tfrac12 \left(\sum_l q_{lk} I - \sum_l q_{lk} s_{lk} s_{lk}^T\right) + L_k^T C_k L_k

    where :math:`C_k` is what reaches the covariances from elsewhere and :math:`L_k = U_k^{-T}`. That of
    :math:`y_l` is :math:`\sum_k U_k (q_{lk} s_{lk} + \frac{\gamma_{lk}}{n_k} (2 A_k s_{lk} - b_k))` with
    :math:`b_k = \sum_l q_{lk} s_{lk}`.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, y: Tensor, responsibilities: Tensor, floors: Tensor) -> tuple[Tensor, Tensor]:
        gamma = responsibilities.mT.contiguous()
        weights, means, covariances = mixture_moments(y, responsibilities)
        covariances = covariances + torch.diag(floors)
        upper = precisions_cholesky(covariances)
        whitened = whiten(y, means, upper)
        exponents = log_constants(weights.log(), upper)[..., None] - 0.5 * whitened.square().sum(dim=-2)
        log_density = torch.logsumexp(exponents, dim=-2)
        posterior = exponents.sub_(log_density[..., None, :]).exp_()
        ctx.save_for_backward(gamma, floors, upper, covariances, whitened, posterior)
        return -log_density, covariances

    @staticmethod
    def backward(ctx: FunctionCtx, of_rate: Tensor, of_covariances: Tensor) -> tuple[Tensor, Tensor, None]:
        gamma, floors, upper, covariances, whitened, posterior = ctx.saved_tensors  # type: ignore[attr-defined]
        counts = gamma.sum(dim=-1).clamp_min(SMALLEST_COUNT)
        q = posterior * of_rate[..., None, :]
        total = q.sum(dim=-1)
        weighted = q[..., None, :] * whitened
        b = weighted.sum(dim=-1)
        a = -0.5 * (weighted @ whitened.mT)
        a.diagonal(dim1=-2, dim2=-1).add_(0.5 * total[..., None])
        lower = covariances @ upper
        a = a + lower.mT @ (0.5 * (of_covariances + of_covariances.mT)) @ lower
        bent = 2 * a @ whitened - b[..., None]
        of_gamma = 0.5 * ((whitened * bent).sum(dim=-2) - (b[..., None, :] @ whitened).squeeze(-2))
        floored = (upper @ a @ upper.mT * torch.diag(floors)).sum(dim=(-2, -1))  # the floor is no row's
        constant = a.diagonal(dim1=-2, dim2=-1).sum(dim=-1) - floored + total  # the last one through the weights
        of_gamma = (of_gamma - constant[..., None]) / counts[..., None]
        share = (gamma / counts[..., None])[..., None, :]
        of_y = torch.addcmul(weighted, bent, share).flatten(-3, -2).mT @ upper.mT.flatten(-3, -2)
        return of_y, of_gamma.mT, None


def batch_rate(y: Tensor, responsibilities: Tensor, floors: Tensor) -> tuple[Tensor, Tensor]:
    """Returns what rows cost under the mixture of these very rows, and the covariances of that mixture.

    Arguments:
        y: Rows of shape (..., N, D).
        responsibilities: Component memberships of shape (..., N, K), each row summing to 1.
        floors: What is added to each variance, of shape (D,).

    Returns:
        Energies (..., N) in nats, NaN where a covariance is singular, and covariances (..., K, D, D).

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), Eq. (18) and (19)
    """
    rate, covariances = _BatchRate.apply(y, responsibilities, floors)  # type: ignore[no-untyped-call]
    return rate, covariances


class GaussianMixture(nn.Module):
    r"""Creates a Gaussian mixture with full covariances, ready to evaluate.

    What scoring needs is kept as buffers: ONNX has no Cholesky decomposition, so it happens here.

    Arguments:
        weights: Component weights of shape (K,).
        means: Component means of shape (K, D).
        covariances: Component covariances of shape (K, D, D).

    Raises:
        torch.linalg.LinAlgError: A covariance is not positive definite.
    """

    log_weights: Tensor
    means: Tensor
    precisions_cholesky: Tensor

    def __init__(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        super().__init__()
        precisions = precisions_cholesky(covariances)
        if precisions.isnan().any():
            raise LinAlgError("a covariance is not positive definite")
        self.register_buffer("log_weights", weights.log())
        self.register_buffer("means", means)
        self.register_buffer("precisions_cholesky", precisions)

    @classmethod
    def unfitted(cls, components: int, dimensions: int) -> "GaussianMixture":
        """Creates `components` equal standard normals in `dimensions` (float64): a place to load a state into."""
        weights = torch.full((components,), 1 / components, dtype=torch.float64)
        means = torch.zeros(components, dimensions, dtype=torch.float64)
        return cls(weights, means, torch.eye(dimensions, dtype=torch.float64).expand(components, -1, -1))

    @property
    def covariances(self) -> Tensor:
        """The covariances, of shape (K, D, D)."""
        covariances: Tensor = torch.linalg.inv(self.precisions_cholesky @ self.precisions_cholesky.mT)
        return covariances

    def log_prob(self, y: Tensor) -> Tensor:
        """Returns log-densities (N,) of rows (N, D), in nats."""
        return mixture_log_prob(y, self.log_weights, self.means, self.precisions_cholesky)
