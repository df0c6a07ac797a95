"""Rows of a latent by the nearest of some centres: what is left of a density where there are too few rows for one."""

import warnings

import torch
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor, nn


class Codebook(nn.Module):
    r"""Creates centres that rows are told by.

    .. math:: E(z) = \min_c \|z - c\|^2 / (2 v)

    is the energy of the likeliest of normal distributions around the centres, all with the same weight and the same
    variance v in each dimension, but for a constant. Distances in a latent that is isometric to the data mean the same
    everywhere, so that one variance does for all.

    Arguments:
        centres: The centres (C, D), in float64.
        variance: The variance v, of shape (1,), in float64.
    """

    centres: Tensor
    variance: Tensor

    def __init__(self, centres: Tensor, variance: Tensor) -> None:
        super().__init__()
        self.register_buffer("centres", centres)
        self.register_buffer("variance", variance)

    @classmethod
    def fitted(cls, z: Tensor, centres: int, floor: float, seed: int) -> "Codebook":
        """Finds centres by k-means, and the variance of rows about the nearest.

        Arguments:
            z: Rows (N, D).
            centres: How many, at most N.
            floor: What is added to the variance.
            seed: Of the first centres.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different rows than centres do no harm
            found = KMeans(centres, n_init=1, random_state=seed).fit(z.double().numpy())
        variance = found.inertia_ / z.numel() + floor
        return cls(torch.from_numpy(found.cluster_centers_), torch.tensor([variance], dtype=torch.float64))

    def energy(self, z: Tensor) -> Tensor:
        """Returns energies (N,) of rows (N, D), in nats."""
        products = z.double() @ self.centres.mT
        squares = z.double().square().sum(dim=-1, keepdim=True) - 2 * products + self.centres.square().sum(dim=-1)
        return squares.amin(dim=-1).clamp_min(0.0) / (2 * self.variance)
