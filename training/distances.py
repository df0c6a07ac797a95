"""Distances D(x, y) between rows, each with the signature (N, *), (N, *) -> (N,)."""

from torch import Tensor


def squared_error(x: Tensor, y: Tensor) -> Tensor:
    r"""Returns the squared error, summed over features: :math:`\|x - y\|^2`.

    The sum (not the mean) is what the paper's lambdas belong to.

    Arguments:
        x: Rows of shape (N, M).
        y: Rows of shape (N, M).

    Returns:
        One distance per row, of shape (N,).

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), Eq. (6)
    """
    return (x - y).square().sum(dim=-1)
