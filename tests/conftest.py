"""Small tables in place of the public ones, and a model that is fitted in a second."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from training.datasets import DATASETS
from training.datasets.base import Dataset, Feature, protocol_a
from training.experiments.records import Record
from training.export import export
from training.fitting import build, fit
from training.jobs import FittedModel, Job

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


def small_job(seed: int = 0, **overrides: object) -> Job:
    """Describes a short fit of the small table."""
    return Job("thyroid", "log", "robust", seed, "table2", {"batch_size": 100, "epochs": EPOCHS, **overrides})


def small_model(seed: int = 0) -> FittedModel:
    """Fits the small table."""
    job, dataset = small_job(seed), small_table()
    split = protocol_a(dataset.y, seed)
    x = torch.from_numpy(dataset.x[split.normal])
    method = build(x, job.settings, seed)
    fit(method, x, job.settings, seed)
    return FittedModel(job, method, dataset, split)


def record_of(experiment: str, job: Job, metrics: Mapping[str, object], **other_settings: object) -> Record:
    """Makes the line that a run would have left."""
    return Record(
        experiment=experiment,
        method="RaDOGAGA",
        h=job.h,
        recipe=job.recipe,
        dataset=job.dataset,
        seed=job.seed,
        settings={**job.settings.to_json(), **other_settings},
        metrics=metrics,
        seconds=10.0,
        commit="",
    )


@pytest.fixture(scope="session")
def fitted() -> FittedModel:
    """A fitted model of the small table; tests must leave it as it is."""
    return small_model()


@pytest.fixture(scope="session")
def exported(fitted: FittedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `fitted` was exported to."""
    return export(fitted, tmp_path_factory.mktemp("models"))


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
