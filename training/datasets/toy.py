"""The toy data of section 4.1: three Gaussians in three dimensions, scattered into sixteen. Its density is known."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.datasets.base import Rows
from training.datasets.files import RemoteFile, fetch

TOY = RemoteFile(
    path="toy/toy.csv",
    url="https://raw.githubusercontent.com/keizokato/RaDOGAGA/49f0927b524eaf15651ab9e5fc42adc1cf4b039f/EXP_5.2_toy/toy.csv",
    sha256="dedcd10c716bfdca26e196b7e2bfa8e95745249d1f634a3d8ed7d4f666fea189",
    size=3362882,
)

FEATURES = 16

MEANS = np.array([[0.0, 0.0, 0.0], [10.0, 0.0, 0.0], [10.0, 10.0, 10.0]])
"""Means (3, 3) of the components. The paper gives none; these are the ones that toy.csv's density column obeys."""

VARIANCES = np.array([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0], [4.0, 4.0, 4.0]])
"""The diagonals (3, 3) of the components' covariances, found in the same way."""


@dataclass(frozen=True)
class ToyData:
    """Rows whose density is known.

    Attributes:
        name: A name for tables and lines.
        x: Rows of shape (N, 16).
        density: The true density P(x) of each row, that of the three-dimensional point behind it, of shape (N,).
        component: The component each row was drawn from, 0 to 2, of shape (N,).
    """

    name: str
    x: Rows
    density: NDArray[np.float64]
    component: NDArray[np.intp]


def toy_csv(cache: Path | None = None) -> ToyData:
    """Loads the authors' own toy data: 10,000 rows, with the true density in column 17 and the component in column 18.

    Its sixteen columns have rank 3. Other than the paper says, the scattering matrix has orthonormal rows, so that
    distances in x are those between the three-dimensional points.

    Arguments:
        cache: The cache folder; the default one unless given.

    Raises:
        DatasetFileError: The file can't be had or can't be trusted.
    """
    table = np.loadtxt(fetch(TOY, cache), delimiter=",")
    return ToyData(
        name="toy.csv",
        x=table[:, :FEATURES].astype(np.float32),
        density=table[:, FEATURES],
        component=table[:, FEATURES + 1].astype(np.intp),
    )


def toy(seed: int, rows: int = 10_000) -> ToyData:
    r"""Makes toy data as the paper describes it.

    .. math:: s \sim \sum_k \tfrac13 N(\mu_k, \mathrm{diag}(\sigma_k)), \quad x = \sum_{d=1}^3 u_d s_d, \quad
        u_{dm} \sim U(-\tfrac12, \tfrac12)

    The density is that of s; over the three-dimensional subspace of the rows x it is the same but for a constant.

    Arguments:
        seed: The seed of the scattering matrix and of the points.
        rows: The number of rows N.

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), section 4.1 and Eq. (16)
    """
    generator = np.random.default_rng(seed)
    u = generator.uniform(-0.5, 0.5, size=(MEANS.shape[1], FEATURES))
    component = generator.integers(len(MEANS), size=rows)
    s = generator.normal(MEANS[component], np.sqrt(VARIANCES[component]))
    return ToyData("generated", (s @ u).astype(np.float32), mixture_density(s), component)


def mixture_density(s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the density (N,) of points (N, 3) under the three components, a third each."""
    squares = ((s[:, None, :] - MEANS) ** 2 / VARIANCES).sum(axis=-1)
    density: NDArray[np.float64] = (np.exp(-0.5 * squares) / np.sqrt((2 * np.pi * VARIANCES).prod(axis=-1))).mean(
        axis=-1
    )
    return density
