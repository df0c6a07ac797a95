"""Thresholds: from which score on a row is called an anomaly, `score >= threshold`."""

import math

import numpy as np
from numpy.typing import NDArray

TIE = 1e-5
"""Scores this close, relative to their size, count as tied: two machines may round them to either side."""


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
    if not len(scores) or not np.isfinite(scores).all():
        raise ValueError(f"expected finite scores, got {len(scores)} with {np.sum(~np.isfinite(scores))} not finite")
    ordered = np.sort(scores.astype(np.float64))
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
