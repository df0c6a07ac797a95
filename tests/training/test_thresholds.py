"""Thresholds flag what they are asked to, and never half a tie."""

import math

import numpy as np
import pytest

from training.thresholds import contamination_threshold, percentile_threshold


@pytest.mark.parametrize("contamination", [0.001, 0.025, 0.15, 0.2, 0.5, 0.999])
@pytest.mark.parametrize("rows", [7, 100, 1001])
def test_it_flags_the_contamination_of_distinct_scores(contamination: float, rows: int) -> None:
    scores = np.random.default_rng(0).normal(size=rows).astype(np.float32)
    threshold = contamination_threshold(scores, contamination)
    assert (scores >= threshold).sum() == math.ceil(contamination * rows)


def test_it_flags_all_that_tie_with_the_lowest_flagged() -> None:
    scores = np.array([1.0] * 6 + [5.0] * 3 + [9.0])
    threshold = contamination_threshold(scores, 0.2)
    assert (scores >= threshold).sum() == 4
    assert threshold == 3.0


def test_rounding_does_not_split_a_tie() -> None:
    block = np.nextafter(np.float32(50.0), np.float32(np.inf))
    scores = np.array([1.0] * 90 + [50.0] * 5 + [block] * 5, dtype=np.float32)
    threshold = contamination_threshold(scores, 0.05)
    assert (scores >= threshold).sum() == 10
    assert threshold == pytest.approx(25.5)


def test_equal_scores_are_all_flagged() -> None:
    assert contamination_threshold(np.full(10, 3.0), 0.1) == 3.0


@pytest.mark.parametrize("contamination", [0.0, 1.0, -0.1, float("nan")])
def test_a_contamination_that_is_no_ratio(contamination: float) -> None:
    with pytest.raises(ValueError, match=f"contamination is {contamination}, expected a ratio between 0 and 1"):
        contamination_threshold(np.ones(3), contamination)


def test_scores_that_are_no_numbers() -> None:
    with pytest.raises(ValueError, match="expected finite scores, got 3 with 2 not finite"):
        contamination_threshold(np.array([1.0, np.nan, np.inf]), 0.1)
    with pytest.raises(ValueError, match="expected finite scores, got 0 with 0 not finite"):
        contamination_threshold(np.array([]), 0.1)


def test_the_papers_threshold_is_a_percentile() -> None:
    assert percentile_threshold(np.arange(101.0), 0.2) == pytest.approx(80)
