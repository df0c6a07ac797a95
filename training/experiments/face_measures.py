r"""What section 4.3 measures of autoencoders of images: variances, D'_i, inner products, and traversals."""

from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor

from training.distances import C2, ssim, ssim_distance, ssim_product, ssim_quadratic, window_means
from training.methods.base import by_parts
from training.methods.image_autoencoder import ImageAutoencoder
from training.nn.conv import ImageShape

TOP = 9
"""D'_i is compared over so many dimensions, those of the largest variance."""

SHARE = 0.9
"""The share of the latent's variance whose dimensions are counted."""

DELTA = 1e-2
"""The small displacement of a latent feature, in standard deviations of that feature."""

STEP = 1e-4
"""Half of the distance over which the decoder is differentiated, in units of the latent."""

SENSITIVE = 200
"""Test images that D'_i and inner products are averaged over, but for the network of appendix F."""

PAIRS = 5
"""Pairs of tangents for each of these images."""

SMALL_DISPLACEMENT = 0.01
"""The norm of a displacement over that of the image, for which Eq. (64) is held against Eq. (60)."""

PAIRS_WITHIN = 60
"""Pairs of tangents at one latent."""

TRAVERSED = (-2.0, -1.0, 1.0, 2.0)
"""Where traversals are compared with their middle, in standard deviations."""


def variances(z: Tensor) -> Tensor:
    """Returns the variances (L,) of latents (N, L)."""
    return z.var(dim=0, correction=0)


def dimensions_for(spread: Tensor, share: float = SHARE) -> int:
    """Returns how many of the largest variances (L,) sum to a share of them all."""
    cumulative = spread.sort(descending=True).values.cumsum(dim=0) / spread.sum()
    return int((cumulative < share).sum()) + 1


@torch.no_grad()
def sensitivities(method: ImageAutoencoder, z: Tensor, deltas: Tensor, dimensions: Sequence[int]) -> Tensor:
    r"""Returns :math:`D'_i(z) = D(g(z), g(z + \delta_i)) / \delta^2` at latents, for some dimensions.

    Arguments:
        method: The model, in float64: the distances are as small as delta squared.
        z: Latents (N, L).
        deltas: The displacement of each dimension, of shape (L,).
        dimensions: The dimensions i, of which there are K.

    Returns:
        Ratios of shape (K, N).

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), section 4.3
    """
    middle = method.decoder(z)
    found = []
    for dimension in dimensions:
        displaced = z.clone()
        displaced[:, dimension] += deltas[dimension]
        found.append(method.distance(middle, method.decoder(displaced)) / deltas[dimension] ** 2)
    return torch.stack(found)


def unevenness(ratios: Tensor) -> float:
    """Returns the standard deviation over dimensions of mean D'_i, over their mean, for ratios (K, N)."""
    means = ratios.mean(dim=1)
    return float(means.std(correction=0) / means.mean())


@torch.no_grad()
def products(method: ImageAutoencoder, z: Tensor, v: Tensor, w: Tensor) -> Tensor:
    r"""Returns the inner products in :math:`x_D` of what the decoder makes of tangents at latents.

    .. math:: (J v)^T A(\hat x) (J w)

    with J the decoder's Jacobian, by central differences, and A the identity for the squared error, or the matrix of
    Eq. (64) for 1 - SSIM.

    Arguments:
        method: The model, in float64.
        z: Latents (N, L).
        v: Tangents (N, L), of a length about 1.
        w: Tangents (N, L).

    Returns:
        Products of shape (N,).

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), Eq. (5), (8) and (9)
    """

    def along(tangent: Tensor) -> Tensor:
        ahead, behind = method.decoder(z + STEP * tangent), method.decoder(z - STEP * tangent)
        difference: Tensor = (ahead - behind) / (2 * STEP)
        return difference

    x_hat, u, t = method.decoder(z), along(v), along(w)
    if method.settings.distance == "squared_error":
        return (u * t).sum(dim=-1)
    images = method.shape.images
    return ssim_product(images(x_hat), images(u), images(t), window=method.settings.window)


class Isometry(TypedDict):
    """How inner products of tangent pairs in z compare with those in x_D.

    `correlation` is Pearson's, `slope` that of the regression through the origin of the products in x_D on those in z,
    in theory 1 / (2 lambda2 sigma^2).
    """

    correlation: float
    slope: float


def isometry(method: ImageAutoencoder, z: Tensor, scales: Tensor, seed: int = 0) -> Isometry:
    """Compares the inner products of normal tangents at latents (N, L), with a standard deviation (L,) by dimension."""
    generator = torch.Generator().manual_seed(seed)
    inner, outer = [], []
    for _ in range(PAIRS):
        v, w = (torch.randn(z.shape, dtype=z.dtype, generator=generator) * scales for _ in range(2))
        inner.append((v * w).sum(dim=-1))
        outer.append(products(method, z, v, w))
    in_z, in_x = torch.cat(inner), torch.cat(outer)
    return Isometry(
        correlation=float(torch.corrcoef(torch.stack([in_z, in_x]))[0, 1]),
        slope=float((in_z * in_x).sum() / in_z.square().sum()),
    )


def correlation_within(method: ImageAutoencoder, z: Tensor, scales: Tensor, seed: int = 0) -> float:
    """Returns the correlation of `isometry` for tangents at one latent, its mean over latents (N, L).

    Other than that over all latents, it does not suffer from a scale that differs from image to image.
    """
    generator, found = torch.Generator().manual_seed(seed), []
    for point in z:
        v, w = (torch.randn(PAIRS_WITHIN, len(point), dtype=z.dtype, generator=generator) * scales for _ in range(2))
        outer = products(method, point.repeat(PAIRS_WITHIN, 1), v, w)
        found.append(torch.corrcoef(torch.stack([(v * w).sum(dim=-1), outer]))[0, 1])
    return float(torch.stack(found).mean())


@torch.no_grad()
def flatness(method: ImageAutoencoder, z: Tensor) -> Tensor:
    r"""Returns the mean over windows of :math:`1 / (2 \sigma_x^2 + c_2)` of what is decoded from latents (N, L).

    That is how much 1 - SSIM weighs a change of an image by Eq. (64), but for changes of the windows' means.
    """
    images, window = method.shape.images(method.decoder(z)), method.settings.window
    variance = window_means(images.square(), window) - window_means(images, window).square()
    return (1 / (2 * variance + C2)).mean(dim=(-3, -2, -1))


def log_correlation(x: Tensor, y: Tensor) -> float:
    """Returns the correlation of the logarithms of positive values (N,)."""
    return float(torch.corrcoef(torch.stack([x.log(), y.log()]))[0, 1])


@torch.no_grad()
def latents(method: ImageAutoencoder, x: Tensor) -> Tensor:
    """Returns latents (N, L) of raw rows (N, M), of the beta-VAE its means, in the dtype of the model's weights."""
    dtype = next(method.parameters()).dtype
    return by_parts(lambda part: method.encode(part.to(dtype)), x, rows_at_once=method.rows_at_once)


@torch.no_grad()
def similarity(method: ImageAutoencoder, x: Tensor, z: Tensor) -> tuple[float, float]:
    """Returns the mean SSIM of raw rows (N, M) and what is decoded from latents (N, L), and their mean squared error.

    The error is per value, which is in [0, 1].
    """
    alike, errors, images = 0.0, 0.0, method.shape.images
    for rows, z_rows in zip(*(torch.split(values, method.rows_at_once) for values in (x, z)), strict=True):
        scaled, x_hat = method.scaler(rows.to(z.dtype)), method.decoder(z_rows)
        alike += float(ssim(images(scaled), images(x_hat), window=method.settings.window).sum())
        errors += float((scaled - x_hat).square().mean(dim=-1).sum())
    return alike / len(x), errors / len(x)


class QuadraticErrors(TypedDict):
    """How far Eq. (64) is from Eq. (60), relative to the latter: mean and largest over images."""

    mean: float
    largest: float


def quadratic_errors(x: Tensor, shape: ImageShape, window: int) -> dict[str, QuadraticErrors]:
    """Compares 1 - SSIM with its quadratic form for displacements whose norm is a hundredth of the image's.

    Arguments:
        x: Scaled rows (N, M), in float64.
        shape: The shape of the images.
        window: The height and width of SSIM's windows.

    Returns:
        The errors for displacements by white noise, and for those towards the image before.

    Raises:
        ValueError: The window does not fit the images.

    References:
        Rate-Distortion Optimization Guided Autoencoder (Kato et al., 2019), Eq. (60) and (64)
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(x.shape, dtype=x.dtype, generator=generator)
    found, images = {}, shape.images(x)
    for name, direction in (("noise", noise), ("towards another", x.roll(1, dims=0) - x)):
        length = SMALL_DISPLACEMENT * x.norm(dim=1, keepdim=True) / direction.norm(dim=1, keepdim=True)
        displacement = shape.images(length * direction)
        exact = ssim_distance(images, images + displacement, window=window)
        errors = (ssim_quadratic(images, displacement, window=window) / exact - 1).abs()
        found[name] = QuadraticErrors(mean=float(errors.mean()), largest=float(errors.max()))
    return found


@torch.no_grad()
def traversal(method: ImageAutoencoder, z: Tensor, dimension: int, places: Sequence[float]) -> Tensor:
    """Returns scaled rows (K, M) decoded from the mean of latents (N, L) with one feature moved.

    Arguments:
        method: The model.
        z: The latents.
        dimension: The feature that is moved.
        places: To where, in its standard deviations, K of them.
    """
    points = z.mean(dim=0).repeat(len(places), 1)
    points[:, dimension] += variances(z)[dimension].sqrt() * torch.tensor(places, dtype=z.dtype)
    rows: Tensor = method.decoder(points)
    return rows


def changes(method: ImageAutoencoder, z: Tensor, dimensions: Sequence[int]) -> list[list[float]]:
    """Returns by how much D the traversals of some dimensions leave their middle, at each of `TRAVERSED`."""
    found = []
    for dimension in dimensions:
        middle, *moved = traversal(method, z, dimension, (0.0, *TRAVERSED))
        found.append(method.distance(middle.expand(len(moved), -1), torch.stack(moved)).tolist())
    return found
