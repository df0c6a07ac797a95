"""Distances by hand."""

import torch

from training.distances import squared_error


def test_squared_error_sums_over_features() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    y = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    assert squared_error(x, y).tolist() == [13.0, 3.0]
