"""The split of protocol A."""

import numpy as np
import pytest

from training.datasets.base import Feature, protocol_a

Y = np.arange(1001) >= 900  # 900 normal rows, 101 anomalies


def test_each_class_is_halved() -> None:
    split = protocol_a(Y, 0)
    assert [np.sum(~Y[split.train]), np.sum(Y[split.train])] == [450, 51]
    assert [np.sum(~Y[split.test]), np.sum(Y[split.test])] == [450, 50]


def test_no_row_is_on_both_sides_and_none_is_lost() -> None:
    split = protocol_a(Y, 0)
    assert sorted([*split.train, *split.test]) == list(range(len(Y)))


def test_only_normal_training_rows_are_fitted() -> None:
    split = protocol_a(Y, 0)
    assert set(split.normal) == {row for row in split.train if not Y[row]}


def test_the_seed_decides() -> None:
    assert np.array_equal(protocol_a(Y, 3).test, protocol_a(Y, 3).test)
    assert not np.array_equal(protocol_a(Y, 3).test, protocol_a(Y, 4).test)


@pytest.mark.parametrize(("feature", "columns"), [(Feature("age"), 1), (Feature("colour", ("red", "blue", "grey")), 3)])
def test_a_category_takes_a_column_each(feature: Feature, columns: int) -> None:
    assert feature.columns == columns
