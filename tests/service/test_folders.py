"""What lies in a folder of models is seen without loading it."""

from pathlib import Path

import pytest

from service.errors import DatasetNotFound, StartError, VersionNotFound
from service.folders import find_folder, find_version, look_at
from tests.service.versions import copy_version


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
    with pytest.raises(StartError, match="nowhere: can't be read"):
        find_folder(models / "nowhere", "thyroid")


def test_a_version_is_found_by_its_folder_or_its_dataset_s(
    models: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = copy_version(folder, 10)
    assert find_version(models / "thyroid") == find_version(newest) == find_version(newest, 10) == newest
    assert find_version(models / "thyroid", 1) == find_version(folder) == folder
    monkeypatch.chdir(models / "thyroid")
    assert find_version(Path()) == find_version(Path("10")) == newest


def test_a_folder_that_is_no_model_is_named(models: Path, folder: Path) -> None:
    with pytest.raises(StartError, match="models/nothing: there is no such folder of a model"):
        find_version(models / "nothing")
    with pytest.raises(StartError, match=r"scorer\.onnx: there is no such folder of a model"):
        find_version(folder / "scorer.onnx")
    with pytest.raises(StartError, match="thyroid/1: is the folder of version 1, expected one of version 2"):
        find_version(folder, 2)
    with pytest.raises(StartError, match="thyroid/new: is called 'new', expected a version as the folder's name"):
        find_version(folder.rename(models / "thyroid" / "new"))
    with pytest.raises(DatasetNotFound, match='No model for dataset "thyroid"'):
        find_version(models / "thyroid")


def test_every_change_of_a_folder_changes_its_look(folder: Path) -> None:
    seen = [look_at(folder)]
    (folder / "scorer.onnx").write_bytes(b"1")
    seen.append(look_at(folder))
    (folder / "scorer.onnx").rename(folder / "other.onnx")
    seen.append(look_at(folder))
    (folder / "other.onnx").write_bytes(b"2")
    seen.append(look_at(folder))
    (folder / "other.onnx").unlink()
    seen.append(look_at(folder))
    assert None not in seen
    assert len(set(seen)) == 5
    assert look_at(folder) == seen[-1]


def test_what_changed_just_now_is_not_quiet(folder: Path) -> None:
    (folder / "new").touch()
    look = look_at(folder)
    assert look is not None
    assert not look.is_quiet(3600)
    assert look.is_quiet(0)


def test_what_is_gone_has_no_look(folder: Path) -> None:
    assert look_at(folder / "nothing") is None
