"""Distances D(x, y) between rows (..., N, M), or between images (..., N, C, H, W), each of shape (..., N)."""

import torch
from torch import Tensor
from torch.autograd.function import BackwardCFunction, FunctionCtx


class _SquaredError(torch.autograd.Function):
    """The squared error with its gradient, in as few passes over the rows as there can be."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, y: Tensor) -> Tensor:
        difference = x - y
        ctx.save_for_backward(difference)
        return difference.square().sum(dim=-1)

    @staticmethod
    def backward(ctx: BackwardCFunction, gradient: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (difference,) = ctx.saved_tensors
        of_y = (-2 * gradient)[..., None] * difference
        return of_y.neg() if ctx.needs_input_grad[0] else None, of_y


def squared_error(x: Tensor, y: Tensor) -> Tensor:
    r"""Returns the squared error, summed over features: :math:`\|x - y\|^2`.

    The sum (not the mean) is what the paper's lambdas belong to.

    Arguments:
        x: Rows of shape (..., N, M).
        y: Rows of shape (..., N, M).

    Returns:
        One distance per row, of shape (..., N).

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), Eq. (6)
    """
    squared: Tensor = _SquaredError.apply(x, y)  # type: ignore[no-untyped-call]
    return squared


WINDOW = 8
"""The height and width of the windows of SSIM, in pixels, as in Wang and Bovik (2002)."""

C1 = 0.01**2
C2 = 0.03**2
"""The constants that keep SSIM finite in flat windows, for values in [0, 1] (Wang et al., 2004)."""


def window_means(x: Tensor, window: int) -> Tensor:
    """Returns the means over all windows of images (..., C, H, W), of shape (..., C, H - window + 1, W - window + 1).

    They are products with band matrices from both sides, which a CPU does several times as fast as pooling.

    Raises:
        ValueError: The window does not fit the images.
    """
    height, width = x.shape[-2:]
    if not 2 <= window <= min(height, width):
        raise ValueError(f"window is {window}, expected at least 2 and at most {min(height, width)}")
    return band(height, window, x) @ x @ band(width, window, x).mT


def band(size: int, window: int, like: Tensor) -> Tensor:
    """Returns the matrix (size - window + 1, size) that takes means over `window` neighbours."""
    ones = torch.ones(size - window + 1, size, dtype=like.dtype, device=like.device)
    return ones.triu().tril(window - 1) / window


def ssim(x: Tensor, y: Tensor, *, window: int = WINDOW, c1: float = C1, c2: float = C2) -> Tensor:
    r"""Returns the structural similarity of images, the mean over all windows of all channels.

    .. math:: \frac{2 \mu_x \mu_y + c_1}{\mu_x^2 + \mu_y^2 + c_1} \cdot
        \frac{2 \sigma_{xy} + c_2}{\sigma_x^2 + \sigma_y^2 + c_2}

    The paper's Eq. (60) has no constants; 0 gives it, but is 0 / 0 where a window is flat.

    Arguments:
        x: Images of shape (..., C, H, W) with values in [0, 1].
        y: Images of shape (..., C, H, W).
        window: The height and width of a window.
        c1: What keeps the ratio of means finite.
        c2: What keeps the ratio of variances finite.

    Returns:
        One similarity per image, of shape (...), at most 1.

    Raises:
        ValueError: The window does not fit the images.

    References:
        | Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), Eq. (60)
        | Image Quality Assessment: From Error Visibility to Structural Similarity (Wang et al., 2004)
    """
    means = window_means(torch.stack([x, y, x.square() + y.square(), x * y]), window)
    mean_x, mean_y, squares, product = means.unbind()
    both, squared = mean_x * mean_y, mean_x.square() + mean_y.square()
    luminance = (2 * both + c1) / (squared + c1)
    structure = (2 * (product - both) + c2) / (squares - squared + c2)
    return (luminance * structure).mean(dim=(-3, -2, -1))


def ssim_distance(x: Tensor, y: Tensor, *, window: int = WINDOW, c1: float = C1, c2: float = C2) -> Tensor:
    """Returns 1 - SSIM of images (..., C, H, W), of shape (...): 0 for equal ones, at most 2.

    Raises:
        ValueError: The window does not fit the images.
    """
    return 1 - ssim(x, y, window=window, c1=c1, c2=c2)


def ssim_product(x: Tensor, u: Tensor, v: Tensor, *, window: int = WINDOW, c1: float = C1, c2: float = C2) -> Tensor:
    r"""Returns the inner product of small displacements u and v of an image x that belongs to 1 - SSIM.

    .. math:: u^T A(x) v = \text{mean over windows of }
        \frac{\mu_u \mu_v}{2 \mu_x^2 + c_1} + \frac{\sigma_{uv}}{2 \sigma_x^2 + c_2}

    The matrix V of the paper's Eq. (63) is :math:`\frac{1}{N^2} (I - \frac{1}{N^2} 1 1^T)`: the factors it prints,
    N - 1 and 1 / N^2, are those of a window of N values, not of N x N.

    Arguments:
        x: Images of shape (..., C, H, W) with values in [0, 1].
        u: Displacements of shape (..., C, H, W).
        v: Displacements of shape (..., C, H, W).
        window: The height and width of a window.
        c1: The constant of the means, as in `ssim`.
        c2: The constant of the variances, as in `ssim`.

    Returns:
        One product per image, of shape (...).

    Raises:
        ValueError: The window does not fit the images.

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), appendix C, Eq. (62) to (64)
    """
    mean_x, mean_u, mean_v = (window_means(values, window) for values in (x, u, v))
    variance = window_means(x.square(), window) - mean_x.square()
    covariance = window_means(u * v, window) - mean_u * mean_v
    products = mean_u * mean_v / (2 * mean_x.square() + c1) + covariance / (2 * variance + c2)
    return products.mean(dim=(-3, -2, -1))


def ssim_quadratic(x: Tensor, displacement: Tensor, *, window: int = WINDOW, c1: float = C1, c2: float = C2) -> Tensor:
    """Returns what 1 - SSIM of x and x + displacement is to second order, Eq. (64), of shape (...).

    Arguments:
        x: Images of shape (..., C, H, W) with values in [0, 1].
        displacement: Small displacements of shape (..., C, H, W).
        window: The height and width of a window.
        c1: The constant of the means, as in `ssim`.
        c2: The constant of the variances, as in `ssim`.

    Raises:
        ValueError: The window does not fit the images.

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), Eq. (64)
    """
    return ssim_product(x, displacement, displacement, window=window, c1=c1, c2=c2)
