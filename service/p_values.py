"""Conformal p-values: how many rows of a calibration split look as strange as a row, or stranger."""

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.manifest import PValues


class PValueTable:
    r"""Looks up p-values.

    .. math:: p(s) = (1 + \#\{i : s_i \ge s\}) / (n + 1)

    over the scores of n rows that the fit did not see. If a row is drawn as these were, its p-value is at most a with
    a probability of at most a. Where not all scores are kept, that of the next lower one stands for a score, which
    makes a p-value larger and never smaller.

    References:
        Algorithmic Learning in a Random World (Vovk et al., 2005), section 2.2

    Arguments:
        found: The scores that are kept, and how many of the n are above each.
    """

    def __init__(self, found: PValues) -> None:
        self._scores = list(found.scores)
        self._p_values = [1.0, *((1 + count) / (found.rows + 1) for count in found.above)]
        self._sorted, self._looked_up = np.array(self._scores), np.array(self._p_values)

    def of(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns the p-values (N,) of scores (N,)."""
        return self._looked_up[np.searchsorted(self._sorted, scores, side="left")]

    def of_few(self, scores: Sequence[float]) -> list[float]:
        """The same for a few scores, which are dealt with one by one before numpy would have begun."""
        return [self._p_values[bisect_left(self._scores, score)] for score in scores]
