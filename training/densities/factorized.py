"""Densities of independent latent features, each learned through its distribution function."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn

from training.nn.bounds import lower_bound
from training.nn.exportable import log_sigmoid, softplus

FILTERS = (3, 3, 3)
"""The widths between the layers of a distribution function, as in Ballé et al. (2018)."""

INITIAL_SCALE = 10.0
"""About how wide a fresh density is."""

LEAST_STEP = 1e-6
"""The least difference of log-probabilities at two ends of a unit interval: far out, float32 finds none."""


class Univariate(Protocol):
    """Densities of L independent features that know their distribution functions, on both sides."""

    def log_cdf(self, y: Tensor) -> Tensor:
        """Returns log P(Y <= y), of y's shape (..., N, L)."""

    def log_survival(self, y: Tensor) -> Tensor:
        """Returns log P(Y > y), of y's shape (..., N, L)."""


class DeepFactorized(nn.Module):
    r"""Creates the densities of L independent features, each with a small network as its distribution function.

    .. math:: c = \sigma \circ f_K \circ \dots \circ f_1, \quad f_k(x) = g_k(H_k x + b_k), \quad
        g_k(x) = x + \tanh(a_k) \odot \tanh(x)

    with H_k positive by softplus and no g after the last layer. All parameters may have a leading member axis.

    Arguments:
        dimensions: The number of features L.
        filters: The widths between the layers.
        scale: About how wide a fresh density is.

    References:
        Variational Image Compression with a Scale Hyperprior (Ballé et al., 2018), appendix 6.1
        https://arxiv.org/abs/1802.01436
    """

    def __init__(self, dimensions: int, filters: Sequence[int] = FILTERS, scale: float = INITIAL_SCALE) -> None:
        super().__init__()
        widths = [1, *filters, 1]
        layers = len(widths) - 1
        slope = scale ** (-1 / layers)
        matrices, biases, factors = [], [], []
        for inputs, outputs in pairwise(widths):
            start = torch.tensor(slope / outputs).expm1().log()  # softplus of it is slope / outputs
            matrices.append(nn.Parameter(start.expand(dimensions, outputs, inputs).clone()))
            biases.append(nn.Parameter(torch.empty(dimensions, outputs, 1).uniform_(-0.5, 0.5)))
            factors.append(nn.Parameter(torch.zeros(dimensions, outputs, 1)))
        self.dimensions = dimensions
        self.matrices = nn.ParameterList(matrices)
        self.biases = nn.ParameterList(biases)
        self.factors = nn.ParameterList(factors[:-1])

    def logits(self, y: Tensor) -> Tensor:
        """Returns the log-odds of P(Y <= y), which grow with y, of y's shape (..., N, L)."""
        x = y.mT.unsqueeze(-2)  # (..., L, 1, N)
        for layer, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            x = softplus(matrix) @ x + bias
            if layer < len(self.factors):
                x = x + self.factors[layer].tanh() * x.tanh()
        return x.squeeze(-2).mT

    def log_cdf(self, y: Tensor) -> Tensor:
        """Returns log P(Y <= y), of y's shape (..., N, L)."""
        return log_sigmoid(self.logits(y))

    def log_survival(self, y: Tensor) -> Tensor:
        """Returns log P(Y > y), of y's shape (..., N, L)."""
        return log_sigmoid(-self.logits(y))


class UniformNoise(nn.Module):
    r"""Creates the densities of features to which uniform noise on (-1/2, 1/2) is added.

    .. math:: \tilde p(y) = c(y + \tfrac12) - c(y - \tfrac12)

    The difference is taken between logarithms, and on the side of c where it does not cancel, so that the rate goes on
    growing in the far tails.

    Arguments:
        density: Densities without the noise, a module.

    References:
        Variational Image Compression with a Scale Hyperprior (Ballé et al., 2018), appendix 6.2
        https://arxiv.org/abs/1802.01436
    """

    def __init__(self, density: Univariate) -> None:
        super().__init__()
        self.density = density

    def log_prob_by_feature(self, y: Tensor) -> Tensor:
        """Returns the log-density of each value (..., N, L), in nats."""
        lower, upper = y - 0.5, y + 0.5
        cdf, survival = self.density.log_cdf(upper), self.density.log_survival(lower)
        left = cdf < survival  # below the median: c(upper) - c(lower), above it the same of 1 - c
        larger = torch.where(left, cdf, survival)
        smaller = torch.where(left, self.density.log_cdf(lower), self.density.log_survival(upper))
        return larger + (-torch.expm1(-lower_bound(larger - smaller, LEAST_STEP))).log()

    def log_prob(self, y: Tensor) -> Tensor:
        """Returns log-densities (..., N) of rows (..., N, L), in nats."""
        return self.log_prob_by_feature(y).sum(dim=-1)

    def rate(self, y: Tensor) -> Tensor:
        """Returns -log p of rows (..., N, L), in nats, of shape (..., N)."""
        return -self.log_prob(y)

    def forward(self, y: Tensor) -> Tensor:
        """Returns the rate."""
        return self.rate(y)
