"""What every method offers: to be trained, to be frozen, and then to score, encode and decode."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from training.draws import Draws
from training.preprocessing import Scaler

ROWS_AT_ONCE = 16_384

Losses = dict[str, Tensor]
"""The terms of a loss by name, each of shape (..., N) and weighted; the loss is the mean over N of their sum."""


class Method(nn.Module, ABC):
    """A method, with the scaler inside: all rows x go in, and come out, as raw feature values.

    It is trained in float32 and frozen in `frozen_dtype`. The score is an energy, -log p: higher is more anomalous, and
    negative values are normal.
    """

    frozen_dtype: ClassVar[torch.dtype] = torch.float64
    rows_at_once: ClassVar[int] = ROWS_AT_ONCE

    scaler: Scaler
    density: nn.Module
    latent: int

    def advice(self, term: str) -> str:  # noqa: ARG002
        """Returns what to look at if a term of the loss is not finite, to be put behind that message; or nothing."""
        return ""

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


def by_parts(function: Callable[[Tensor], Tensor], x: Tensor, dim: int = 0, rows_at_once: int = ROWS_AT_ONCE) -> Tensor:
    """Returns function(x) for rows (N, M), never holding what it computes on the way for all rows at once.

    Arguments:
        function: What is computed of rows.
        x: The rows.
        dim: The axis of the result that runs over rows.
        rows_at_once: The most rows that a part has.
    """
    return torch.cat([function(part) for part in torch.split(x, rows_at_once)], dim=dim)
