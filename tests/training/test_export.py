"""What the exporter writes, and what it refuses to write."""

import hashlib
import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import cast

import jsonschema
import numpy as np
import onnx
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from torch import nn

from training import export as exporter
from training.datasets.base import Feature
from training.export import (
    ExportError,
    Graph,
    check_parity,
    describe_features,
    export,
    seal,
    write_graph,
    write_manifest,
)
from training.jobs import FittedModel
from training.methods.ensemble import Ensemble
from training.methods.mixture_autoencoder import MixtureAutoencoder
from training.thresholds import contamination_threshold


def manifest_of(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "manifest.json").read_text())
    return found


def test_the_folder_holds_six_files_and_is_small(exported: Path) -> None:
    names = {"manifest.json", "scorer.onnx", "encoder.onnx", "decoder.onnx", "mixture.npz", "examples.json"}
    assert {path.name for path in exported.iterdir()} == names
    assert sum(path.stat().st_size for path in exported.iterdir()) < 1_000_000
    assert exported.stat().st_mode & 0o777 == 0o755


def test_the_manifest_obeys_its_schema_and_nothing_else(exported: Path, tmp_path: Path) -> None:
    manifest = manifest_of(exported)
    jsonschema.validate(manifest, json.loads(exporter.SCHEMA.read_text()))
    with pytest.raises(ExportError, match=r"manifest.json: \$.threshold is 'high'"):
        write_manifest({**manifest, "threshold": "high"}, tmp_path / "manifest.json")
    with pytest.raises(ExportError, match=r"manifest.json: \$ is .*'colour' was unexpected"):
        write_manifest({**manifest, "colour": 1}, tmp_path / "manifest.json")
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        write_manifest({**manifest, "threshold": float("nan")}, tmp_path / "manifest.json")
    assert not (tmp_path / "manifest.json").exists()


def test_the_mixture_file_explains_the_score(fitted: FittedModel, exported: Path) -> None:
    with np.load(exported / "mixture.npz") as mixture:
        weights, means, covariances = (mixture[name] for name in ("weights", "means", "covariances"))
    x = torch.from_numpy(fitted.dataset.x[fitted.split.test][:50])
    assert isinstance(fitted.method, MixtureAutoencoder)
    with torch.no_grad():
        y = fitted.method.scored_features(x).numpy()
        scores = fitted.method.score(x).numpy()
    terms = [
        np.log(w) + multivariate_normal(m, c).logpdf(y) for w, m, c in zip(weights, means, covariances, strict=True)
    ]
    assert np.allclose(-logsumexp(terms, axis=0), scores, rtol=1e-6)


def test_the_mixture_file_of_an_ensemble_explains_its_score(
    fitted_ensemble: FittedModel, exported_ensemble: Path
) -> None:
    with np.load(exported_ensemble / "mixture.npz") as arrays:
        mixture = {name: arrays[name] for name in arrays.files}
    assert isinstance(fitted_ensemble.method, Ensemble)
    assert isinstance(fitted_ensemble.method.stacked, MixtureAutoencoder)
    x, expected = torch.from_numpy(fitted_ensemble.dataset.x[fitted_ensemble.split.test][:50]), np.zeros(50)
    with torch.no_grad():
        y, scores = fitted_ensemble.method.stacked.scored_features(x).numpy(), fitted_ensemble.method.score(x).numpy()
    for member in range(3):
        parameters = zip(*(mixture[name][member] for name in ("weights", "means", "covariances")), strict=True)
        terms = [np.log(w) + multivariate_normal(m, c).logpdf(y[member]) for w, m, c in parameters]
        expected += (-logsumexp(terms, axis=0) - mixture["medians"][member]) / mixture["ranges"][member] / 3
    assert np.allclose(expected, scores, rtol=1e-6)


def test_an_ensemble_is_one_scorer_and_its_first_members_encoder(
    fitted_ensemble: FittedModel, exported_ensemble: Path
) -> None:
    manifest = manifest_of(exported_ensemble)
    assert manifest["method"] == "RaDOGAGA"
    assert cast("dict[str, object]", manifest["density"])["members"] == 3
    x = fitted_ensemble.dataset.x
    assert isinstance(fitted_ensemble.method, Ensemble)
    with torch.no_grad():
        scores, z = (
            fitted_ensemble.method.score(torch.from_numpy(x)),
            fitted_ensemble.method.first.encode(torch.from_numpy(x)),
        )
    session = exporter.open_session(exported_ensemble / "scorer.onnx")
    assert np.allclose(exporter.run_in_batches(session, x), scores, rtol=1e-5, atol=1e-5)
    session = exporter.open_session(exported_ensemble / "encoder.onnx")
    assert np.allclose(exporter.run_in_batches(session, x), z, rtol=1e-5, atol=1e-5)


def test_the_threshold_is_the_training_halfs(fitted: FittedModel, exported: Path) -> None:
    manifest = manifest_of(exported)
    half = fitted.dataset.x[fitted.split.train]
    scores = exporter.run_in_batches(exporter.open_session(exported / "scorer.onnx"), half)
    assert manifest["threshold"] == contamination_threshold(scores, 0.1)
    assert manifest["calibration"] == {
        "rule": "contamination",
        "contamination": 0.1,
        "rows": len(half),
        "flagged": int(np.ceil(0.1 * len(half))),
    }


def test_the_bins_are_those_of_the_training_halfs_scores(fitted: FittedModel, exported: Path) -> None:
    half = fitted.dataset.x[fitted.split.train]
    scores = exporter.run_in_batches(exporter.open_session(exported / "scorer.onnx"), half)
    described = cast("dict[str, list[float]]", manifest_of(exported)["score_bins"])
    assert len(described["rows"]) == 20
    edges = [-np.inf, *described["upper_bounds"], np.inf]
    assert described["rows"] == [((scores > a) & (scores <= b)).sum() for a, b in pairwise(edges)]


def test_the_threshold_knows_nothing_of_the_test_half(fitted: FittedModel, exported: Path, tmp_path: Path) -> None:
    x = fitted.dataset.x.copy()
    x[fitted.split.test] *= 100
    other = export(replace(fitted, dataset=replace(fitted.dataset, x=x)), tmp_path)
    assert manifest_of(other)["threshold"] == manifest_of(exported)["threshold"]
    assert manifest_of(other)["features"] == manifest_of(exported)["features"]
    for name in ("examples.json", "mixture.npz"):
        assert (other / name).read_bytes() == (exported / name).read_bytes()


def test_examples_have_both_kinds_of_rows(fitted: FittedModel, exported: Path) -> None:
    examples = json.loads((exported / "examples.json").read_text())
    x = np.asarray(examples["x"], dtype=np.float32)
    rows = [int(np.flatnonzero((fitted.dataset.x == row).all(axis=1))[0]) for row in x]
    assert fitted.dataset.y[rows].tolist() == [False] * 8 + [True] * 8
    assert set(rows) <= set(fitted.split.train.tolist())


def test_graphs_need_no_second_file_and_name_their_tensors(exported: Path) -> None:
    for name, inputs, output in (("scorer", "x", "score"), ("encoder", "x", "z"), ("decoder", "z", "x_hat")):
        graph = onnx.load(exported / f"{name}.onnx", load_external_data=False).graph
        assert [tensor.name for tensor in graph.input] == [inputs]
        assert [tensor.name for tensor in graph.output] == [output]
        assert graph.input[0].type.tensor_type.shape.dim[0].dim_param


def test_graphs_tell_nothing_of_the_machine(exported: Path) -> None:
    for path in exported.glob("*.onnx"):
        content = path.read_bytes()
        for trace in (b"File", b".py", b"training", str(Path.cwd()).encode()):
            assert trace not in content, (path, trace)
        onnx.checker.check_model(path)


def test_the_same_model_is_exported_to_the_same_bytes(fitted: FittedModel, exported: Path, tmp_path: Path) -> None:
    again = export(fitted, tmp_path)
    for path in exported.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_next_version_is_one_more_than_the_highest(fitted: FittedModel, tmp_path: Path) -> None:
    (tmp_path / "thyroid" / "7").mkdir(parents=True)
    (tmp_path / "thyroid" / ".hidden").mkdir()
    folder = export(fitted, tmp_path)
    assert folder == tmp_path / "thyroid" / "8"
    assert manifest_of(folder)["version"] == 8


class Changed(nn.Module):
    """Says something else than the graph it stands for."""

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.sum(dim=1) * (1 + 1e-4)


def test_a_graph_that_differs_from_pytorch_is_refused(fitted: FittedModel, tmp_path: Path) -> None:
    graph = Graph(fitted.method, "score")
    write_graph(graph, "x", 6, tmp_path / "scorer.onnx", "score", ["N"])
    x = fitted.dataset.x[:30]
    assert check_parity(graph, x, tmp_path / "scorer.onnx").shape == (30,)
    with pytest.raises(ExportError, match="scorer.onnx: onnxruntime differs from PyTorch by .*, allowed is 1e-05"):
        check_parity(Changed(), x, tmp_path / "scorer.onnx")


def test_a_failed_export_leaves_nothing(
    fitted: FittedModel, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def borrowed(*arguments: object) -> dict[str, str]:
        path = arguments[3]
        assert isinstance(path, Path)
        shutil.copy(exported / path.name, path)
        return {}

    monkeypatch.setattr(exporter, "write_graph", borrowed)
    monkeypatch.setattr(exporter, "PARITY", -1.0)
    with pytest.raises(ExportError, match="differs"):
        export(fitted, tmp_path)
    assert list((tmp_path / "thyroid").iterdir()) == []


def test_categories_stand_in_the_manifest(fitted: FittedModel) -> None:
    features = (Feature("age"), Feature("colour", ("red", "green", "blue")), Feature("size", ("s", "l")))
    described = describe_features(replace(fitted.dataset, features=features), fitted.split)
    fitted_ages = fitted.dataset.x[fitted.split.normal][:, 0]
    assert described == [
        {"kind": "numeric", "name": "age", "minimum": float(fitted_ages.min()), "maximum": float(fitted_ages.max())},
        {"kind": "categorical", "name": "colour", "categories": ["red", "green", "blue"]},
        {"kind": "categorical", "name": "size", "categories": ["s", "l"]},
    ]


def older(exported: Path, tmp_path: Path, format_version: int = 1) -> Path:
    """Returns the manifest of a folder as it was before manifests had digests of their own."""
    path = tmp_path / "manifest.json"
    manifest = {**manifest_of(exported), "format_version": format_version}
    del manifest["sha256"]
    path.write_text(json.dumps(manifest, indent=1) + "\n")
    return path


def test_a_manifest_has_the_digest_of_itself_without_it(exported: Path) -> None:
    text, digest = (exported / "manifest.json").read_text(), str(manifest_of(exported)["sha256"])
    assert hashlib.sha256(text.replace(digest, "0" * 64).encode()).hexdigest() == digest


def test_older_manifests_are_sealed_and_keep_all_else(exported: Path, tmp_path: Path) -> None:
    path = older(exported, tmp_path)
    assert seal(path)
    assert path.read_bytes() == (exported / "manifest.json").read_bytes()
    assert not seal(path)


@pytest.mark.parametrize("format_version", [2, 3, 4])
def test_a_newer_manifest_is_sealed_as_what_it_is(exported: Path, tmp_path: Path, format_version: int) -> None:
    path = older(exported, tmp_path, format_version)
    assert seal(path)
    assert json.loads(path.read_text())["format_version"] == format_version
    assert not seal(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("[]", "is not written as the exporter writes it"), ("{", "can't be read"), ("{}", "is not written as")],
)
def test_what_the_exporter_did_not_write_is_not_sealed(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ExportError, match=message):
        seal(tmp_path / "manifest.json")
    assert (tmp_path / "manifest.json").read_text() == text


def test_an_altered_manifest_is_not_sealed_anew(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    path.write_text((exported / "manifest.json").read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ExportError, match="is not written as the exporter writes it"):
        seal(path)


def test_a_manifest_that_is_not_there_is_not_sealed(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"manifest.json can't be read \("):
        seal(tmp_path / "manifest.json")
