"""What is measured of autoencoders of images, on decoders whose Jacobian is known."""

import math

import pytest
import torch
from torch import Tensor, nn

from training.distances import ssim, ssim_distance
from training.experiments.face_measures import (
    TRAVERSED,
    changes,
    correlation_within,
    dimensions_for,
    flatness,
    isometry,
    latents,
    log_correlation,
    products,
    quadratic_errors,
    sensitivities,
    similarity,
    traversal,
    unevenness,
    variances,
)
from training.methods.factorized_radogaga import FactorizedRaDOGAGA
from training.methods.image_autoencoder import brightness
from training.nn.conv import ImageShape
from training.settings import DistanceName, ImageSettings

SHAPE = ImageShape(1, 8, 8)


class Affine(nn.Module):
    """A decoder whose Jacobian is its matrix."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, z: Tensor) -> Tensor:
        ground = torch.linspace(0.2, 0.8, 64, dtype=z.dtype).square()
        rows: Tensor = ground + z @ self.matrix
        return rows


def model(matrix: Tensor, distance: DistanceName = "squared_error") -> FactorizedRaDOGAGA:
    settings = ImageSettings(
        kernels=(3,), channels=2, hidden=4, latent=len(matrix), distance=distance, window=4, epochs=1
    )
    method = FactorizedRaDOGAGA(brightness(SHAPE, 255.0), SHAPE, settings).double()
    method.decoder = Affine(matrix)  # type: ignore[assignment]
    return method.requires_grad_(False)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def orthogonal(length: float) -> Tensor:
    return length * torch.linalg.qr(drawn(64, 3)).Q.T  # type: ignore[no-any-return]


def test_sensitivities_are_the_squared_lengths_of_the_columns() -> None:
    matrix = drawn(4, 64)
    found = sensitivities(model(matrix), drawn(5, 4, seed=1), torch.full((4,), 0.01, dtype=torch.float64), [2, 0])
    expected = matrix.square().sum(dim=1)[[2, 0]]
    assert torch.allclose(found, expected[:, None].expand(2, 5))


def test_unevenness_is_of_the_means() -> None:
    assert unevenness(torch.tensor([[1.0, 3.0], [2.0, 2.0]])) == 0
    assert unevenness(torch.tensor([[1.0, 1.0], [3.0, 3.0]])) == pytest.approx(0.5)


def test_products_are_those_of_the_jacobian() -> None:
    matrix, z, v, w = drawn(4, 64), drawn(5, 4, seed=1), drawn(5, 4, seed=2), drawn(5, 4, seed=3)
    expected = ((v @ matrix) * (w @ matrix)).sum(dim=1)
    assert torch.allclose(products(model(matrix), z, v, w), expected, rtol=1e-6)


def test_products_of_ssim_are_what_small_steps_cost() -> None:
    matrix, z, v, w = 0.01 * drawn(4, 64), drawn(5, 4, seed=1), drawn(5, 4, seed=2), drawn(5, 4, seed=3)
    method, small = model(matrix, "ssim"), 1e-3

    def cost(tangent: Tensor) -> Tensor:
        images = [SHAPE.images(method.decoder(point)) for point in (z, z + small * tangent)]
        distances: Tensor = ssim_distance(*images, window=4) / small**2
        return distances

    polarized = (cost(v + w) - cost(v - w)) / 4
    assert torch.allclose(products(method, z, v, w), polarized, rtol=1e-2, atol=1e-4)


def test_an_isometry_has_correlation_1_and_its_slope() -> None:
    found = isometry(model(orthogonal(0.3)), drawn(20, 3), torch.ones(3, dtype=torch.float64))
    assert found["correlation"] == pytest.approx(1)
    assert found["slope"] == pytest.approx(0.09)


def test_columns_of_unequal_length_have_the_correlation_of_theory() -> None:
    matrix = orthogonal(1.0) * torch.tensor([[1.0], [1.0], [3.0]], dtype=torch.float64)
    found = isometry(model(matrix), drawn(2000, 3), torch.ones(3, dtype=torch.float64))
    gram = torch.tensor([1.0, 1.0, 9.0])
    expected = float(gram.sum()) / math.sqrt(3 * float(gram.square().sum()))
    assert found["correlation"] == pytest.approx(expected, abs=0.02)
    flat = isometry(model(matrix), drawn(20, 3), torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64))
    assert flat["correlation"] == pytest.approx(1)


def test_the_quadratic_form_is_held_against_ssim() -> None:
    x = torch.rand(40, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = quadratic_errors(x, SHAPE, window=8)
    assert set(found) == {"noise", "towards another"}
    for errors in found.values():
        assert 0 < errors["mean"] <= errors["largest"] < 0.03
    assert found["noise"]["largest"] < found["towards another"]["largest"]
    with pytest.raises(ValueError, match="window is 9"):
        quadratic_errors(x, SHAPE, window=9)


def test_a_scale_that_differs_between_images_does_not_show_within_them() -> None:
    method, z, ones = model(orthogonal(1.0)), drawn(12, 3, seed=1), torch.ones(3, dtype=torch.float64)
    straight = method.decoder

    class Bent(nn.Module):
        """The same, but for a scale that grows with the first feature and hardly changes over a small step."""

        def forward(self, z: Tensor) -> Tensor:
            return straight((z - z.round()) * z.round()[:, :1].exp())  # type: ignore[no-any-return]

    points = z.round() + 0.1
    method.decoder = Bent()  # type: ignore[assignment]
    assert correlation_within(method, points, ones) == pytest.approx(1)
    assert isometry(method, points, ones)["correlation"] < 0.9


def test_flatness_is_what_the_quadratic_form_divides_by() -> None:
    method, z = model(0.01 * drawn(3, 64), "ssim"), drawn(2, 3, seed=1)
    images = method.decoder(z).view(2, 8, 8).numpy()
    for image, found in zip(images, flatness(method, z).tolist(), strict=True):
        windows = [image[i : i + 4, j : j + 4].var() for i in range(5) for j in range(5)]
        assert found == pytest.approx(sum(1 / (2 * each + 0.03**2) for each in windows) / 25)


def test_log_correlation_is_of_powers() -> None:
    x = torch.tensor([1.0, 2.0, 5.0, 9.0])
    assert log_correlation(x, 3 * x**-0.5) == pytest.approx(-1)


def test_variances_and_how_many_hold_most_of_them() -> None:
    z = drawn(50, 3)
    assert torch.allclose(variances(z), (z - z.mean(dim=0)).square().mean(dim=0))
    spread = torch.tensor([1.0, 6.0, 2.0, 1.0])
    assert [dimensions_for(spread, share) for share in (0.5, 0.7, 0.9, 0.95)] == [1, 2, 3, 4]
    assert dimensions_for(torch.tensor([0.0, 5.0])) == 1


def test_latents_and_similarity_are_those_of_the_whole_path() -> None:
    method = model(0.05 * drawn(3, 64))
    x = (255 * torch.rand(300, 64, generator=torch.Generator().manual_seed(0))).byte()
    z = latents(method, x)
    assert torch.allclose(z, method.encode(x.double()))
    alike, error = similarity(method, x, z)
    scaled, x_hat = x.double() / 255, method.decoder(z)
    assert alike == pytest.approx(float(ssim(SHAPE.images(scaled), SHAPE.images(x_hat), window=4).mean()))
    assert error == pytest.approx(float((scaled - x_hat).square().mean()))


def test_a_traversal_moves_one_feature_from_the_mean_by_its_deviations() -> None:
    matrix, z = drawn(3, 64), drawn(100, 3, seed=1) * 3 + 1
    method = model(matrix)
    rows = traversal(method, z, 1, (-2.0, 0.0, 1.0))
    middle = method.decoder(z.mean(dim=0)[None])[0]
    deviation = z[:, 1].std(correction=0)
    expected = middle + torch.tensor([-2.0, 0.0, 1.0])[:, None] * deviation * matrix[1]
    assert torch.allclose(rows, expected)
    for dimension, found in zip((2, 0), changes(method, z, [2, 0]), strict=True):
        length = matrix[dimension].square().sum() * z[:, dimension].var(correction=0)
        assert found == pytest.approx([place**2 * length.item() for place in TRAVERSED])
