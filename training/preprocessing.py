"""Scalers as modules, so that they are exported inside the graph and clients send raw values."""

import numpy as np
import torch
from torch import Tensor, nn

NORMAL_RANGE = 1.349
"""The interquartile range of a standard normal distribution."""

ROWS_FOR_QUARTILES = 20_000

FEW_VALUES = 10
"""A feature of so many different values has no tails."""


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


class TailScaler(Scaler):
    r"""Creates a scaler that draws in the tails of some features, and then scales all of them.

    .. math:: v = \operatorname{sign}(u) \log(1 + |u|), \quad u = (x - \text{centre}) / \text{spread}

    takes the place of x in the features that are `drawn_in`. Near the centre v is u; far from it, amounts that differ
    by a factor are as far apart as others that differ by the same.

    Arguments:
        centre: What becomes 0, of shape (M,).
        spread: What stays about 1, of shape (M,); zeros become 1.
        drawn_in: Which features, 0 or 1, of shape (M,).
        offset: As of `Scaler`, of what becomes of x.
        width: As of `Scaler`, of what becomes of x.
    """

    centre: Tensor
    spread: Tensor
    drawn_in: Tensor

    def __init__(self, centre: Tensor, spread: Tensor, drawn_in: Tensor, offset: Tensor, width: Tensor) -> None:
        super().__init__(offset, width)
        self.register_buffer("centre", centre)
        self.register_buffer("spread", torch.where(spread > 0, spread, torch.ones_like(spread)))
        self.register_buffer("drawn_in", drawn_in)

    @classmethod
    def fitted(cls, x: Tensor, held_out: Tensor, gain: float, smallest_binary: float = 0.0) -> "Scaler":
        """Standardises features, those with long tails behind the logarithm.

        These are features whose held-out values are likelier by more than `gain`, in nats per row, under a normal
        distribution of v than under one of x, both fitted to training values. Without such features it is
        `Scaler.standardised`.

        Arguments:
            x: Training rows (N, M).
            held_out: Held-out rows (H, M).
            gain: How much likelier, on average.
            smallest_binary: As of `Scaler.standardised`.
        """
        some = x[:ROWS_FOR_QUARTILES].numpy()
        low, middle, high = torch.from_numpy(np.quantile(some, [0.25, 0.5, 0.75], axis=0)).to(x.dtype)
        centre, spread = middle, (high - low) / NORMAL_RANGE
        plain = Scaler.standardised(x, smallest_binary)
        spread = torch.where(spread > 0, spread, plain.width)
        every = cls(centre, spread, torch.ones_like(centre), torch.zeros_like(centre), torch.ones_like(centre))
        drawn = Scaler.standardised(every(x), smallest_binary)
        likelier = normal_log_prob(drawn(every(held_out))) - drawn.width.double().log() + every.log_slope(held_out)
        likelier -= normal_log_prob(plain(held_out)) - plain.width.double().log()
        many = torch.tensor([len(np.unique(column)) > FEW_VALUES for column in some.T])
        chosen = many & (likelier.mean(dim=0) > gain)
        if not chosen.any():
            return plain
        offset, width = (
            torch.where(chosen, getattr(drawn, name), getattr(plain, name)) for name in ("offset", "width")
        )
        return cls(centre, spread, chosen.to(x.dtype), offset, width)

    def log_slope(self, x: Tensor) -> Tensor:
        """Returns log dv/dx of rows (N, M), as if all features were drawn in."""
        u = (x.double() - self.centre) / self.spread
        return -torch.log1p(u.abs()) - self.spread.double().log()

    def forward(self, x: Tensor) -> Tensor:
        """Scales raw rows of shape (..., N, M)."""
        u = (x - self.centre[..., None, :]) / self.spread[..., None, :]
        v = torch.sign(u) * torch.log1p(u.abs())
        return super().forward(torch.where(self.drawn_in[..., None, :] > 0, v, x))

    def inverse(self, y: Tensor) -> Tensor:
        """Returns scaled rows of shape (..., N, M) to raw values."""
        v = super().inverse(y)
        u = torch.sign(v) * torch.expm1(v.abs())
        drawn = u * self.spread[..., None, :] + self.centre[..., None, :]
        return torch.where(self.drawn_in[..., None, :] > 0, drawn, v)


def normal_log_prob(y: Tensor) -> Tensor:
    """Returns the log-density of standard normal values, but for a constant, in float64."""
    return -0.5 * y.double().square()
