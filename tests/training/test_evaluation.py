"""An exported folder is measured by its own scorer, on the rows its fit never saw."""

import json
import shutil
from pathlib import Path

import pytest

from tests.manifests import write_manifest
from training.datasets.base import Dataset
from training.evaluation import EvaluationError, describe_scores, evaluate_folder
from training.export import ExportError


@pytest.mark.usefixtures("small_thyroid")
def test_it_finds_what_the_exporter_wrote_down(exported: Path) -> None:
    evaluation = evaluate_folder(exported)
    metrics = json.loads((exported / "manifest.json").read_text())["provenance"]["metrics"]
    assert evaluation.shipped_threshold == metrics["shipped_threshold"]
    assert evaluation.test_percentile == metrics["test_percentile"]
    assert (evaluation.rows, evaluation.anomalies) == (330, 30)
    assert evaluation.test_percentile["f1"] > 0.7


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(
        EvaluationError,
        match=f"{tmp_path} is no model folder like models/thyroid/1: {tmp_path}/manifest.json is missing",
    ):
        evaluate_folder(tmp_path)


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "1"
    shutil.copytree(exported, folder)
    return folder


def change(folder: Path, **values: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    write_manifest(folder / "manifest.json", {**manifest, **values})


def test_a_dataset_that_is_not_known(copy: Path) -> None:
    change(copy, dataset="faces")
    with pytest.raises(EvaluationError, match="dataset is 'faces', expected one of thyroid, arrhythmia, "):
        evaluate_folder(copy)


def test_other_data_than_the_models(copy: Path, small_thyroid: Dataset) -> None:
    object.__setattr__(small_thyroid, "sha256", "f" * 64)
    with pytest.raises(EvaluationError, match=f"provenance.data_sha256 is {'0' * 64}, the data has {'f' * 64}"):
        evaluate_folder(copy)


def test_a_manifest_without_a_graph(copy: Path) -> None:
    change(copy, graphs={})
    with pytest.raises(EvaluationError, match=r"is no model folder like models/thyroid/1 \(KeyError\('scorer'\)\)"):
        evaluate_folder(copy)


@pytest.mark.parametrize("text", ["[]", "{", '{"dataset": "thyroid"}'])
def test_a_manifest_that_is_none(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(EvaluationError, match="is no model folder like models/thyroid/1"):
        evaluate_folder(copy)


def test_a_graph_that_is_not_the_manifests(copy: Path) -> None:
    (copy / "scorer.onnx").write_bytes(b"cut")
    with pytest.raises(EvaluationError, match=r"scorer.onnx: its sha256 is not the manifest's"):
        evaluate_folder(copy)


def change_in_place(folder: Path, old: str, new: str) -> None:
    path = folder / "manifest.json"
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


@pytest.fixture
def older(copy: Path) -> Path:
    """A folder of the time before manifests had bins."""
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["score_bins"]
    write_manifest(copy / "manifest.json", manifest, indent=1)
    return copy


@pytest.mark.usefixtures("small_thyroid")
def test_older_manifests_get_their_bins_and_keep_every_other_byte(exported: Path, older: Path) -> None:
    assert describe_scores(older)
    expected = (exported / "manifest.json").read_bytes()
    assert (older / "manifest.json").read_bytes() == expected
    assert not describe_scores(older)
    assert (older / "manifest.json").read_bytes() == expected
    assert {path.name for path in older.iterdir()} == {path.name for path in exported.iterdir()}


@pytest.mark.usefixtures("small_thyroid")
def test_bins_of_another_machine_are_kept_and_wrong_ones_are_not(exported: Path, copy: Path) -> None:
    expected = json.loads((exported / "manifest.json").read_text())["score_bins"]
    moved = {**expected, "upper_bounds": [bound + 1e-7 for bound in expected["upper_bounds"]]}
    for bins, kept in (
        (moved, True),
        ({"upper_bounds": [0.0], "rows": [1, 330]}, False),
        ({"upper_bounds": ["low"], "rows": [1, 330]}, False),
        ({"colour": 1}, False),
        (None, False),
    ):
        manifest = json.loads((copy / "manifest.json").read_text())
        write_manifest(copy / "manifest.json", {**manifest, "score_bins": bins}, indent=1)
        assert describe_scores(copy) is not kept
        assert json.loads((copy / "manifest.json").read_text())["score_bins"] == (moved if kept else expected)


def test_scores_of_other_data_are_not_described(older: Path, small_thyroid: Dataset) -> None:
    before = (older / "manifest.json").read_bytes()
    object.__setattr__(small_thyroid, "sha256", "f" * 64)
    with pytest.raises(EvaluationError, match=f"provenance.data_sha256 is {'0' * 64}, the data has {'f' * 64}"):
        describe_scores(older)
    assert (older / "manifest.json").read_bytes() == before


@pytest.mark.usefixtures("small_thyroid")
@pytest.mark.parametrize(("field", "count"), [("rows", 331), ("flagged", 34)])
def test_scores_that_the_threshold_flags_otherwise_are_not_described(older: Path, field: str, count: int) -> None:
    change_in_place(older, f'"{field}": {count}', f'"{field}": {count - 1}')
    before = (older / "manifest.json").read_bytes()
    with pytest.raises(EvaluationError, match=f"calibration.{field} is {count - 1}, the training half has {count}"):
        describe_scores(older)
    assert (older / "manifest.json").read_bytes() == before


@pytest.mark.usefixtures("small_thyroid")
def test_a_manifest_that_something_else_wrote_is_left_alone(older: Path) -> None:
    change_in_place(older, '"dataset": "thyroid"', '"dataset":  "thyroid"')
    with pytest.raises(ExportError, match="manifest.json: is not written as the exporter writes it"):
        describe_scores(older)


@pytest.mark.usefixtures("small_thyroid")
def test_a_manifest_that_cannot_be_written(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    before = (older / "manifest.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(ExportError, match="can't be written .No space left on device"):
            describe_scores(older)
    assert (older / "manifest.json").read_bytes() == before
