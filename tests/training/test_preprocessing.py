"""Scalers: their range, constant columns, what lies outside."""

import torch

from training.preprocessing import MinMax

X = torch.tensor([[1.0, 10.0, 5.0], [3.0, 30.0, 5.0], [2.0, 20.0, 5.0]])


def test_each_feature_gets_its_own_range() -> None:
    assert torch.equal(MinMax.per_feature(X)(X), torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.5, 0.5, 0.0]]))


def test_the_whole_table_gets_one_range() -> None:
    assert torch.allclose(MinMax.whole_table(X)(X), (X - 1) / 29)


def test_a_constant_feature_stays_finite_and_shows_later_changes() -> None:
    scaler = MinMax.per_feature(X)
    later = torch.tensor([[1.0, 10.0, 7.5]])
    assert scaler(later)[0, 2] == 2.5
    assert torch.equal(scaler.inverse(scaler(later)), later)
    assert torch.equal(MinMax.whole_table(torch.full((2, 2), 3.0))(torch.full((1, 2), 4.0)), torch.ones(1, 2))


def test_values_outside_the_training_range_are_not_clipped() -> None:
    scaled = MinMax.per_feature(X)(torch.tensor([[-1.0, 50.0, 5.0]]))
    assert scaled.tolist() == [[-1.0, 2.0, 0.0]]


def test_inverse_undoes_it() -> None:
    for scaler in (MinMax.per_feature(X), MinMax.whole_table(X)):
        assert torch.allclose(scaler.inverse(scaler(X)), X)


def test_its_constants_are_part_of_the_state() -> None:
    restored = MinMax(torch.zeros(3), torch.ones(3))
    restored.load_state_dict(MinMax.per_feature(X).state_dict())
    assert torch.equal(restored(X), MinMax.per_feature(X)(X))
