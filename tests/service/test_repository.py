"""What is served at one moment."""

from pathlib import Path

import pytest

from service.catalog import Catalog
from service.errors import DatasetNotFound, VersionNotFound
from service.repository import ModelRepository
from service.runtime import Runtime
from tests.service.versions import copy_version


@pytest.fixture
def repository(models: Path, folder: Path) -> ModelRepository:
    copy_version(folder, 2)
    copy_version(folder, 10)
    return Catalog(models, Runtime("cpu")).open()


def test_the_newest_version_is_served_unless_one_is_named(repository: ModelRepository) -> None:
    assert repository.find("thyroid").manifest.version == 10
    assert repository.find("thyroid", 2).manifest.threshold == 2.0
    assert [detector.manifest.version for detector in repository] == [1, 10, 2]
    assert repository.datasets() == ["thyroid"]


def test_what_is_not_there_is_refused_with_what_is(repository: ModelRepository) -> None:
    with pytest.raises(DatasetNotFound, match='No model for dataset "x". Known datasets: thyroid.'):
        repository.find("x")
    with pytest.raises(VersionNotFound, match='No version 3 of dataset "thyroid". Known versions: 1, 2, 10.'):
        repository.find("thyroid", 3)


def test_it_knows_what_it_serves(repository: ModelRepository, models: Path) -> None:
    other = Catalog(models, Runtime("cpu")).open()
    assert repository.serves(repository.find("thyroid", 2))
    assert not repository.serves(other.find("thyroid", 2))
