"""Thresholds: from which score on a row is called an anomaly, `score >= threshold`; and bins that scores fall into."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TIE = 1e-5
"""Scores this close, relative to their size, count as tied: two machines may round them to either side."""

ROUNDING = 1e-12
"""A product this much below an integer, relative to it, is that integer."""

KEPT_SCORES = 4096
"""Calibration scores that p-values are computed from, at most."""

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


def false_positive_rate_threshold(scores: NDArray[np.floating], rate: float) -> float:
    """Returns the threshold from which on conformal p-values are at most `rate`.

    A normal row, drawn as the calibration rows were, then reaches it with a probability of at most `rate`: on average
    over calibration splits, whatever the scores' distribution and however few there are.

    Arguments:
        scores: Scores of shape (N,) of normal rows that the fit did not see.
        rate: The wanted rate of false positives, in (0, 1).

    Raises:
        ValueError: There are no scores, one of them is not finite, the rate is outside (0, 1), or it can't be promised
            by so few rows.

    References:
        Testing for Outliers with Conformal p-values (Bates et al., 2023), Eq. (1)
    """
    if not 0 < rate < 1:
        raise ValueError(f"the false-positive rate is {rate}, expected a ratio between 0 and 1")
    ordered = _sorted(scores)
    allowed = math.floor(rate * (len(ordered) + 1) * (1 + ROUNDING))  # p-values up to allowed / (N + 1)
    if allowed < 1:
        raise ValueError(
            f"the false-positive rate is {rate}, but {len(ordered)} calibration rows promise no less than "
            f"{smallest_rate(len(ordered)):.3g}"
        )
    last = ordered[-allowed]  # what scores above this has at most allowed - 1 calibration rows at or above it
    above = ordered[ordered > last]
    tied = TIE * max(1.0, abs(last))
    return float(last + min(tied, (above[0] - last) / 2)) if len(above) else float(last + tied)


def smallest_rate(rows: int) -> float:
    """Returns the smallest rate of false positives that so many calibration rows can promise."""
    return 1 / (rows + 1)


@dataclass(frozen=True)
class PValues:
    """What conformal p-values are computed from: calibration scores, of which some may be left out.

    The p-value of a score s is (1 + above[i]) / (rows + 1) with the last i for which scores[i] < s, or 1 without one:
    the share of rows that score as high, the row itself among them. Between scores of which some were left out it is
    too high, so that what it promises holds.

    Attributes:
        rows: The number of calibration rows, N.
        scores: Scores that were kept, rising, of shape (I,).
        above: How many calibration rows have a higher score than that, falling, of shape (I,).

    References:
        Testing for Outliers with Conformal p-values (Bates et al., 2023), Eq. (1)
    """

    rows: int
    scores: list[float]
    above: list[int]

    def of(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """Returns the p-values (N,) of scores (N,)."""
        counts = np.array([self.rows, *self.above])
        found = counts[np.searchsorted(self.scores, scores.astype(np.float64), side="left")]
        return np.asarray((1 + found) / (self.rows + 1))


def p_values(scores: NDArray[np.floating], most: int = KEPT_SCORES) -> PValues:
    """Returns what the p-values of a model are computed from.

    Of more than `most` different scores all of the highest half of that number are kept, where decisions are made, and
    the rest evenly.

    Arguments:
        scores: Scores of shape (N,) of normal rows that the fit did not see.
        most: How many are kept.

    Raises:
        ValueError: There are no scores, or one of them is not finite.
    """
    ordered = _sorted(scores)
    different, counts = np.unique(ordered, return_counts=True)
    above = len(ordered) - np.cumsum(counts)
    if len(different) > most:
        high = len(different) - most // 2
        kept = np.concatenate([np.linspace(0, high - 1, most - most // 2).astype(int), np.arange(high, len(different))])
        different, above = different[kept], above[kept]
    return PValues(len(ordered), different.tolist(), above.tolist())


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
