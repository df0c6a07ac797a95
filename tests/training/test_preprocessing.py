"""Scalers: their range, constant columns, what lies outside."""

import pytest
import torch

from training.preprocessing import Scaler

X = torch.tensor([[1.0, 10.0, 5.0], [3.0, 30.0, 5.0], [2.0, 20.0, 5.0]])


def test_each_feature_gets_its_own_range() -> None:
    assert torch.equal(Scaler.per_feature(X)(X), torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.5, 0.5, 0.0]]))


def test_the_whole_table_gets_one_range() -> None:
    assert torch.allclose(Scaler.whole_table(X)(X), (X - 1) / 29)


def test_standardised_features_have_mean_0_and_variance_1_and_constants_stay_0() -> None:
    scaled = Scaler.standardised(X)(X)
    assert torch.allclose(scaled.mean(dim=0), torch.zeros(3), atol=1e-6)
    assert torch.allclose(scaled.var(dim=0, correction=0), torch.tensor([1.0, 1.0, 0.0]))
    assert torch.equal(Scaler.standardised(torch.full((2, 2), 0.1))(torch.full((1, 2), 1.1)), torch.ones(1, 2))


def test_a_rare_value_of_two_is_no_further_away_than_asked_for() -> None:
    x = torch.zeros(100, 3)
    x[0, 0], x[:50, 1], x[:, 2] = 2.0, 1.0, torch.arange(100)
    plain, bounded = Scaler.standardised(x), Scaler.standardised(x, 0.3)
    assert plain.width[0] < 0.2
    assert bounded.width.tolist() == pytest.approx([0.6, 0.5, plain.width[2].item()])


def test_a_constant_feature_stays_finite_and_shows_later_changes() -> None:
    scaler = Scaler.per_feature(X)
    later = torch.tensor([[1.0, 10.0, 7.5]])
    assert scaler(later)[0, 2] == 2.5
    assert torch.equal(scaler.inverse(scaler(later)), later)
    assert torch.equal(Scaler.whole_table(torch.full((2, 2), 3.0))(torch.full((1, 2), 4.0)), torch.ones(1, 2))


def test_values_outside_the_training_range_are_not_clipped() -> None:
    scaled = Scaler.per_feature(X)(torch.tensor([[-1.0, 50.0, 5.0]]))
    assert scaled.tolist() == [[-1.0, 2.0, 0.0]]


def test_inverse_undoes_it() -> None:
    for scaler in (Scaler.per_feature(X), Scaler.whole_table(X), Scaler.standardised(X)):
        assert torch.allclose(scaler.inverse(scaler(X)), X)


def test_its_constants_are_part_of_the_state() -> None:
    restored = Scaler(torch.zeros(3), torch.ones(3))
    restored.load_state_dict(Scaler.per_feature(X).state_dict())
    assert torch.equal(restored(X), Scaler.per_feature(X)(X))
