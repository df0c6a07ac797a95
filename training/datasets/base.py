"""Tables with labels, and how the paper and others split them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Labels = NDArray[np.bool_]


@dataclass(frozen=True)
class Feature:
    """A feature: a number, or, if it has categories, as many one-hot columns as there are categories."""

    name: str
    categories: tuple[str, ...] | None = None

    @property
    def columns(self) -> int:
        """The number of columns it takes in x."""
        return 1 if self.categories is None else len(self.categories)


@dataclass(frozen=True)
class Dataset:
    """A table with labels.

    Attributes:
        name: The name its model is served under.
        features: Its features, in the order of its columns.
        x: Raw rows of shape (N, M), categories already one-hot.
        y: Labels of shape (N,), True for an anomaly.
        contamination: The ratio of rows the paper flags.
        sha256: The digest of the file it was read from.
        image: Channels, height and width of a row that is an image; None if it is none.
    """

    name: str
    features: tuple[Feature, ...]
    x: Rows
    y: Labels
    contamination: float
    sha256: str
    image: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Split:
    """The two parts of a dataset.

    Attributes:
        train: Indices of the training part's rows; by protocol A anomalies are among them, by protocol B not.
        test: Indices of the test part's rows.
        normal: The normal ones of `train`: the rows a model is fitted on.
    """

    train: NDArray[np.intp]
    test: NDArray[np.intp]
    normal: NDArray[np.intp]


def protocol_a(y: Labels, seed: int) -> Split:
    """Splits each class into random halves; only the normal rows of the training half are fitted.

    Of a class with an odd number of rows the test half gets the smaller part: the paper's Thyroid figures
    (recall / precision = 48 / 46) say that 46 of the 93 anomalies were tested.

    Arguments:
        y: Labels of shape (N,), True for an anomaly.
        seed: The seed of the split.

    References:
        | Deep Autoencoding Gaussian Mixture Model (Zong et al., 2018), section 4.3
        | Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), section 4.2.1
    """
    generator = np.random.default_rng(seed)
    train, test = [], []
    for label in (False, True):
        rows = generator.permutation(np.flatnonzero(y == label))
        test.append(rows[: len(rows) // 2])
        train.append(rows[len(rows) // 2 :])
    return Split(train=np.concatenate(train), test=np.concatenate(test), normal=train[0])


def protocol_b(y: Labels, seed: int) -> Split:
    """Splits the normal rows into random halves and tests all anomalies; nothing but normal rows is trained on.

    Of an odd number of normal rows the test part gets the larger half, as in GOAD's code. Figures by this protocol
    can't be ranked with those by protocol A, for twice as many anomalies stand against the same normal rows.

    Arguments:
        y: Labels of shape (N,), True for an anomaly.
        seed: The seed of the split.

    References:
        | Classification-Based Anomaly Detection for General Data (Bergman and Hoshen, 2020)
        | Neural Transformation Learning for Deep Anomaly Detection Beyond Images (Qiu et al., 2021)
    """
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(~y))
    train, tested = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    return Split(train=train, test=np.concatenate([tested, np.flatnonzero(y)]), normal=train)
