"""Rows and scores are held against those a model was fitted on."""

import json
from pathlib import Path

import numpy as np
import pytest

from service.graphs import Matrix
from service.manifest import NumericFeature, read_manifest
from service.reference import ROWS_AT_ONCE, Reference
from tests.server import MODELS
from tests.service import kinds

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
        width = len(feature.columns)
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


@pytest.fixture(scope="module")
def transactions(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return Reference(read_manifest(kinds.make(tmp_path_factory.mktemp("models"))))


def row_of(**values: float) -> Matrix:
    """A row whose categories are those of training, but for these values."""
    usual = {"age": 20.0, "city=Bern": 1.0, "card=gold": 1.0, "branch=12": 1.0} | values
    return np.array([[usual.get(column, 0.0) for column in kinds.COLUMNS]], dtype=np.float32)


def test_another_category_is_an_unseen_one_and_a_missing_one_is_not(transactions: Reference) -> None:
    assert transactions.count_unseen(row_of()) == 0
    assert transactions.count_unseen(row_of(**{"city=Bern": 0, "city=<missing>": 1})) == 0
    assert transactions.count_unseen(row_of(**{"city=Bern": 0, "city=<other>": 1})) == 1
    assert transactions.count_unseen(row_of(**{"city=Bern": 0})) == 1
    assert transactions.count_unseen(row_of(**{"card=gold": 0, "branch=12": 0, "branch=<other>": 1})) == 2


def test_every_kind_of_feature_has_its_range(transactions: Reference) -> None:
    assert transactions.count_outside(row_of()) == 0
    for column in kinds.COLUMNS:
        ends = {"amount": (-10, 1000), "age": (18, 90), "fee": (0, 5)}.get(column, (0, 1))
        ends = (-1, 1) if "(" in column else ends
        for inside, outside in ((ends[0], ends[0] - 0.5), (ends[1], ends[1] + 0.5)):
            assert transactions.count_outside(row_of(**{column: inside})) == 0, column
            assert transactions.count_outside(row_of(**{column: outside})) == 1, column


def test_what_stands_for_a_missing_number_is_never_outside(tmp_path: Path) -> None:
    feature = {"kind": "numeric", "name": "a", "minimum": 1.0, "maximum": 2.0}
    low = {**feature, "missing": {"fill": -5.0, "indicator": False}}
    high = {**feature, "name": "b", "missing": {"fill": 9.0, "indicator": False}}
    reference = Reference(read_manifest(kinds.make(tmp_path, [low, high], ["a", "b"])))
    assert reference.count_outside(np.array([[-5, 9], [-6, 10]], dtype=np.float32)) == 2


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
