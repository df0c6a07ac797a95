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

    Moments, their Cholesky factors and what they whiten are computed in float64. A whitened row is of the size of 1,
    so what follows from it is computed in the type of the rows. Inside, rows come last; where components are apart,
    they share the first axis with the members, (S K, ...).
    """

    @staticmethod
    def forward(ctx: FunctionCtx, y: Tensor, logits: Tensor, floors: Tensor) -> tuple[Tensor, Tensor]:
        (members, rows, d), k = y.shape, logits.shape[-1]
        gamma = softmax_over_components(logits.mT.contiguous())
        exact = y.mT.contiguous().double()
        centred = with_ones(exact - exact.mean(dim=-1, keepdim=True))
        weighted = (gamma.double()[:, :, None] * centred[:, None]).view(members, k * (d + 1), rows)
        moments = torch.bmm(weighted, centred.mT).view(members * k, d + 1, d + 1)
        counts = moments[:, d, d].clamp_min(SMALLEST_COUNT)[:, None]
        means = moments[:, :d, d] / counts
        second = (moments[:, :d, :d] / counts[..., None]).add_(torch.diag(floors))
        covariances = second.baddbmm_(means[..., None], means[:, None], alpha=-1)
        upper = precisions_cholesky(covariances)
        # U^T (y - mu) as one product, which the row of ones below y makes possible
        whitening = torch.cat([upper.mT, torch.bmm(upper.mT, -means[..., None])], dim=-1).view(members, k * d, d + 1)
        whitened = torch.bmm(whitening, centred).to(y.dtype).view(members, k, d, rows)
        constants = log_constants((counts[:, 0] / rows).log(), upper).to(y.dtype).view(members, k, 1)
        exponents = torch.sub(constants, whitened.square().sum(dim=2), alpha=0.5)
        largest = exponents.amax(dim=1, keepdim=True)
        posterior = exponents.sub_(largest).exp_()
        density = posterior.sum(dim=1, keepdim=True)
        posterior.div_(density)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(gamma, counts, floors, upper, covariances, whitened, posterior)
        return -density.log_().add_(largest)[:, 0], covariances.view(members, k, d, d)

    @staticmethod
    def backward(
        ctx: FunctionCtx, of_rate: Tensor | None, of_covariances: Tensor | None
    ) -> tuple[Tensor, Tensor, None]:
        gamma, counts, floors, upper, covariances, whitened, posterior = ctx.saved_tensors  # type: ignore[attr-defined]
        members, k, d, rows = whitened.shape
        q = posterior * of_rate[:, None] if of_rate is not None else torch.zeros_like(posterior)
        total = q.sum(dim=-1).view(-1, 1)
        weighted = (q[:, :, None] * whitened).view(-1, d, rows)
        whitened = whitened.view(-1, d, rows)
        b = weighted.sum(dim=-1)
        a = torch.bmm(weighted, whitened.mT).mul_(-0.5)
        a.diagonal(dim1=-2, dim2=-1).add_(total, alpha=0.5)
        if of_covariances is not None:
            lower, c = covariances @ upper, of_covariances.reshape(-1, d, d)
            a = a + (lower.mT @ (0.5 * (c + c.mT)) @ lower).to(a.dtype)
        bent = torch.baddbmm(b[..., None], a, whitened, beta=-1, alpha=2)
        of_gamma = (whitened * bent).sum(dim=1).sub_(torch.bmm(b[:, None], whitened)[:, 0]).mul_(0.5)
        upper, counts = upper.to(a.dtype), counts.to(a.dtype)
        floored = (torch.bmm(upper, a) * upper * floors.to(a.dtype)[:, None]).sum(dim=(-2, -1))  # the floor is no row's
        constant = a.diagonal(dim1=-2, dim2=-1).sum(dim=-1) - floored + total[:, 0]  # the last one through the weights
        of_gamma = of_gamma.sub_(constant[:, None]).div_(counts).view(gamma.shape)
        of_logits = gamma * (of_gamma - (gamma * of_gamma).sum(dim=1, keepdim=True))
        share = gamma.view(-1, 1, rows) / counts[..., None]
        of_whitened = weighted.addcmul_(bent, share).view(members, k * d, rows)
        of_y = torch.bmm(upper.view(members, k, d, d).transpose(1, 2).reshape(members, d, k * d), of_whitened)
        return of_y.mT, of_logits.mT, None


def with_ones(y: Tensor) -> Tensor:
    """Returns values (S, D, N) with a row of ones below them, so that products of rows have their sums, too."""
    return nn.functional.pad(y, (0, 0, 0, 1), value=1.0)


def softmax_over_components(logits: Tensor) -> Tensor:
    """Returns memberships (..., K, N) for logits (..., K, N): torch's softmax is slow where rows come last."""
    exponentials = (logits - logits.amax(dim=-2, keepdim=True)).exp_()
    return exponentials.div_(exponentials.sum(dim=-2, keepdim=True))


def batch_rate(y: Tensor, logits: Tensor, floors: Tensor) -> tuple[Tensor, Tensor]:
    """Returns what rows cost under the mixture of these very rows, and the covariances of that mixture.

    Arguments:
        y: Rows of shape (N, D), or (S, N, D) of a stack.
        logits: Logits of the component memberships, of shape (N, K) or (S, N, K).
        floors: What is added to each variance, of shape (D,).

    Returns:
        Energies (..., N) in nats, NaN where a covariance is singular, and covariances (..., K, D, D) in float64.

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), Eq. (18) and (19)
    """
    if y.dim() == 2:
        rate, covariances = batch_rate(y[None], logits[None], floors)
        return rate[0], covariances[0]
    rate, covariances = _BatchRate.apply(y, logits, floors)  # type: ignore[no-untyped-call]
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
