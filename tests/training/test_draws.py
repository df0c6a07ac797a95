"""Each member of a stack draws from a generator of its own."""

import torch

from training.draws import Draws


def test_a_member_draws_the_same_alone_and_in_a_stack() -> None:
    together, alone = Draws([3, 4]), Draws([4])
    for _ in range(2):
        drawn = together.uniform(5, 2)
        assert drawn.shape == (2, 5, 2)
        assert torch.equal(drawn[1:], alone.uniform(5, 2))
        assert not torch.equal(drawn[0], drawn[1])


def test_numbers_are_uniform_on_the_unit_interval() -> None:
    drawn = Draws([0]).uniform(100_000, 1)
    assert 0 <= drawn.min() < 1e-3
    assert 1 - 1e-3 < drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 5e-3
    assert abs(drawn.var() - 1 / 12) < 1e-3
    assert len(torch.unique(drawn)) > 50_000  # of 2^16 values


def test_it_goes_on_from_where_its_state_was_taken() -> None:
    draws = Draws([0, 1])
    draws.uniform(3, 1)
    state = draws.state()
    expected = draws.uniform(3, 1)
    other = Draws([5, 6])
    other.restore(state)
    assert torch.equal(other.uniform(3, 1), expected)
