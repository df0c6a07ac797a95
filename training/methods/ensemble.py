"""An ensemble: models trained on the same rows from different starts, and the mean of their scaled energies."""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.draws import Draws
from training.methods.base import Losses, Method, by_parts
from training.methods.stacking import stack

SMALLEST_RANGE = 1e-9
"""A member whose energies range less than this, for most rows are copies of one, keeps its own unit."""


class Ensemble(Method):
    r"""Creates an ensemble of fitted models.

    .. math:: s(x) = \frac1S \sum_s \frac{E_s(x) - \mathrm{median}_s}{\mathrm{iqr}_s}

    with each member's energy :math:`E_s` centred and scaled by its own median and interquartile range over the training
    rows: members' energies differ by offsets and units that say nothing about a row. Latents are the first member's.

    Arguments:
        members: The models, fitted on the same rows.
    """

    medians: Tensor
    ranges: Tensor

    def __init__(self, members: Sequence[Method]) -> None:
        super().__init__()
        self.first = members[0]
        self.scaler = self.first.scaler
        self.latent = self.first.latent
        self.stacked = stack(members)
        self.register_buffer("medians", torch.zeros(len(members), dtype=torch.float64))
        self.register_buffer("ranges", torch.ones(len(members), dtype=torch.float64))

    def losses(self, x: Tensor, draws: Draws) -> Losses:
        return self.stacked.losses(x, draws)

    @torch.no_grad()
    def fit_density(self, x: Tensor) -> None:
        """Computes each member's median and interquartile range over all training rows (N, M)."""
        energies = by_parts(self.energies, x, dim=-1)
        quartiles = torch.tensor([0.25, 0.5, 0.75], dtype=energies.dtype)
        low, self.medians, high = torch.stack([torch.quantile(own, quartiles) for own in energies], dim=-1)
        self.ranges = torch.where(high - low > SMALLEST_RANGE, high - low, torch.ones_like(low))

    def energies(self, x: Tensor) -> Tensor:
        """Returns each member's energies (S, N) of rows (N, M)."""
        return self.stacked.score(x)

    def encode(self, x: Tensor) -> Tensor:
        return self.first.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.first.decode(z)

    def score(self, x: Tensor) -> Tensor:
        return ((self.energies(x) - self.medians[:, None]) / self.ranges[:, None]).mean(dim=0)
