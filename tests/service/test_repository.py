"""A folder of models becomes a repository, or an error."""

import json
import shutil
from pathlib import Path

import pytest

from service.errors import DatasetNotFound, StartError, VersionNotFound
from service.repository import ModelRepository, find_folder
from service.runtime import Runtime
from tests.manifests import write_manifest

CPU = Runtime("cpu")


def copy_version(folder: Path, version: int) -> None:
    """Copies a model folder to another version, with a threshold of its own."""
    target = folder.parent / str(version)
    shutil.copytree(folder, target)
    manifest = json.loads((target / "manifest.json").read_text())
    manifest.update(version=version, threshold=float(version))
    write_manifest(target / "manifest.json", manifest)


def test_the_newest_version_is_served_unless_one_is_named(models: Path, folder: Path) -> None:
    copy_version(folder, 2)
    copy_version(folder, 10)
    repository = ModelRepository.load(models, CPU)
    assert repository.find("thyroid").manifest.version == 10
    assert repository.find("thyroid", 2).manifest.threshold == 2.0
    assert [detector.manifest.version for detector in repository] == [1, 10, 2]
    assert repository.datasets() == ["thyroid"]


def test_what_is_not_there_is_refused_with_what_is(models: Path) -> None:
    repository = ModelRepository.load(models, CPU)
    with pytest.raises(DatasetNotFound, match='No model for dataset "x". Known datasets: thyroid.'):
        repository.find("x")
    with pytest.raises(VersionNotFound, match='No version 2 of dataset "thyroid". Known versions: 1.'):
        repository.find("thyroid", 2)


def test_hidden_entries_and_files_are_no_models(models: Path) -> None:
    (models / ".export-abc").mkdir()
    (models / "thyroid" / ".fit.pt").write_bytes(b"")
    (models / "README.md").write_text("words")
    (models / "empty").mkdir()
    assert ModelRepository.load(models, CPU).datasets() == ["thyroid"]


@pytest.mark.parametrize("name", ["latest", "0", "01", "1.5", "-1"])
def test_a_folder_that_is_no_version(models: Path, name: str) -> None:
    (models / "thyroid" / name).mkdir()
    with pytest.raises(StartError, match=f"the folder is called '{name}', expected a version like 1"):
        ModelRepository.load(models, CPU)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=rf"{tmp_path}: there is no model folder .* \(RADOGAGA_MODELS\)"):
        ModelRepository.load(tmp_path, CPU)


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"nowhere: can't be read \(No such file or directory\) \(RADOGAGA_MODELS\)"):
        ModelRepository.load(tmp_path / "nowhere", CPU)


def test_one_broken_version_stops_the_start(models: Path, folder: Path) -> None:
    copy_version(folder, 2)
    (folder / "encoder.onnx").unlink()
    with pytest.raises(StartError, match="thyroid/1/encoder.onnx"):
        ModelRepository.load(models, CPU)


def test_a_folder_is_found_without_loading_it(models: Path, folder: Path) -> None:
    copy_version(folder, 10)
    (folder / "scorer.onnx").unlink()
    assert find_folder(models, "thyroid") == models / "thyroid" / "10"
    assert find_folder(models, "thyroid", 1) == folder


def test_a_folder_that_is_not_there_is_named(models: Path) -> None:
    (models / "empty").mkdir()
    with pytest.raises(DatasetNotFound, match='No model for dataset "empty". Known datasets: thyroid.'):
        find_folder(models, "empty")
    with pytest.raises(VersionNotFound, match='No version 2 of dataset "thyroid". Known versions: 1.'):
        find_folder(models, "thyroid", 2)
