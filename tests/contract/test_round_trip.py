"""What the exporter writes, the service reads: PyTorch's results come out of the service's sessions."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from service.detector import Detector
from service.errors import StartError
from service.runtime import Runtime
from tests.conftest import small_job, small_model
from training.datasets.base import Feature, Rows
from training.export import export
from training.jobs import FittedModel
from training.methods.base import Method

CPU = Runtime("cpu")


def differs(got: NDArray[np.floating], expected: torch.Tensor) -> float:
    """Returns the largest difference, relative to 1 or the size of what was expected."""
    wanted = expected.numpy()
    return float((np.abs(got - wanted) / np.maximum(1, np.abs(wanted))).max())


@torch.no_grad()
def assert_answers_are_pytorchs(detector: Detector, method: Method, x: Rows) -> None:
    """Asserts that scores, latents and reconstructions of raw rows (N, M) are those of the fitted model."""
    rows = torch.from_numpy(x).double()
    z = method.encode(rows)
    latents = z.float()
    assert differs(detector.score(x).scores, method.score(rows)) <= 1e-5
    assert differs(detector.encode(x), z) <= 1e-5
    assert differs(detector.decode(latents.numpy()), method.decode(latents.double())) <= 1e-5


@pytest.fixture(scope="module", params=["RaDOGAGA", "ensemble", "DAGMM"])
def model_and_folder(
    request: pytest.FixtureRequest,
    fitted: FittedModel,
    exported: Path,
    fitted_ensemble: FittedModel,
    exported_ensemble: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[FittedModel, Path]:
    """A fitted model of each kind with the folder it was exported to."""
    if request.param == "DAGMM":
        model = small_model(small_job(method="DAGMM"))
        return model, export(model, tmp_path_factory.mktemp("models"))
    return (fitted, exported) if request.param == "RaDOGAGA" else (fitted_ensemble, exported_ensemble)


def test_scores_latents_and_reconstructions_are_pytorchs(model_and_folder: tuple[FittedModel, Path]) -> None:
    model, folder = model_and_folder
    detector = Detector.load(folder, CPU)
    assert detector.manifest.method == model.job.method
    assert_answers_are_pytorchs(detector, model.method, model.dataset.x)


def test_the_decision_is_the_manifests(fitted: FittedModel, exported: Path) -> None:
    manifest = json.loads((exported / "manifest.json").read_text())
    flagged = Detector.load(exported, CPU).score(fitted.dataset.x[fitted.split.train]).anomalies
    assert flagged.sum() == manifest["calibration"]["flagged"]


def test_features_and_ranges_arrive(fitted: FittedModel, exported: Path) -> None:
    detector = Detector.load(exported, CPU)
    assert [feature.name for feature in detector.manifest.features] == [f.name for f in fitted.dataset.features]
    assert detector.reference.count_outside(fitted.dataset.x[fitted.split.normal]) == 0


def test_categories_arrive_as_columns(fitted: FittedModel, tmp_path: Path) -> None:
    features = (Feature("age"), Feature("colour", ("red", "green", "blue")), Feature("size", ("s", "l")))
    folder = export(replace(fitted, dataset=replace(fitted.dataset, features=features)), tmp_path)
    assert Detector.load(folder, CPU).manifest.width == 6


def test_every_byte_of_a_file_counts(exported: Path, tmp_path: Path) -> None:
    for name in ("scorer.onnx", "examples.json"):
        folder = tmp_path / name / "thyroid" / "1"
        folder.mkdir(parents=True)
        for path in exported.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
        with pytest.raises(StartError, match=f"{folder}/{name}: sha256 is"):
            Detector.load(folder, CPU)
