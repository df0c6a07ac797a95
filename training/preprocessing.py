"""Scalers as modules, so that they are exported inside the graph and clients send raw values."""

import torch
from torch import Tensor, nn


class MinMax(nn.Module):
    r"""Scales features by constants taken from the training rows.

    .. math:: y = (x - \text{lower}) / \text{width}

    Values outside the training range leave [0, 1]; they are not clipped, for clipping would hide anomalies.
    A feature that is constant in training has no width to divide by: it keeps width 1, so it is 0 in training
    and shows any later change at its full size.

    Arguments:
        lower: The smallest value, of shape (M,).
        width: The distance from the smallest to the largest value, of shape (M,); zeros become 1.

    In a stack both have a leading member axis, as the rows then have.
    """

    lower: Tensor
    width: Tensor

    def __init__(self, lower: Tensor, width: Tensor) -> None:
        super().__init__()
        self.register_buffer("lower", lower)
        self.register_buffer("width", torch.where(width > 0, width, torch.ones_like(width)))

    @classmethod
    def per_feature(cls, x: Tensor) -> "MinMax":
        """Fits each feature's own range on rows of shape (N, M)."""
        lower, upper = x.amin(dim=0), x.amax(dim=0)
        return cls(lower, upper - lower)

    @classmethod
    def whole_table(cls, x: Tensor) -> "MinMax":
        """Fits one range for the whole table (N, M), which keeps the features' relative sizes."""
        lower, upper = x.amin(), x.amax()
        return cls(lower.expand(x.shape[1]).clone(), (upper - lower).expand(x.shape[1]).clone())

    @property
    def features(self) -> int:
        """The number of features M."""
        return self.lower.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """Scales raw rows of shape (..., N, M)."""
        return (x - self.lower[..., None, :]) / self.width[..., None, :]

    def inverse(self, y: Tensor) -> Tensor:
        """Returns scaled rows of shape (..., N, M) to raw values."""
        return y * self.width[..., None, :] + self.lower[..., None, :]
