"""Thresholds: from which score on a row is called an anomaly, `score >= threshold`; and bins that scores fall into."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TIE = 1e-5
"""Scores this close, relative to their size, count as tied: two machines may round them to either side."""

BINS = 20
"""Bins of a model's training scores: five rows in a hundred fall into each."""


def contamination_threshold(scores: NDArray[np.floating], contamination: float) -> float:
    """Returns the threshold that flags the highest scores, as many as the contamination says.

    Scores tied with the lowest flagged one are flagged too. The threshold lies half-way to the next lower score,
    so that rounding on another machine does not move a block of equal rows across it.

    Arguments:
        scores: Scores of shape (N,).
        contamination: The ratio of rows to flag, in (0, 1).

    Raises:
        ValueError: There are no scores, one of them is not finite, or the contamination is outside (0, 1).
    """
    if not 0 < contamination < 1:
        raise ValueError(f"contamination is {contamination}, expected a ratio between 0 and 1")
    ordered = _sorted(scores)
    lowest_flagged = ordered[-math.ceil(contamination * len(ordered))]
    tied_from = lowest_flagged - TIE * max(1.0, abs(lowest_flagged))
    below, flagged = ordered[ordered < tied_from], ordered[ordered >= tied_from]
    return float((below[-1] + flagged[0]) / 2) if len(below) else float(flagged[0])


def percentile_threshold(scores: NDArray[np.floating], contamination: float) -> float:
    """Returns the threshold behind the paper's tables: a percentile of the very scores that are then judged.

    It needs the whole test half at once, so it serves to compare with published figures and nothing else.

    Arguments:
        scores: Scores of the test half, of shape (N,).
        contamination: The ratio of rows to flag, in (0, 1).

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), section 4.2.1
    """
    return float(np.quantile(scores.astype(np.float64), 1 - contamination))


@dataclass(frozen=True)
class ScoreBins:
    """Bins that scores fall into; a score belongs to the first bin whose upper bound is not below it.

    Attributes:
        upper_bounds: The upper bounds of all bins but the last, which has none, rising; of shape (B - 1,).
        rows: The number of rows in each bin, none of them 0; of shape (B,).
    """

    upper_bounds: list[float]
    rows: list[int]

    def describe(self, scores: NDArray[np.floating]) -> bool:
        """Tells whether scores (N,) fall into the bins in these very numbers."""
        bins = np.searchsorted(self.upper_bounds, scores.astype(np.float64))
        return bool(np.array_equal(np.bincount(bins, minlength=len(self.rows)), self.rows))


def score_bins(scores: NDArray[np.floating], most: int = BINS) -> ScoreBins:
    """Sorts scores into bins of equally many rows, as far as ties allow.

    A bound lies half-way between two scores that are not tied, next to where the quantile is. So tied scores share a
    bin, which then has more rows than others, and rounding on another machine moves no block of equal rows.

    Arguments:
        scores: Scores of shape (N,).
        most: The number of bins, if there are enough scores that are not tied.

    Raises:
        ValueError: There are no scores, or one of them is not finite.
    """
    ordered = _sorted(scores)
    apart = np.diff(ordered) > TIE * np.maximum(1.0, np.abs(ordered[1:]))
    gaps = np.flatnonzero(apart) + 1  # so many scores lie below each gap
    if not len(gaps):
        return ScoreBins([], [len(ordered)])
    wanted = np.arange(1, most) * len(ordered) / most
    cuts = np.unique(gaps[np.abs(gaps - wanted[:, None]).argmin(axis=1)])
    bounds = (ordered[cuts - 1] + ordered[cuts]) / 2
    return ScoreBins(bounds.tolist(), np.diff([0, *cuts, len(ordered)]).tolist())


def _sorted(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    if not len(scores) or not np.isfinite(scores).all():
        raise ValueError(f"expected finite scores, got {len(scores)} with {np.sum(~np.isfinite(scores))} not finite")
    return np.sort(scores.astype(np.float64))
