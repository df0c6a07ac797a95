"""The splits of protocols A and B."""

import numpy as np
import pytest

from training.datasets.base import Feature, protocol_a, protocol_b

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


def test_by_protocol_b_all_anomalies_are_tested_and_half_of_the_normal_rows() -> None:
    split = protocol_b(Y, 0)
    assert len(split.normal) == 450
    assert not Y[split.normal].any()
    assert np.array_equal(split.train, split.normal)
    assert [np.sum(~Y[split.test]), np.sum(Y[split.test])] == [450, 101]
    assert sorted([*split.train, *split.test]) == list(range(len(Y)))


def test_of_an_odd_number_of_normal_rows_protocol_b_tests_the_larger_half() -> None:
    assert len(protocol_b(np.arange(12) >= 11, 0).normal) == 5


def test_the_seed_decides_protocol_b() -> None:
    assert np.array_equal(protocol_b(Y, 3).test, protocol_b(Y, 3).test)
    assert set(protocol_b(Y, 3).normal) != set(protocol_b(Y, 4).normal)


@pytest.mark.parametrize(("feature", "columns"), [(Feature("age"), 1), (Feature("colour", ("red", "blue", "grey")), 3)])
def test_a_category_takes_a_column_each(feature: Feature, columns: int) -> None:
    assert feature.columns == columns
