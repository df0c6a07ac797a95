"""Thresholds flag what they are asked to, and never half a tie."""

import math
from itertools import pairwise

import numpy as np
import pytest

from training.thresholds import (
    ScoreBins,
    contamination_threshold,
    false_positive_rate_threshold,
    p_values,
    percentile_threshold,
    score_bins,
    smallest_rate,
)


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


@pytest.mark.parametrize("rows", [1000, 1013])
def test_bins_have_equally_many_distinct_scores(rows: int) -> None:
    scores = np.random.default_rng(0).normal(size=rows).astype(np.float32)
    bins = score_bins(scores)
    assert len(bins.rows) == 20
    assert sum(bins.rows) == rows
    assert max(bins.rows) - min(bins.rows) <= 2
    assert bins.upper_bounds == pytest.approx(np.quantile(scores, np.arange(1, 20) / 20), abs=0.2)
    assert bins.upper_bounds == sorted(set(bins.upper_bounds))


def test_few_scores_have_a_bin_each() -> None:
    assert score_bins(np.arange(20.0)) == ScoreBins([i + 0.5 for i in range(19)], [1] * 20)
    assert score_bins(np.array([3.0, 1.0])) == ScoreBins([2.0], [1, 1])


def test_bins_count_what_lies_between_their_bounds() -> None:
    scores = np.random.default_rng(1).gamma(2.0, size=500)
    bins = score_bins(scores, 7)
    edges = [-math.inf, *bins.upper_bounds, math.inf]
    assert bins.rows == [int(((scores > a) & (scores <= b)).sum()) for a, b in pairwise(edges)]
    assert bins.describe(scores)
    assert not bins.describe(scores + 0.1)
    assert not bins.describe(scores[:-1])


def test_tied_scores_share_a_bin() -> None:
    block = np.nextafter(np.float32(50.0), np.float32(np.inf))
    scores = np.array([1.0, 2.0] * 10 + [50.0] * 30 + [block] * 30 + [60.0] * 20, dtype=np.float32)
    bins = score_bins(scores)
    assert bins.rows == [10, 10, 60, 20]
    assert bins.upper_bounds == pytest.approx([1.5, 26.0, 55.0])


def test_equal_scores_are_one_bin() -> None:
    assert score_bins(np.full(10, 3.0)) == ScoreBins([], [10])


def test_scores_that_are_no_numbers_have_no_bins() -> None:
    with pytest.raises(ValueError, match="expected finite scores, got 2 with 1 not finite"):
        score_bins(np.array([1.0, np.nan]))


def slow_p_value(calibration: list[float], score: float) -> float:
    return (1 + sum(other >= score for other in calibration)) / (len(calibration) + 1)


def test_p_values_are_those_of_the_definition() -> None:
    draw = np.random.default_rng(0)
    calibration = draw.normal(size=200).round(1)
    tested = np.concatenate([draw.normal(size=100), calibration[:20], [-1e9, 1e9]])
    found = p_values(calibration).of(tested)
    assert found.tolist() == [slow_p_value(calibration.tolist(), score) for score in tested.tolist()]


def test_p_values_of_fewer_kept_scores_are_never_smaller_and_the_same_where_it_matters() -> None:
    draw = np.random.default_rng(1)
    calibration, tested = draw.normal(size=5000), draw.normal(size=2000)
    all_, few = p_values(calibration, most=5000), p_values(calibration, most=200)
    assert (len(all_.scores), len(few.scores)) == (5000, 200)
    assert (few.of(tested) >= all_.of(tested)).all()
    high = tested > np.sort(calibration)[-100]
    assert high.any()
    assert few.of(tested)[high].tolist() == all_.of(tested)[high].tolist()
    assert few.of(np.array([-10.0])).tolist() == [1.0]


@pytest.mark.parametrize(("rows", "rate"), [(19, 0.05), (99, 0.01), (100, 0.03), (500, 0.1)])
def test_the_promised_rate_of_false_positives_is_held_over_many_draws(rows: int, rate: float) -> None:
    draw = np.random.default_rng(0)
    flagged = []
    for _ in range(2000):
        threshold = false_positive_rate_threshold(draw.gumbel(size=rows), rate)
        flagged.append((draw.gumbel(size=50) >= threshold).mean())
    error = np.std(flagged) / math.sqrt(len(flagged))
    promised = math.floor(rate * (rows + 1) + 1e-9) / (rows + 1)
    assert np.mean(flagged) <= rate + 3 * error
    assert np.mean(flagged) == pytest.approx(promised, abs=4 * error + 1e-4)


def test_what_the_threshold_flags_has_a_p_value_of_at_most_the_rate() -> None:
    draw = np.random.default_rng(2)
    calibration, tested = draw.normal(size=300).round(1), draw.normal(size=3000)
    threshold = false_positive_rate_threshold(calibration, 0.05)
    flagged = tested >= threshold
    assert flagged.any()
    assert p_values(calibration).of(tested)[flagged].max() <= 0.05


def test_a_rate_that_so_few_rows_can_t_promise() -> None:
    text = "the false-positive rate is 0.01, but 50 calibration rows promise no less than 0.0196"
    with pytest.raises(ValueError, match=text):
        false_positive_rate_threshold(np.arange(50.0), 0.01)
    assert smallest_rate(50) == pytest.approx(0.0196, abs=1e-4)
    assert false_positive_rate_threshold(np.arange(50.0), smallest_rate(50)) > 49


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, float("nan")])
def test_a_false_positive_rate_that_is_no_ratio(rate: float) -> None:
    with pytest.raises(ValueError, match=f"the false-positive rate is {rate}, expected a ratio between 0 and 1"):
        false_positive_rate_threshold(np.arange(5.0), rate)
