"""Distances by hand, by plain loops, and by their matrices."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.distances import C1, C2, squared_error, ssim, ssim_distance, ssim_product, ssim_quadratic


def test_squared_error_sums_over_features() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])
    y = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    assert squared_error(x, y).tolist() == [13.0, 3.0]


def images(n: int = 3, size: int = 12, seed: int = 0) -> Tensor:
    """Images with values in [0, 1] and no flat window."""
    drawn = np.random.default_rng(seed).random((n, 2, size, size + 3))
    return torch.from_numpy(0.2 + 0.6 * drawn)


def ssim_by_loops(x: Tensor, y: Tensor, window: int, c1: float, c2: float) -> list[float]:
    found = []
    for own, other in zip(x.numpy(), y.numpy(), strict=True):
        values = []
        for a, b in zip(own, other, strict=True):
            for i in range(a.shape[0] - window + 1):
                for j in range(a.shape[1] - window + 1):
                    u, v = (each[i : i + window, j : j + window].ravel() for each in (a, b))
                    covariance = np.cov(u, v, bias=True)
                    luminance = (2 * u.mean() * v.mean() + c1) / (u.mean() ** 2 + v.mean() ** 2 + c1)
                    structure = (2 * covariance[0, 1] + c2) / (covariance[0, 0] + covariance[1, 1] + c2)
                    values.append(luminance * structure)
        found.append(float(np.mean(values)))
    return found


@pytest.mark.parametrize(("window", "c1", "c2"), [(8, C1, C2), (5, 0.0, 0.0), (2, 0.1, 0.3)])
def test_ssim_beside_plain_loops(window: int, c1: float, c2: float) -> None:
    x, y = images(), images(seed=1)
    expected = ssim_by_loops(x, y, window, c1, c2)
    assert ssim(x, y, window=window, c1=c1, c2=c2).tolist() == pytest.approx(expected, rel=1e-9)
    distances = ssim_distance(x, y, window=window, c1=c1, c2=c2)
    assert distances.tolist() == pytest.approx([1 - each for each in expected], rel=1e-9)


def test_ssim_of_an_image_with_itself_is_1_and_with_its_negative_is_less_than_0() -> None:
    x = images()
    assert ssim(x, x).tolist() == pytest.approx([1.0] * 3)
    assert (ssim(x, 1 - x) < 0).all()
    assert torch.equal(ssim(x, 1 - x), ssim(1 - x, x))


def test_ssim_can_not_tell_an_image_from_its_negative_below_zero() -> None:
    """Both factors change their sign: decoders have to start on the right side."""
    x = images()
    assert ssim(x, -x, c1=0.0, c2=0.0).tolist() == pytest.approx([1.0] * 3)


def test_a_flat_window_needs_the_constants() -> None:
    flat = torch.full((1, 1, 8, 8), 0.5)
    assert ssim(flat, flat).tolist() == [1.0]
    assert ssim(flat, flat, c1=0.0, c2=0.0).isnan().all()


def test_ssim_in_float32() -> None:
    x, y = images(), images(seed=1)
    assert ssim(x.float(), y.float()).double().numpy() == pytest.approx(ssim(x, y).numpy(), abs=1e-5)


def test_the_gradient_of_ssim_beside_finite_differences() -> None:
    x, y = images(1, 4).requires_grad_(), images(1, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: ssim_distance(x, y, window=3), (x, y))


def test_ssim_takes_stacks() -> None:
    x, y = images(4), images(4, seed=1)
    stacked = ssim(x.reshape(2, 2, *x.shape[1:]), y.reshape(2, 2, *y.shape[1:]))
    assert torch.equal(stacked, ssim(x, y).reshape(2, 2))


@pytest.mark.parametrize("window", [1, 0, -3, 13])
def test_a_window_that_does_not_fit_is_refused(window: int) -> None:
    message = f"window is {window}, expected at least 2 and at most 12"
    for function in (ssim, ssim_distance, ssim_quadratic):
        with pytest.raises(ValueError, match=message):
            function(images(), images(), window=window)
    with pytest.raises(ValueError, match=message):
        ssim_product(images(), images(), images(), window=window)


def matrix_of_the_form(x: NDArray[np.float64], window: int, c1: float, c2: float) -> NDArray[np.float64]:
    """Returns A(x) of Eq. (64) for one channel (H, W): M and V by windows, V with the factors that are right."""
    height, width = x.shape
    n = window**2
    m = np.ones((n, n)) / n**2
    v = (np.eye(n) - np.ones((n, n)) / n) / n
    a = np.zeros((x.size, x.size))
    rows, columns = height - window + 1, width - window + 1
    for i in range(rows):
        for j in range(columns):
            inside = [(i + p) * width + j + q for p in range(window) for q in range(window)]
            values = x.ravel()[inside]
            a[np.ix_(inside, inside)] += m / (2 * values.mean() ** 2 + c1) + v / (2 * values.var() + c2)
    a /= rows * columns
    return a


@pytest.mark.parametrize(("c1", "c2"), [(C1, C2), (0.0, 0.0)])
def test_the_inner_product_is_that_of_the_matrix(c1: float, c2: float) -> None:
    x, u, v = (images(1, 6, seed)[0, :1] for seed in range(3))
    u, v = u - 0.4, v - 0.6
    a = matrix_of_the_form(x[0].numpy(), 3, c1, c2)
    expected = float(u.flatten().numpy() @ a @ v.flatten().numpy())
    assert ssim_product(x[None], u[None], v[None], window=3, c1=c1, c2=c2).item() == pytest.approx(expected, rel=1e-9)
    expected = float(u.flatten().numpy() @ a @ u.flatten().numpy())
    assert ssim_quadratic(x[None], u[None], window=3, c1=c1, c2=c2).item() == pytest.approx(expected, rel=1e-9)
    assert np.linalg.eigvalsh(a).min() > -1e-12


@pytest.mark.parametrize(("c1", "c2"), [(C1, C2), (0.0, 0.0)])
def test_the_quadratic_form_is_half_the_second_derivative(c1: float, c2: float) -> None:
    x, u = images(1, 9), images(1, 9, seed=1) - 0.5

    def along(t: Tensor) -> Tensor:
        return ssim_distance(x, x + t * u, c1=c1, c2=c2).sum()

    zero = torch.zeros((), dtype=torch.float64)
    curvature = torch.autograd.functional.hessian(along, zero)  # type: ignore[no-untyped-call]
    assert curvature.item() / 2 == pytest.approx(ssim_quadratic(x, u, c1=c1, c2=c2).item(), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_quadratic_form_within_one_per_cent_for_displacements_of_one_per_cent(dtype: torch.dtype) -> None:
    """The bar of appendix C: the displacement's norm is a hundredth of the image's."""
    x, u = images(8, 32), images(8, 32, seed=1) - 0.5
    u = u * 0.01 * x.flatten(1).norm(dim=1)[:, None, None, None] / u.flatten(1).norm(dim=1)[:, None, None, None]
    x, u = x.to(dtype), u.to(dtype)
    ratio = ssim_quadratic(x, u) / ssim_distance(x, x + u)
    assert ratio.double().numpy() == pytest.approx(1, abs=0.01)
