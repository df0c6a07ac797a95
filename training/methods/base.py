"""What every method offers: to be trained, to be frozen, and then to score, encode and decode."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from training.densities.mixture import GaussianMixture
from training.draws import Draws
from training.preprocessing import Scaler

Losses = dict[str, Tensor]
"""The terms of a loss by name, each of shape (..., N) and weighted; the loss is the mean over N of their sum."""


class Method(nn.Module, ABC):
    """A method, with the scaler inside: all rows x go in, and come out, as raw feature values.

    It is trained in float32 and frozen in float64. The score is an energy, -log p: higher is more anomalous, and
    negative values are normal.
    """

    scaler: Scaler
    density: GaussianMixture
    latent: int

    @abstractmethod
    def losses(self, x: Tensor, draws: Draws) -> Losses:
        """Returns the terms of the training loss of a batch (..., N, M), of one member or of a stack of S."""

    @abstractmethod
    def fit_density(self, x: Tensor) -> None:
        """Freezes the density that scoring uses, computed once over all training rows (N, M)."""

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Returns latents (N, L) of rows (N, M)."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Returns rows (N, M) for latents (N, L)."""

    @abstractmethod
    def score(self, x: Tensor) -> Tensor:
        """Returns scores (N,) of rows (N, M). The score is an energy, -log p: higher is more anomalous."""


ROWS_AT_ONCE = 16_384


def by_parts(function: Callable[[Tensor], Tensor], x: Tensor, dim: int = 0) -> Tensor:
    """Returns function(x) for rows (N, M), never holding what it computes on the way for all rows at once.

    Arguments:
        function: What is computed of rows.
        x: The rows.
        dim: The axis of the result that runs over rows.
    """
    return torch.cat([function(part) for part in torch.split(x, ROWS_AT_ONCE)], dim=dim)
