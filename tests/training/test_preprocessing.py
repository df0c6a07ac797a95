"""Scalers: their range, constant columns, what lies outside."""

import pytest
import torch

from training.preprocessing import Scaler, TailScaler

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


class TestTails:
    """Features with long tails go through a logarithm, if held-out values are likelier for it."""

    @pytest.fixture
    def x(self) -> torch.Tensor:
        draw = torch.Generator().manual_seed(0)
        normal = torch.randn(2000, 3, generator=draw)
        return torch.stack([normal[:, 0], (2 * normal[:, 1]).exp(), (normal[:, 2] > 1).float()], dim=1)

    def test_those_with_long_tails_are_drawn_in(self, x: torch.Tensor) -> None:
        scaler = TailScaler.fitted(x[:1500], x[1500:], gain=0.25)
        assert isinstance(scaler, TailScaler)
        assert scaler.drawn_in.tolist() == [0, 1, 0]
        scaled = scaler(x[:1500])
        assert scaled.mean(dim=0).tolist() == pytest.approx([0, 0, 0], abs=1e-4)
        assert scaled.std(dim=0).tolist() == pytest.approx([1, 1, 1], abs=1e-2)
        assert torch.equal(scaled[:, [0, 2]], Scaler.standardised(x[:1500])(x[:1500])[:, [0, 2]])
        torch.testing.assert_close(scaler.inverse(scaler(x)), x, rtol=1e-4, atol=1e-5)

    def test_what_is_far_out_is_still_further_out(self, x: torch.Tensor) -> None:
        scaler = TailScaler.fitted(x[:1500], x[1500:], gain=0.25)
        far = scaler(torch.tensor([[0.0, 1e3, 0.0], [0.0, 1e6, 0.0], [0.0, 1e30, 0.0]]))[:, 1]
        assert far.isfinite().all()
        assert far[0] < far[1] < far[2]

    def test_the_slope_is_that_of_the_logarithm(self, x: torch.Tensor) -> None:
        scaler = TailScaler.fitted(x[:1500], x[1500:], gain=0.25)
        assert isinstance(scaler, TailScaler)
        rows = x[:50, 1:2].double().expand(-1, 3)
        u = (rows - scaler.centre) / scaler.spread
        step = 1e-6
        moved = (rows + step - scaler.centre) / scaler.spread
        difference = (torch.sign(moved) * torch.log1p(moved.abs()) - torch.sign(u) * torch.log1p(u.abs())) / step
        torch.testing.assert_close(scaler.log_slope(rows), difference.log(), rtol=1e-3, atol=1e-3)

    def test_without_any_it_is_a_plain_scaler(self, x: torch.Tensor) -> None:
        plain = x[:, [0, 2]]
        assert type(TailScaler.fitted(plain[:1500], plain[1500:], gain=0.25)) is Scaler
        assert type(TailScaler.fitted(x[:1500], x[1500:], gain=1e9)) is Scaler
