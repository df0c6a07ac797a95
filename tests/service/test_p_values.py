"""P-values are those of the definition, and never smaller where not all scores are kept."""

import numpy as np
import pytest
from numpy.typing import NDArray

from service.manifest import PValues
from service.p_values import PValueTable


def by_definition(calibration: NDArray[np.float64], score: float) -> float:
    """Counts, as the definition does."""
    return float((1 + sum(other >= score for other in calibration.tolist())) / (len(calibration) + 1))


def by_manifest(found: PValues, score: float) -> float:
    """Looks one entry after the other up, as `models/README.md` says it."""
    p_value = 1.0
    for kept, count in zip(found.scores, found.above, strict=True):
        if kept < score:
            p_value = (1 + count) / (found.rows + 1)
    return p_value


def counted(calibration: NDArray[np.float64], kept: NDArray[np.float64]) -> PValues:
    above = [int(np.count_nonzero(calibration > score)) for score in kept]
    return PValues(rows=len(calibration), scores=kept.tolist(), above=above)


def kept_of(calibration: NDArray[np.float64], every: int) -> PValues:
    return counted(calibration, np.unique(calibration)[::every])


@pytest.fixture(scope="module")
def calibration() -> NDArray[np.float64]:
    """Scores with ties."""
    return np.random.default_rng(0).normal(size=300).round(1)


@pytest.fixture(scope="module")
def scores(calibration: NDArray[np.float64]) -> NDArray[np.float64]:
    draw = np.random.default_rng(1).normal(size=200)
    return np.concatenate([draw, calibration[:50], [-1e300, 1e300, calibration.min(), calibration.max()]])


def test_with_all_scores_they_are_the_definition_s(
    calibration: NDArray[np.float64], scores: NDArray[np.float64]
) -> None:
    table = PValueTable(kept_of(calibration, every=1))
    assert table.of(scores).tolist() == [by_definition(calibration, score) for score in scores.tolist()]


@pytest.mark.parametrize("every", [1, 7, 1000])
def test_with_some_they_are_what_the_contract_says_and_never_smaller(
    every: int, calibration: NDArray[np.float64], scores: NDArray[np.float64]
) -> None:
    found = kept_of(calibration, every)
    p_values = PValueTable(found).of(scores).tolist()
    assert p_values == [by_manifest(found, score) for score in scores.tolist()]
    assert all(p >= by_definition(calibration, s) for p, s in zip(p_values, scores.tolist(), strict=True))
    assert max(p_values) == 1


def test_a_few_are_looked_up_alike(calibration: NDArray[np.float64], scores: NDArray[np.float64]) -> None:
    table = PValueTable(kept_of(calibration, every=5))
    assert table.of_few(scores.tolist()) == table.of(scores).tolist()


def test_of_rows_like_these_at_most_a_share_has_a_p_value_of_that_share() -> None:
    draw = np.random.default_rng(2)
    low = 0
    for _ in range(2000):
        calibration = draw.normal(size=19)
        low += PValueTable(kept_of(calibration, every=1)).of(draw.normal(size=1))[0] <= 0.1
    assert 150 < low < 245  # 200 are expected: 0.1 is 2 / (19 + 1), so that the bound is reached
