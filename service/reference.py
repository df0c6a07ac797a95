"""What rows and scores looked like when a model was fitted, to hold those that come later against it."""

import numpy as np
from numpy.typing import NDArray

from service.graphs import Matrix
from service.manifest import CategoricalFeature, Feature, Manifest

ROWS_AT_ONCE = 256
"""Rows that one product of matrices looks at; BLAS would start threads for many more."""


class Reference:
    """The ranges, the categories and the scores of the rows that a model was fitted on.

    Arguments:
        manifest: Says what they were.

    Attributes:
        bins: The names of the bins that scores fall into, B of them, in rising order; none if the manifest has none.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._lowest, self._highest = training_range(manifest)
        self._groups = category_groups(manifest)
        scores = manifest.score_bins
        self._bounds: list[float] = list(scores.upper_bounds) if scores else []
        self.bins = tuple(f"{number:02}" for number in range(1, len(scores.rows) + 1)) if scores else ()

    def count_outside(self, x: Matrix) -> int:
        """Counts the values of rows (N, M) that are smaller or larger than any the model was fitted on."""
        return int(np.count_nonzero(np.minimum(np.maximum(x, self._lowest), self._highest) != x))

    def count_unseen(self, x: Matrix) -> int:
        """Counts the categories of rows (N, M) that training had not: their columns, without others', add up to 0."""
        if not self._groups.size:
            return 0
        set_in = (x[start : start + ROWS_AT_ONCE] @ self._groups for start in range(0, len(x), ROWS_AT_ONCE))
        return sum(part.size - int(np.count_nonzero(part)) for part in set_in)

    def sort(self, scores: NDArray[np.floating]) -> NDArray[np.int64]:
        """Counts the scores (N,) in each bin, (B,); one belongs to the first bin whose upper bound is not below it."""
        if not self.bins:
            return np.zeros(0, dtype=np.int64)
        return np.bincount(np.searchsorted(self._bounds, scores), minlength=len(self.bins))


def training_range(manifest: Manifest) -> tuple[Matrix, Matrix]:
    """Returns the smallest and the largest value of each column of x in training, both of shape (M,)."""
    ranges = [bounds for feature in manifest.features for bounds in _ranges(feature)]
    lowest, highest = np.asarray(ranges, dtype=np.float32).T
    return lowest.copy(), highest.copy()


def category_groups(manifest: Manifest) -> Matrix:
    """Returns a matrix (M, C) that is not 0 where a column of x belongs to a categorical feature, of which there are C.

    It has a power of two there, so small that even the largest values of all columns add up to a float32. The column
    of another category than those listed is none: what sets it was not seen in training.
    """
    share = 2.0 ** -manifest.width.bit_length()
    groups = np.zeros((manifest.width, sum(isinstance(f, CategoricalFeature) for f in manifest.features)), np.float32)
    column = group = 0
    for feature in manifest.features:
        width = len(feature.columns)
        if isinstance(feature, CategoricalFeature):
            groups[column : column + width, group] = share
            if feature.other:
                groups[column + len(feature.categories), group] = 0
            group += 1
        column += width
    return groups


def _ranges(feature: Feature) -> list[tuple[float, float]]:
    """Returns the smallest and the largest value of each of a feature's columns."""
    match feature.kind:
        case "numeric":
            fill = [feature.missing.fill] if feature.missing else []
            own = [(min([feature.minimum, *fill]), max([feature.maximum, *fill]))]
        case "timestamp":
            own = [(-1.0, 1.0)] * 2 * len(feature.parts)
        case _:
            own = [(0.0, 1.0)]
    return own + [(0.0, 1.0)] * (len(feature.columns) - len(own))
