"""Scalers as modules, so that they are exported inside the graph and clients send raw values."""

import torch
from torch import Tensor, nn


class Scaler(nn.Module):
    r"""Scales features by constants taken from the training rows.

    .. math:: y = (x - \text{offset}) / \text{width}

    Values outside the training range are not clipped, for clipping would hide anomalies. A feature that is constant in
    training has no width to divide by: it keeps width 1, so it is 0 in training and shows any later change at its full
    size.

    Arguments:
        offset: What becomes 0, such as the smallest value, of shape (M,).
        width: What becomes 1, such as the distance to the largest value, of shape (M,); zeros become 1.

    In a stack both have a leading member axis, as the rows then have.
    """

    offset: Tensor
    width: Tensor

    def __init__(self, offset: Tensor, width: Tensor) -> None:
        super().__init__()
        self.register_buffer("offset", offset)
        self.register_buffer("width", torch.where(width > 0, width, torch.ones_like(width)))

    @classmethod
    def per_feature(cls, x: Tensor) -> "Scaler":
        """Scales each feature to [0, 1] by its own range over rows of shape (N, M)."""
        lower, upper = x.amin(dim=0), x.amax(dim=0)
        return cls(lower, upper - lower)

    @classmethod
    def whole_table(cls, x: Tensor) -> "Scaler":
        """Scales all features by one range of the whole table (N, M), which keeps their relative sizes."""
        lower, upper = x.amin(), x.amax()
        return cls(lower.expand(x.shape[1]).clone(), (upper - lower).expand(x.shape[1]).clone())

    @classmethod
    def standardised(cls, x: Tensor, smallest_binary: float = 0.0) -> "Scaler":
        """Scales each feature to mean 0 and variance 1 over rows of shape (N, M).

        Arguments:
            x: The rows.
            smallest_binary: The least standard deviation that a feature of two values is given, in units of their
                distance. Where hardly any row has the other value, the rows that have it would otherwise be nothing
                but that.
        """
        width, offset = torch.std_mean(x.double(), dim=0, correction=0)
        lower, upper = x.amin(dim=0), x.amax(dim=0)
        two = ((x == lower) | (x == upper)).all(dim=0)
        width = torch.where(two, width.maximum(smallest_binary * (upper - lower)), width)
        return cls(offset.to(x.dtype), torch.where(upper > lower, width, 0.0).to(x.dtype))

    @property
    def features(self) -> int:
        """The number of features M."""
        return self.offset.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """Scales raw rows of shape (..., N, M)."""
        return (x - self.offset[..., None, :]) / self.width[..., None, :]

    def inverse(self, y: Tensor) -> Tensor:
        """Returns scaled rows of shape (..., N, M) to raw values."""
        return y * self.width[..., None, :] + self.offset[..., None, :]
