"""The toy data: our generator against scipy, and the authors' file in its published form."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from training.datasets import toy as module
from training.datasets.files import DatasetFileError, RemoteFile
from training.datasets.toy import MEANS, VARIANCES, mixture_density, toy, toy_csv


def test_the_density_is_scipys() -> None:
    s = np.random.default_rng(0).uniform(-5, 15, size=(100, 3))
    expected = sum(
        multivariate_normal(mean, np.diag(variances)).pdf(s) / 3
        for mean, variances in zip(MEANS, VARIANCES, strict=True)
    )
    assert np.allclose(mixture_density(s), expected, rtol=1e-12)


def test_rows_have_rank_3_and_lie_where_their_components_are() -> None:
    data = toy(0, rows=3000)
    assert data.x.shape == (3000, 16)
    assert data.x.dtype == np.float32
    singular = np.linalg.svd(data.x, compute_uv=False)
    assert singular[2] > 1
    assert singular[3] < 1e-5 * singular[0]
    assert np.bincount(data.component) == pytest.approx(1000, rel=0.1)
    u = np.linalg.lstsq(MEANS[1:], centres(data.x, data.component)[1:], rcond=None)[0]
    assert np.abs(u).max() < 0.55  # uniform noise on (-1/2, 1/2), and the means' own deviation


def test_the_density_of_a_row_is_that_of_the_point_behind_it() -> None:
    data = toy(3, rows=2000)
    u = np.random.default_rng(3).uniform(-0.5, 0.5, size=(3, 16))
    s = data.x @ np.linalg.pinv(u)
    assert np.allclose(data.density, mixture_density(s), rtol=1e-3)
    for component in range(3):
        own = s[data.component == component]
        assert own.mean(axis=0) == pytest.approx(MEANS[component], abs=0.3)
        assert own.var(axis=0) == pytest.approx(VARIANCES[component], rel=0.2)


def centres(x: np.ndarray, component: np.ndarray) -> np.ndarray:
    return np.array([x[component == own].mean(axis=0) for own in range(3)])


def test_a_seed_decides_the_data() -> None:
    first, again, other = toy(1, rows=50), toy(1, rows=50), toy(2, rows=50)
    assert np.array_equal(first.x, again.x)
    assert not np.array_equal(first.x, other.x)


def test_the_published_form_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = np.arange(36.0).reshape(2, 18)
    path = tmp_path / "small.csv"
    np.savetxt(path, table, delimiter=",")
    content = path.read_bytes()
    file = RemoteFile("small.csv", "https://data.test/s", hashlib.sha256(content).hexdigest(), len(content))
    monkeypatch.setattr(module, "TOY", file)
    data = toy_csv(tmp_path)
    assert np.array_equal(data.x, table[:, :16])
    assert data.density.tolist() == [16.0, 34.0]
    assert data.component.tolist() == [17, 35]
    path.write_bytes(content[:-1])
    with pytest.raises(DatasetFileError, match="is cut short"):
        toy_csv(tmp_path)


@pytest.mark.data
def test_the_authors_file_obeys_our_means_and_variances() -> None:
    data = toy_csv()
    assert data.x.shape == (10_000, 16)
    u = np.linalg.lstsq(MEANS[1:], centres(data.x, data.component)[1:], rcond=None)[0]
    distances = np.linalg.norm(data.x[:, None, :] - MEANS @ u, axis=-1)
    variances = VARIANCES[:, 0]
    densities = np.exp(-(distances**2) / (2 * variances)) / (2 * np.pi * variances) ** 1.5
    slope, offset = np.polyfit(np.log(data.density), np.log(densities.mean(axis=-1)), 1)
    assert slope == pytest.approx(1.0, abs=0.01)
    assert offset == pytest.approx(0.0, abs=0.05)
