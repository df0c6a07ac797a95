"""What a fit by name sees of its dataset."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.conftest import small_job, small_table
from training.datasets import DATASETS
from training.datasets.base import Dataset, protocol_a
from training.datasets.digits import digits
from training.fitting import FitError
from training.jobs import FittedModel, ImageJob, build_images, run, run_images, run_together
from training.methods.ensemble import Ensemble
from training.methods.mixture_autoencoder import MixtureAutoencoder


def fitted(monkeypatch: pytest.MonkeyPatch, x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> FittedModel:
    table = replace(small_table(), x=x)
    monkeypatch.setitem(DATASETS, "thyroid", lambda: table)
    return run(small_job(2))


def test_neither_anomalies_nor_the_test_half_reach_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    table = small_table()
    expected = fitted(monkeypatch, table.x)
    normal = protocol_a(table.y, 2).normal
    x = np.full_like(table.x, np.nan)
    x[normal] = table.x[normal]
    got = fitted(monkeypatch, x).method.state_dict()
    for name, value in expected.method.state_dict().items():
        assert torch.equal(got[name], value), name
    assert np.array_equal(expected.split.normal, normal)


def test_a_model_knows_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fitted(monkeypatch, small_table().x)
    assert model.job.settings == small_job(2).settings
    assert model.dataset.name == "thyroid"


def test_jobs_trained_together_are_as_if_alone(small_thyroid: Dataset) -> None:
    together = run_together([small_job(seed) for seed in (1, 2)])
    for seed, model in zip((1, 2), together, strict=True):
        assert isinstance(model, FittedModel)
        x = torch.from_numpy(small_thyroid.x[protocol_a(small_thyroid.y, seed).test])
        alone = run(small_job(seed))
        with torch.no_grad():
            assert torch.allclose(model.method.score(x), alone.method.score(x), rtol=1e-3, atol=1e-3)
        assert np.array_equal(model.split.normal, protocol_a(small_thyroid.y, seed).normal)


def test_the_members_of_an_ensemble_have_one_split_and_seeds_of_their_own(small_thyroid: Dataset) -> None:
    first, second = run_together([small_job(seed, members=3) for seed in (0, 1)])
    assert isinstance(first, FittedModel)
    assert isinstance(second, FittedModel)
    assert isinstance(first.method, Ensemble)
    assert isinstance(first.method.stacked, MixtureAutoencoder)
    weights = first.method.stacked.encoder.last.weight
    assert len({tuple(own.flatten().tolist()) for own in weights}) == 3
    lower = first.method.stacked.scaler.offset
    assert torch.equal(lower[0], lower[1])
    alone = run(small_job(0))
    x = torch.from_numpy(small_thyroid.x[:50])
    with torch.no_grad():
        assert torch.allclose(first.method.first.score(x), alone.method.score(x), rtol=1e-3, atol=1e-3)


def test_what_goes_wrong_is_told_for_each_job(small_thyroid: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    x = small_thyroid.x.copy()
    only_first = np.setdiff1d(protocol_a(small_thyroid.y, 0).normal, protocol_a(small_thyroid.y, 1).normal)
    x[only_first] = np.nan
    monkeypatch.setitem(DATASETS, "thyroid", lambda: replace(small_thyroid, x=x))
    failed, sound = run_together([small_job(0), small_job(1)])
    assert isinstance(failed, FitError)
    assert isinstance(sound, FittedModel)
    with pytest.raises(FitError, match="step 1 of"):
        run(small_job(0))
    assert isinstance(run_together([small_job(0, members=2)])[0], FitError)


def test_of_images_neither_anomalies_nor_the_test_half_reach_the_fit() -> None:
    job, images = ImageJob(dataset="digits", seed=2, overrides={"epochs": 1}), digits()
    normal = protocol_a(images.y, 2).normal
    x = np.full_like(images.x, np.nan)
    x[normal] = images.x[normal]
    expected, got = run_images(job), run_images(job, replace(images, x=x))
    for name, value in expected.method.state_dict().items():
        assert value.dtype == torch.float64
        assert torch.equal(got.method.state_dict()[name], value), name
    assert np.array_equal(got.split.normal, normal)
    assert (got.job.settings.epochs, got.job.method, got.job.recipe, got.job.protocol) == (1, "RaDOGAGA", "images", "A")


def test_rows_that_are_no_images_are_refused() -> None:
    with pytest.raises(FitError, match="thyroid has rows that are no images"):
        build_images(small_table(), ImageJob(dataset="digits", seed=0).settings, 0)


def test_a_network_that_the_images_don_t_suit_is_refused() -> None:
    settings = ImageJob(dataset="digits", seed=0, overrides={"kernels": (3, 3, 3, 3)}).settings
    with pytest.raises(FitError, match="digits: height is 8, expected a multiple of 16 for 4 layers"):
        build_images(digits(), settings, 0)
