"""Small tables in place of the public ones, and a model that is fitted in a second."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from training.datasets import DATASETS
from training.datasets.base import Dataset, Feature
from training.export import export
from training.fitting import Member, fit
from training.jobs import FittedModel, Job, build, run
from training.methods.mixture_autoencoder import MixtureAutoencoder
from training.settings import MethodName, Settings

FEATURES = ("age", "TSH", "T3", "TT4", "T4U", "FTI")
EPOCHS = 30


def small_table(seed: int = 0, normal: int = 600, anomalies: int = 61) -> Dataset:
    """Makes a table whose normal rows lie near a plane in six dimensions, and whose anomalies don't."""
    generator = np.random.default_rng(seed)
    plane = generator.normal(size=(2, 6))
    rows = generator.normal(size=(normal, 2)) @ plane + 0.05 * generator.normal(size=(normal, 6))
    strange = generator.uniform(-4, 4, size=(anomalies, 6))
    x = np.concatenate([rows, strange]).astype(np.float32)
    y = np.arange(len(x)) >= normal
    features = tuple(Feature(name) for name in FEATURES)
    return Dataset("thyroid", features, x, y, contamination=0.1, sha256="0" * 64)


def small_job(seed: int = 0, method: MethodName = "RaDOGAGA", members: int = 1, **overrides: object) -> Job:
    """Describes a short fit of the small table."""
    return Job(
        dataset="thyroid",
        method=method,
        h="identity" if method == "DAGMM" else "log",
        recipe="robust" if members == 1 else "ensemble",
        seed=seed,
        overrides={"batch_size": 100, "epochs": EPOCHS, "members": members, **overrides},
    )


def small_model(job: Job) -> FittedModel:
    """Fits the small table."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "thyroid", small_table)
        return run(job)


def small_rows() -> Tensor:
    """The normal rows of the small table."""
    table = small_table()
    return torch.from_numpy(table.x[~table.y])


def fit_alone(x: Tensor, settings: Settings, seed: int = 0, method: MethodName = "RaDOGAGA") -> MixtureAutoencoder:
    """Fits one model on all rows of `x`, and raises what went wrong with it."""
    member = Member(build(method, x, settings, seed), torch.arange(len(x)), seed)
    for error in fit([member], x, settings).values():
        raise error
    return member.method


@pytest.fixture(scope="session")
def fitted() -> FittedModel:
    """A fitted model of the small table; tests must leave it as it is."""
    return small_model(small_job())


@pytest.fixture(scope="session")
def exported(fitted: FittedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `fitted` was exported to."""
    return export(fitted, tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def fitted_ensemble() -> FittedModel:
    """Three members fitted to the small table; tests must leave them as they are."""
    return small_model(small_job(members=3))


@pytest.fixture(scope="session")
def exported_ensemble(fitted_ensemble: FittedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `fitted_ensemble` was exported to."""
    return export(fitted_ensemble, tmp_path_factory.mktemp("models"))


@pytest.fixture
def small_thyroid(monkeypatch: pytest.MonkeyPatch) -> Dataset:
    """Puts the small table in Thyroid's place, wherever a dataset is loaded by its name."""
    table = small_table()
    monkeypatch.setitem(DATASETS, "thyroid", lambda: table)
    return table


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Keeps PyTorch on one thread, as the command line does: results depend on how many there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
