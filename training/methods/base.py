"""What every method offers: to be trained, to be frozen, and then to score, encode and decode."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from training.preprocessing import MinMax


class Losses(NamedTuple):
    """The three terms of the loss, each of shape (N,) and already weighted, in nats where they are comparable."""

    rate: Tensor
    distortion: Tensor
    perturbation: Tensor

    @property
    def total(self) -> Tensor:
        """The expectation over the batch of the sum of the terms, a scalar."""
        return (self.rate + self.distortion + self.perturbation).mean()


class Method(nn.Module, ABC):
    """A method, with the scaler inside: all rows x go in, and come out, as raw feature values.

    The score is an energy, -log p: higher is more anomalous, and negative values are normal.
    """

    scaler: MinMax

    @abstractmethod
    def losses(self, x: Tensor) -> Losses:
        """Returns the training loss of a batch (N, M)."""

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
