"""Rows and scores are held against those a model was fitted on."""

import json

import numpy as np
import pytest

from service.graphs import Matrix
from service.manifest import NumericFeature, read_manifest
from service.reference import ROWS_AT_ONCE, Reference
from tests.server import MODELS

KDD = MODELS / "kddcup99" / "1"


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(read_manifest(KDD))


@pytest.fixture
def x() -> Matrix:
    """Real rows."""
    return np.asarray(json.loads((KDD / "examples.json").read_text())["x"], dtype=np.float32)


def categorical_features() -> list[slice]:
    """Returns where the columns of each categorical feature are."""
    found, column = [], 0
    for feature in read_manifest(KDD).features:
        width = 1 if isinstance(feature, NumericFeature) else len(feature.categories)
        if not isinstance(feature, NumericFeature):
            found.append(slice(column, column + width))
        column += width
    return found


def test_real_rows_have_known_categories(reference: Reference, x: Matrix) -> None:
    assert reference.count_unseen(x) == 0


def test_features_without_a_category_are_counted(reference: Reference, x: Matrix) -> None:
    features = categorical_features()
    assert len(features) > 3
    for number, columns in enumerate(features, start=1):
        x[0, columns] = 0
        assert reference.count_unseen(x) == number
    x[1, features[-1]] = 0
    assert reference.count_unseen(x) == len(features) + 1


def test_rows_are_counted_however_many_there_are(reference: Reference, x: Matrix) -> None:
    x[:, categorical_features()[0]] = 0
    many = np.tile(x, (ROWS_AT_ONCE // len(x) + 3, 1))
    assert reference.count_unseen(many) == len(many) > ROWS_AT_ONCE


def test_the_largest_values_add_up_without_a_warning(reference: Reference, x: Matrix) -> None:
    largest = np.finfo(np.float32).max
    for value in (largest, -largest, np.float32(1e-30)):
        assert reference.count_unseen(np.full((3, x.shape[1]), value, np.float32)) == 0


def test_numbers_alone_have_no_categories() -> None:
    thyroid = Reference(read_manifest(MODELS / "thyroid" / "1"))
    assert thyroid.count_unseen(np.zeros((5, 6), np.float32)) == 0


def test_values_outside_the_range_are_counted(reference: Reference, x: Matrix) -> None:
    inside = reference.count_outside(x[:1])
    x[0, categorical_features()[0]] = 2
    assert reference.count_outside(x[:1]) == inside + 3
    assert reference.count_outside(np.full((7, x.shape[1]), -1e9, np.float32)) == 7 * x.shape[1]


def test_scores_fall_into_the_first_bin_that_is_not_below_them(reference: Reference) -> None:
    bins = read_manifest(KDD).score_bins
    assert bins is not None
    bounds = np.asarray(bins.upper_bounds)
    assert reference.bins == tuple(f"{number:02}" for number in range(1, len(bounds) + 2))
    assert reference.sort(bounds).tolist() == [1] * len(bounds) + [0]
    assert reference.sort(np.nextafter(bounds, np.inf)).tolist() == [0] + [1] * len(bounds)
    assert reference.sort(np.array([-1e30, 1e30, 1e30])).tolist() == [1] + [0] * (len(bounds) - 1) + [2]


def test_a_manifest_without_bins_has_none() -> None:
    without = Reference(read_manifest(KDD).model_copy(update={"score_bins": None}))
    assert without.bins == ()
    assert without.sort(np.zeros(3)).tolist() == []
