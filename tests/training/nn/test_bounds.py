"""The lower bound and the gradient that lets a value come back."""

import torch

from training.nn.bounds import lower_bound


def test_values_are_those_of_the_maximum() -> None:
    x = torch.tensor([-2.0, 0.5, 1.0, 3.0])
    assert lower_bound(x, 1.0).tolist() == [1.0, 1.0, 1.0, 3.0]
    assert lower_bound(x.requires_grad_(), 1.0).tolist() == [1.0, 1.0, 1.0, 3.0]


def test_below_the_bound_only_a_gradient_that_moves_up_passes() -> None:
    x = torch.tensor([0.0, 0.0, 1.0, 1.0, 3.0, 3.0], requires_grad=True)
    gradient = torch.tensor([2.0, -2.0, 2.0, -2.0, 2.0, -2.0])
    lower_bound(x, 1.0).backward(gradient)  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, -2.0, 2.0, -2.0, 2.0, -2.0]


def test_a_value_below_the_bound_returns_under_gradient_descent() -> None:
    x = torch.nn.Parameter(torch.tensor(-1.0))
    optimizer = torch.optim.SGD([x], lr=0.5)
    for _ in range(20):
        optimizer.zero_grad()
        (lower_bound(x, 0.0) - 2).square().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert abs(x.item() - 2) < 1e-3
