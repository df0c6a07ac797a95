"""Gaussian mixtures by expectation maximisation, as scikit-learn does it."""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from torch import Tensor

STEPS = 60
"""At most; what is not settled by then is good enough to start from."""

WORK = 3e8
"""Multiplications of a step for its covariances, N K D^2, at most, unless that leaves fewer than `FEWEST_ROWS`."""

FEWEST_ROWS = 10_000


def fit_mixture(
    z: Tensor, components: int, floor: float, seed: int, start: dict[str, NDArray[np.float64]] | None = None
) -> GaussianMixture:
    """Fits a mixture with full covariances to rows, or to evenly spaced ones if all are more work than is worth it.

    Arguments:
        z: Rows of shape (N, D).
        components: The number of components K, at most N.
        floor: What is added to each variance.
        seed: Of k-means, which finds the first means.
        start: Parameters to begin with in place of k-means, by scikit-learn's names.
    """
    found = GaussianMixture(components, reg_covar=floor, max_iter=STEPS, random_state=seed, **(start or {}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return found.fit(z[:: stride_of(z, components)].double().numpy())


def stride_of(z: Tensor, components: int) -> int:
    """Returns of how many rows one is fitted, for rows (N, D)."""
    most = max(FEWEST_ROWS, int(WORK / (components * z.shape[1] ** 2)))
    return max(1, -(-len(z) // most))


def moments_of(mixture: GaussianMixture) -> tuple[Tensor, Tensor, Tensor]:
    """Returns a mixture's weights (K,), means (K, D) and covariances (K, D, D), in float64."""
    weights, means, covariances = (
        torch.from_numpy(np.ascontiguousarray(values))
        for values in (mixture.weights_, mixture.means_, mixture.covariances_)
    )
    return weights, means, covariances
