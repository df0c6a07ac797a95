"""An exported folder is measured by its own scorer, on the rows its fit never saw."""

import json
import shutil
from pathlib import Path

import pytest

from training.datasets.base import Dataset
from training.evaluation import EvaluationError, evaluate_folder


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
    (folder / "manifest.json").write_text(json.dumps({**manifest, **values}))


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
