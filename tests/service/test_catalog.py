"""A folder of models becomes what is served, and goes on to be followed."""

import gc
import json
import logging
import shutil
import weakref
from pathlib import Path

import pytest

from service import catalog as catalog_module
from service.catalog import Catalog
from service.detector import Detector
from service.errors import StartError
from service.folders import folders
from service.repository import ModelRepository
from service.runtime import Runtime
from service.signatures import Signers, generate_key, sign_file
from service.thresholds import THRESHOLDS, change_threshold
from tests.manifests import write_manifest
from tests.service.versions import copy_version

CPU = Runtime("cpu")


@pytest.fixture
def catalog(models: Path) -> Catalog:
    return Catalog(models, CPU)


def looked(catalog: Catalog, retry: bool = False) -> ModelRepository:
    found = catalog.look(retry)
    assert found is not None
    return found


def versions(repository: ModelRepository) -> list[int]:
    return sorted(detector.manifest.version for detector in repository)


def age(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets what changed just now be long ago, as far as the catalog can tell."""
    assert folder.exists()
    monkeypatch.setattr(catalog_module, "SECONDS_OF_QUIET", 0.0)


def test_hidden_entries_and_files_are_no_models(models: Path, catalog: Catalog) -> None:
    (models / ".export-abc").mkdir()
    (models / "thyroid" / ".fit.pt").write_bytes(b"")
    (models / "README.md").write_text("words")
    (models / "empty").mkdir()
    repository = catalog.open()
    assert repository.datasets() == ["thyroid"]
    assert not repository.refusals


@pytest.mark.parametrize("name", ["latest", "0", "01", "1.5", "-1"])
def test_a_folder_that_is_no_version_is_refused(models: Path, catalog: Catalog, name: str) -> None:
    (models / "thyroid" / name).mkdir()
    [refusal] = catalog.open().refusals
    assert str(refusal) == f"thyroid/{name}"
    assert refusal.reason == f"thyroid/{name}: the folder is called '{name}', expected a version like 1"


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=rf"{tmp_path}: there is no model folder .* \(RADOGAGA_MODELS\)"):
        Catalog(tmp_path, CPU).open()


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"nowhere: can't be read \(No such file or directory\) \(RADOGAGA_MODELS\)"):
        Catalog(tmp_path / "nowhere", CPU).open()


def test_a_broken_version_does_not_keep_others_from_being_served(folder: Path, catalog: Catalog) -> None:
    (copy_version(folder, 2) / "encoder.onnx").unlink()
    repository = catalog.open()
    assert versions(repository) == [1]
    [refusal] = repository.refusals
    assert refusal.reason == "thyroid/2/encoder.onnx: can't be read (No such file or directory)"
    assert catalog.loads == {"served": 1, "refused": 1}


def test_a_strict_start_takes_no_broken_version(folder: Path, catalog: Catalog) -> None:
    (copy_version(folder, 2) / "encoder.onnx").unlink()
    with pytest.raises(StartError, match=f"{folder.parent}/2/encoder.onnx: can't be read"):
        catalog.open(strict=True)


def test_a_start_without_a_version_that_can_be_served_fails_with_a_reason(folder: Path, catalog: Catalog) -> None:
    (copy_version(folder, 2) / "encoder.onnx").unlink()
    (folder / "scorer.onnx").unlink()
    with pytest.raises(StartError, match=rf"{folder}/scorer.onnx: can't be read .* \(and 1 more\)"):
        catalog.open()


def test_a_new_version_takes_over_and_leaves_when_its_folder_does(folder: Path, catalog: Catalog) -> None:
    first = catalog.open()
    assert catalog.look() is None
    added = copy_version(folder, 2)
    second = looked(catalog)
    assert (first.find("thyroid").manifest.version, second.find("thyroid").manifest.version) == (1, 2)
    assert second.find("thyroid", 1) is first.find("thyroid", 1)  # nothing is loaded twice
    shutil.rmtree(added)
    assert versions(looked(catalog)) == [1]
    assert catalog.look() is None


def test_a_new_dataset_is_served_and_leaves(models: Path, folder: Path, catalog: Catalog) -> None:
    catalog.open()
    shutil.copytree(folder, models / ".whole" / "1")
    manifest = json.loads((folder / "manifest.json").read_text())
    write_manifest(models / ".whole" / "1" / "manifest.json", manifest | {"dataset": "other"})
    (models / ".whole").rename(models / "other")
    assert looked(catalog).datasets() == ["other", "thyroid"]
    shutil.rmtree(models / "other")
    assert looked(catalog).datasets() == ["thyroid"]


def test_a_broken_version_is_refused_while_the_old_one_goes_on(
    folder: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    catalog.open()
    added = copy_version(folder, 2)
    (added / "scorer.onnx").write_bytes(b"no graph")
    age(added, monkeypatch)
    with caplog.at_level(logging.ERROR):
        repository = looked(catalog)
    assert versions(repository) == [1]
    [refusal] = repository.refusals
    assert refusal.reason.startswith("thyroid/2/scorer.onnx: sha256 is ")
    assert caplog.messages == [f"refused: {refusal.text}"]
    assert catalog.loads == {"served": 1, "refused": 1}
    assert catalog.look() is None  # it is neither tried nor logged again
    shutil.copy(folder / "scorer.onnx", added / "scorer.onnx")
    repository = looked(catalog)
    assert versions(repository) == [1, 2]
    assert not repository.refusals


def test_a_folder_that_is_being_copied_is_waited_for(folder: Path, catalog: Catalog) -> None:
    catalog.open()
    half = folder.parent / "2"
    half.mkdir()
    shutil.copy(folder / "scorer.onnx", half)
    assert catalog.look() is None
    assert catalog.pending is True
    for file in folder.iterdir():
        shutil.copy(file, half)
    manifest = json.loads((folder / "manifest.json").read_text())
    write_manifest(half / "manifest.json", manifest | {"version": 2})
    repository = looked(catalog)
    assert versions(repository) == [1, 2]
    assert (catalog.pending, catalog.loads["refused"]) == (False, 0)


@pytest.mark.parametrize("name", ["manifest.json", "scorer.onnx", "a link that nobody needs"])
def test_a_link_to_nothing_is_refused_with_a_reason_and_does_not_hide_its_version(
    folder: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    catalog.open()
    added = copy_version(folder, 2)
    (added / name).unlink(missing_ok=True)
    (added / name).symlink_to("nothing")
    age(added, monkeypatch)
    repository = looked(catalog)
    if (folder / name).exists():
        assert [refusal.reason for refusal in repository.refusals] == [
            f"thyroid/2/{name}: is a symbolic link, expected a regular file"
        ]
    assert versions(repository) == ([1] if repository.refusals else [1, 2])


def test_thresholds_that_become_a_link_to_nothing_stay_in_force(
    folder: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_threshold(folder.parent, 1, -3.0, "fewer misses")
    assert catalog.open().find("thyroid").threshold == -3.0
    age(folder, monkeypatch)
    (folder.parent / THRESHOLDS).unlink()
    (folder.parent / THRESHOLDS).symlink_to("nothing")
    repository = looked(catalog)
    assert repository.find("thyroid").threshold == -3.0
    assert "is a symbolic link" in repository.refusals[0].reason


def test_what_is_half_copied_for_long_is_refused(
    folder: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog.open()
    (folder.parent / "2").mkdir()
    assert catalog.look() is None
    age(folder.parent / "2", monkeypatch)
    assert "thyroid/2/manifest.json: can't be read" in looked(catalog).refusals[0].reason


def test_a_version_that_is_overwritten_with_rubbish_goes_on_from_memory(
    folder: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = catalog.open().find("thyroid")
    (folder / "scorer.onnx").write_bytes(b"no graph")
    age(folder, monkeypatch)
    repository = looked(catalog)
    assert repository.find("thyroid") is before
    assert [str(refusal) for refusal in repository.refusals] == ["thyroid/1"]


def test_a_version_that_is_rewritten_is_loaded_anew(folder: Path, catalog: Catalog) -> None:
    catalog.open()
    manifest = json.loads((folder / "manifest.json").read_text())
    write_manifest(folder / "manifest.json", manifest | {"threshold": 1.5})
    assert looked(catalog).find("thyroid").threshold == 1.5


def test_models_that_vanish_all_at_once_go_on(models: Path, folder: Path, catalog: Catalog) -> None:
    before = catalog.open().find("thyroid")
    folder.rename(models / ".away")
    repository = looked(catalog)
    assert repository.find("thyroid") is before
    assert "there is no model left in it; what was there before is served on" in repository.refusals[0].reason
    models.rename(models.with_name("elsewhere"))
    repository = looked(catalog)
    assert repository.find("thyroid") is before
    assert "can't be read (No such file or directory)" in repository.refusals[0].reason
    models.with_name("elsewhere").rename(models)
    (models / ".away").rename(folder)
    assert not looked(catalog).refusals


def test_a_dataset_whose_folder_fails_goes_on(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    before = catalog.open().find("thyroid")
    list_folders = folders

    def fail(parent: Path) -> list[Path]:
        if parent.name == "thyroid":
            raise StartError(f"{parent}: can't be read (Input/output error)")
        return list_folders(parent)

    monkeypatch.setattr(catalog_module, "folders", fail)
    repository = looked(catalog)
    assert repository.find("thyroid") is before
    assert repository.refusals[0].reason == "thyroid: can't be read (Input/output error)"
    monkeypatch.setattr(catalog_module, "folders", list_folders)
    assert not looked(catalog).refusals


def test_what_was_refused_is_tried_again_when_asked_for_or_after_a_while(
    folder: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_version(folder, 2)
    load = Detector.load

    def fail(*_: object) -> Detector:
        raise MemoryError

    monkeypatch.setattr(Detector, "load", fail)
    with pytest.raises(
        StartError, match=r"thyroid/1: unforeseen: MemoryError\(\); the log has the rest \(and 1 more\)"
    ):
        catalog.open()
    monkeypatch.setattr(Detector, "load", load)
    assert catalog.look() is None
    assert versions(looked(catalog, retry=True)) == [1, 2]
    monkeypatch.setattr(Detector, "load", fail)
    copy_version(folder, 3)
    age(folder, monkeypatch)
    assert [str(refusal) for refusal in looked(catalog).refusals] == ["thyroid/3"]
    monkeypatch.setattr(Detector, "load", load)
    assert catalog.look() is None
    monkeypatch.setattr(catalog_module, "SECONDS_TO_RETRY", 0.0)
    assert versions(looked(catalog)) == [1, 2, 3]


def test_what_is_gone_is_freed(folder: Path, catalog: Catalog) -> None:
    catalog.open()
    added = copy_version(folder, 2)
    gone = weakref.ref(looked(catalog).find("thyroid"))
    shutil.rmtree(added)
    looked(catalog)
    gc.collect()
    assert gone() is None


def test_a_changed_threshold_takes_over_without_loading_a_graph(folder: Path, catalog: Catalog) -> None:
    first = catalog.open().find("thyroid")
    change_threshold(folder.parent, 1, -3.0, "fewer misses")
    repository = looked(catalog)
    changed = repository.find("thyroid")
    assert (changed.threshold, changed.manifest.threshold) == (-3.0, first.manifest.threshold)
    assert changed._graphs is first._graphs
    assert [change.why for change in repository.history(changed)] == ["fewer misses"]
    change_threshold(folder.parent, 1, None, "as it was")
    repository = looked(catalog)
    assert repository.find("thyroid").threshold == first.threshold
    assert [change.threshold for change in repository.history(repository.find("thyroid"))] == [-3.0, None]
    (folder.parent / THRESHOLDS).unlink()
    repository = looked(catalog)
    assert repository.history(repository.find("thyroid")) == []


def test_a_broken_file_of_thresholds_leaves_the_ones_before(
    folder: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_threshold(folder.parent, 1, -3.0, "fewer misses")
    assert catalog.open().find("thyroid").threshold == -3.0
    (folder.parent / THRESHOLDS).write_text('{"format_version": 1, "dataset": "thyroid", "changes": [7], "sha256": ""}')
    age(folder, monkeypatch)
    repository = looked(catalog)
    assert repository.find("thyroid").threshold == -3.0
    assert repository.refusals[0].reason.startswith("thyroid/thresholds.json: changes.0 is 7: ")


def test_the_first_file_of_thresholds_may_be_broken(
    folder: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = catalog.open().find("thyroid")
    (folder.parent / THRESHOLDS).write_text("{")
    assert catalog.look() is None
    age(folder, monkeypatch)
    repository = looked(catalog)
    assert repository.find("thyroid") is before
    assert [str(refusal) for refusal in repository.refusals] == ["thyroid/thresholds.json"]


def test_a_dataset_is_not_served_at_the_start_while_its_thresholds_are_not_known(
    models: Path, folder: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(folder, models / "other" / "1")
    manifest = json.loads((folder / "manifest.json").read_text())
    write_manifest(models / "other" / "1" / "manifest.json", manifest | {"dataset": "other"})
    (folder.parent / THRESHOLDS).write_text("{")
    repository = catalog.open()
    assert repository.datasets() == ["other"]
    assert [str(refusal) for refusal in repository.refusals] == ["thyroid/thresholds.json"]
    (folder.parent / THRESHOLDS).unlink()
    assert looked(catalog).find("thyroid").threshold == manifest["threshold"]
    (models / "other" / THRESHOLDS).write_text("{")
    age(folder, monkeypatch)
    assert looked(catalog).datasets() == ["other", "thyroid"]


def test_a_signature_that_comes_later_is_seen(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generate_key(tmp_path / "key", "operator")
    sign_file(folder / "manifest.json", tmp_path / "key")
    catalog = Catalog(folder.parents[1], CPU, Signers.load(tmp_path / "key.pub"))
    catalog.open()
    change_threshold(folder.parent, 1, -3.0, "fewer misses")
    age(folder, monkeypatch)
    repository = looked(catalog)
    assert repository.refusals[0].reason.startswith("thyroid/thresholds.json.sig: can't be read")
    assert repository.find("thyroid").threshold == repository.find("thyroid").manifest.threshold
    sign_file(folder.parent / THRESHOLDS, tmp_path / "key")
    assert looked(catalog).find("thyroid").threshold == -3.0
