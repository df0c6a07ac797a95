"""What the exporter writes, the service reads: PyTorch's results come out of the service's sessions."""

import copy
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
from training.datasets.base import Feature
from training.export import export
from training.jobs import FittedModel

CPU = Runtime("cpu")


def differs(got: NDArray[np.floating], expected: torch.Tensor) -> float:
    """Returns the largest difference, relative to 1 or the size of what was expected."""
    wanted = expected.numpy()
    return float((np.abs(got - wanted) / np.maximum(1, np.abs(wanted))).max())


def test_scores_latents_and_reconstructions_are_pytorchs(fitted: FittedModel, exported: Path) -> None:
    detector = Detector.load(exported, CPU)
    x = fitted.dataset.x
    with torch.no_grad():
        rows = torch.from_numpy(x)
        method = copy.deepcopy(fitted.method).double()  # as the graphs compute
        scores, z = method.score(rows.double()), method.encode(rows.double())
        x_hat = method.decode(z.float().double())
    assert differs(detector.score(x).scores, scores) <= 1e-5
    assert differs(detector.encode(x), z) <= 1e-5
    assert differs(detector.decode(z.float().numpy()), x_hat) <= 1e-5


def test_the_decision_is_the_manifests(fitted: FittedModel, exported: Path) -> None:
    manifest = json.loads((exported / "manifest.json").read_text())
    flagged = Detector.load(exported, CPU).score(fitted.dataset.x[fitted.split.train]).anomalies
    assert flagged.sum() == manifest["calibration"]["flagged"]


def test_features_and_ranges_arrive(fitted: FittedModel, exported: Path) -> None:
    detector = Detector.load(exported, CPU)
    assert [feature.name for feature in detector.manifest.features] == [f.name for f in fitted.dataset.features]
    assert detector.count_outside_training_range(fitted.dataset.x[fitted.split.normal]) == 0


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
