"""A Gaussian mixture whose parameters are trained by gradients, alone or stacked."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.densities.mixture import mixture_log_prob, precisions_cholesky


class LearnedMixture(nn.Module):
    r"""Creates `components` equal standard normals in `dimensions`, to be trained.

    The parameters are logits of the weights, means, and upper triangular :math:`U_k` with
    :math:`U_k U_k^T = \Sigma_k^{-1}`, their diagonals as logarithms, so that every value is a mixture.

    Arguments:
        components: The number of components K.
        dimensions: The number of dimensions D.
    """

    def __init__(self, components: int, dimensions: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(torch.zeros(components, dimensions))
        self.log_diagonals = nn.Parameter(torch.zeros(components, dimensions))
        self.above = nn.Parameter(torch.zeros(components, dimensions, dimensions))

    @property
    def precisions_cholesky(self) -> Tensor:
        """The triangular factors, of shape (..., K, D, D)."""
        return torch.triu(self.above, diagonal=1) + torch.diag_embed(self.log_diagonals.exp())

    def log_prob(self, y: Tensor) -> Tensor:
        """Returns log-densities (..., N) of rows (..., N, D), in nats."""
        return mixture_log_prob(y, torch.log_softmax(self.logits, dim=-1), self.means, self.precisions_cholesky)

    @torch.no_grad()
    def load(self, weights: Tensor, means: Tensor, covariances: Tensor) -> None:
        """Takes the parameters of a mixture: weights (K,), means (K, D) and covariances (K, D, D)."""
        factors = precisions_cholesky(covariances.double())
        self.logits.copy_(weights.log())
        self.means.copy_(means)
        self.log_diagonals.copy_(factors.diagonal(dim1=-2, dim2=-1).log())
        self.above.copy_(factors)

    def as_start(self) -> dict[str, NDArray[np.float64]]:
        """Returns the parameters as scikit-learn's mixture takes them to start from."""
        factors = self.precisions_cholesky.detach().double()
        return {
            "weights_init": torch.softmax(self.logits.detach().double(), dim=-1).numpy(),
            "means_init": self.means.detach().double().numpy(),
            "precisions_init": (factors @ factors.mT).numpy(),
        }
