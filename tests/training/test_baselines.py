"""Baselines: what they score high, what they see, and their formulas written a second way."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal

from tests.conftest import small_table
from training.baselines import (
    BASELINES,
    ECOD,
    SCALINGS,
    Baseline,
    BaselineError,
    Gaussians,
    IsolationForest,
    LocalOutlierFactor,
    NearestNeighbours,
    OneClassSVM,
    PCAResidual,
    Scaled,
    Score,
    Scores,
    ShrunkGaussian,
    distinct,
    drawn,
    fit,
)
from training.datasets.base import Rows

TABLE = small_table()
NORMAL, STRANGE = TABLE.x[:300], TABLE.x[600:]
X = NORMAL.astype(np.float64)
ROWS = np.concatenate([TABLE.x[300:340], STRANGE]).astype(np.float64)


def float32(values: list[list[int]]) -> Rows:
    return np.array(values, dtype=np.float32)


class Noting(Baseline):
    """Notes the rows it is given, and scores by their largest value."""

    def __init__(self) -> None:
        self.fitted: Scaled | None = None
        self.scored: Scaled | None = None

    def fit(self, x: Scaled, seed: int) -> Score:  # noqa: ARG002
        self.fitted = x

        def score(rows: Scaled) -> Scores:
            self.scored = rows
            return np.asarray(rows.max(axis=1))

        return score


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("name", BASELINES)
def test_a_far_row_scores_above_all_normal_rows(name: str, scaling: str) -> None:
    score = fit(BASELINES[name], scaling, NORMAL, 0)
    share = 0.99 if name == "isolation forest" else 1  # no depth is below that of the outermost normal row
    assert score(NORMAL[:1] + 40)[0] > np.quantile(score(TABLE.x[:600]), share)


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("name", BASELINES)
def test_a_row_scores_the_same_alone_among_others_and_again(name: str, scaling: str) -> None:
    score = fit(BASELINES[name], scaling, NORMAL, 3)
    together = score(np.concatenate([STRANGE, 1e6 * STRANGE]))
    assert score(STRANGE[7:8])[0] == pytest.approx(together[7], rel=1e-9)
    assert np.array_equal(fit(BASELINES[name], scaling, NORMAL, 3)(STRANGE), score(STRANGE))


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("name", BASELINES)
def test_a_constant_feature_is_no_trouble(name: str, scaling: str) -> None:
    constant = NORMAL.copy()
    constant[:, 2] = 5
    score = fit(BASELINES[name], scaling, constant, 0)
    other = constant[:1].copy()
    other[:, 2] = 9
    assert np.isfinite(score(constant)).all()
    if name == "isolation forest":  # which never cuts where nothing varied
        assert score(other) == score(constant[:1])
    else:
        assert score(other) > score(constant[:1])


def test_scalers_are_fitted_on_the_fitted_rows_and_do_not_clip() -> None:
    noting = Noting()
    score = fit(noting, "minmax", float32([[1, 10], [3, 30]]), 0)
    assert noting.fitted is not None
    assert noting.fitted.tolist() == [[0, 0], [1, 1]]
    assert score(float32([[5, 10]])).tolist() == [2]

    score = fit(noting, "standard", float32([[1, 10], [3, 30]]), 0)
    assert noting.fitted.tolist() == [[-1, -1], [1, 1]]
    assert score(float32([[2, 60]])).tolist() == [4]

    score = fit(noting, "none", float32([[1, 10], [3, 30]]), 0)
    assert noting.fitted.tolist() == [[1, 10], [3, 30]]
    assert score(float32([[2, 60]])).tolist() == [60]


def test_copies_are_scored_once_and_alike() -> None:
    noting = Noting()
    score = fit(noting, "none", NORMAL, 0)
    assert score(float32([[3, 1], [2, 0], [3, 1], [4, 0]])).tolist() == [3, 2, 3, 4]
    assert noting.scored is not None
    assert sorted(noting.scored.tolist()) == [[2, 0], [3, 1], [4, 0]]


def test_distinct_rows_and_where_they_stand() -> None:
    x = np.repeat(X[:20], 3, axis=0)[np.random.default_rng(0).permutation(60)]
    rows, copies = distinct(x)
    assert len(rows) == 20
    assert np.array_equal(rows[copies], x)


def test_no_more_rows_are_drawn_than_asked_for_and_none_twice() -> None:
    rows = drawn(X, 50, 0)
    assert len(rows) == len(distinct(rows)[0]) == 50
    assert {row.tobytes() for row in rows} <= {row.tobytes() for row in X}
    assert np.array_equal(rows, drawn(X, 50, 0))
    assert not np.array_equal(rows, drawn(X, 50, 1))
    assert drawn(X, 300, 0) is X


def test_the_one_class_svm_is_fitted_on_the_rows_drawn() -> None:
    expected = OneClassSVM().fit(drawn(X, 50, 4), 0)(ROWS)
    assert np.array_equal(OneClassSVM(at_most=50).fit(X, 4)(ROWS), expected)
    assert not np.allclose(OneClassSVM().fit(X, 4)(ROWS), expected)


@pytest.mark.parametrize("name", BASELINES)
def test_only_what_is_scale_free_ignores_the_scaling(name: str) -> None:
    baseline = BASELINES[name]
    first, second = (
        fit(baseline, scaling, NORMAL * float32([[1, 64, 1, 1, 1, 1]]), 0) for scaling in ("minmax", "none")
    )
    assert np.allclose(first(STRANGE), second(STRANGE), rtol=1e-6) == baseline.scale_free


@pytest.mark.parametrize("name", BASELINES)
def test_settings_are_json_values(name: str) -> None:
    assert all(isinstance(value, int | float) for value in BASELINES[name].settings().values())


def test_one_gaussian() -> None:
    covariance = np.cov(X.T, bias=True) + 1e-6 * np.eye(6)
    expected = -multivariate_normal(X.mean(axis=0), covariance).logpdf(ROWS)
    assert np.allclose(Gaussians(1).fit(X, 0)(ROWS), expected)


def test_two_gaussians_find_two_clusters() -> None:
    apart = np.concatenate([X, X + 100])
    densities = [multivariate_normal(x.mean(axis=0), np.cov(x.T, bias=True) + 1e-6 * np.eye(6)) for x in (X, X + 100)]
    expected = -np.log(sum(0.5 * density.pdf(X) for density in densities))
    assert np.allclose(Gaussians(2).fit(apart, 0)(X), expected)


def test_a_mixture_that_does_not_converge_or_is_singular_is_told() -> None:
    with pytest.raises(BaselineError, match="2 Gaussians with reg_covar 1e-06: .*did not converge"):
        Gaussians(2, max_iter=1).fit(X, 0)
    with pytest.raises(BaselineError, match="1 Gaussians with reg_covar 0.0: .*ill-defined empirical covariance"):
        Gaussians(1, reg_covar=0.0).fit(np.ones((20, 3)), 0)


def test_a_shrunk_gaussian() -> None:
    few = X[:10] - X[:10].mean(axis=0)
    sample = few.T @ few / 10
    target = np.trace(sample) / 6 * np.eye(6)
    noise = sum(np.sum((np.outer(row, row) - sample) ** 2) for row in few) / 10**2
    rho = noise / np.sum((sample - target) ** 2)
    inverse = np.linalg.inv((1 - rho) * sample + rho * target)
    expected = np.einsum("ni,ij,nj->n", ROWS, inverse, ROWS)
    assert 0.01 < rho < 0.99
    assert np.allclose(ShrunkGaussian().fit(few + 7, 0)(ROWS + 7), expected)


def test_the_residual_of_rows_near_a_plane() -> None:
    centred = X - X.mean(axis=0)
    normals = np.linalg.svd(centred)[2][2:]  # two components explain 95 %
    expected = (((ROWS - X.mean(axis=0)) @ normals.T) ** 2).sum(axis=1)
    assert np.allclose(PCAResidual().fit(X, 0)(ROWS), expected)


def test_ecod_counts_tails_with_the_row_itself() -> None:
    x = np.array([[0.0], [1.0], [2.0], [9.0]])  # the longer tail is on the right
    score = ECOD().fit(x, 0)
    ratios = [1 / 5, 2 / 5, 3 / 5, 1 / 5]
    assert np.allclose(score(np.array([[-1.0], [0.0], [1.5], [10.0]])), -np.log(ratios))


def test_ecod_takes_each_features_longer_tail_or_one_side_of_all() -> None:
    x = np.array([[0.0, 0.0], [1.0, -1.0], [2.0, -2.0], [9.0, -9.0]])
    score = ECOD().fit(x, 0)
    assert score(np.array([[10.0, -10.0]])) == pytest.approx(-2 * np.log(1 / 5))  # both long tails
    assert score(np.array([[10.0, 10.0]])) == pytest.approx(-2 * np.log(1 / 5))  # right of all
    assert score(np.array([[-10.0, 10.0]])) == pytest.approx(-np.log(1 / 5))  # both short tails: right or left of one


def test_a_forest_of_other_seeds_is_another() -> None:
    assert not np.array_equal(IsolationForest().fit(X, 0)(ROWS), IsolationForest().fit(X, 1)(ROWS))


def test_the_distance_to_the_fifth_neighbour() -> None:
    assert np.allclose(NearestNeighbours().fit(X, 0)(ROWS), np.sort(cdist(ROWS, X), axis=1)[:, 4])


def test_small_distances_between_large_values_are_kept() -> None:
    large = 1e9 + X
    assert np.allclose(NearestNeighbours().fit(large, 0)(1e9 + ROWS), np.sort(cdist(ROWS, X), axis=1)[:, 4], rtol=1e-4)


@pytest.mark.parametrize("baseline", [NearestNeighbours(), LocalOutlierFactor()])
def test_copies_of_fitted_rows_count_once(baseline: Baseline) -> None:
    assert np.allclose(baseline.fit(np.repeat(X, 30, axis=0), 0)(ROWS), baseline.fit(X, 0)(ROWS))


def test_the_local_outlier_factor_compares_densities() -> None:
    generator = np.random.default_rng(0)
    dense, sparse = generator.normal(size=(100, 2)), 100 + 20 * generator.normal(size=(100, 2))
    score = LocalOutlierFactor().fit(np.concatenate([dense, sparse]), 0)
    near_dense, in_sparse = score(np.array([[8.0, 0.0], [100.0, 100.0]]))
    assert near_dense > 2
    assert in_sparse == pytest.approx(1, abs=0.2)
