"""A model folder becomes a detector, or an error that says which file is wrong and how."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.detector import Detector
from service.errors import StartError
from service.runtime import Runtime
from tests.service.conftest import Change

CPU = Runtime("cpu")


def replace(folder: Path, part: tuple[str, ...], content: bytes) -> None:
    """Replaces a file of the folder, and its digest in the manifest."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    entry: Any = manifest
    for name in part:
        entry = entry[name]
    (folder / entry["file"]).write_bytes(content)
    entry["sha256"] = hashlib.sha256(content).hexdigest()
    path.write_text(json.dumps(manifest))


def change_examples(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    examples = json.loads((folder / "examples.json").read_text())
    change(examples)
    replace(folder, ("examples",), json.dumps(examples).encode())


def test_scores_and_decisions(folder: Path, examples: dict[str, Any]) -> None:
    detector = Detector.load(folder, CPU)
    result = detector.score(np.asarray(examples["x"], dtype=np.float32))
    assert result.scores.dtype == np.float64
    assert np.array_equal(result.anomalies, result.scores >= detector.manifest.threshold)
    assert detector.provider == "CPUExecutionProvider"


def test_a_score_on_the_threshold_is_an_anomaly(
    folder: Path, examples: dict[str, Any], change_manifest: Callable[[Change], None]
) -> None:
    row = np.asarray(examples["x"][:1], dtype=np.float32)
    score = float(Detector.load(folder, CPU).score(row).scores[0])
    change_manifest(lambda manifest: manifest.update(threshold=score))
    assert Detector.load(folder, CPU).score(row).anomalies.tolist() == [True]
    change_manifest(lambda manifest: manifest.update(threshold=float(np.nextafter(score, np.inf))))
    assert Detector.load(folder, CPU).score(row).anomalies.tolist() == [False]


def test_values_outside_the_training_range_are_counted(folder: Path) -> None:
    detector = Detector.load(folder, CPU)
    inside = np.array([[f.minimum for f in detector.manifest.features]], dtype=np.float32)  # type: ignore[union-attr]
    assert detector.count_outside_training_range(inside) == 0
    assert detector.count_outside_training_range(inside - 0.5) == 6
    assert detector.count_outside_training_range(np.concatenate([inside, inside + 99])) == 6


@pytest.mark.parametrize("name", ["scorer.onnx", "encoder.onnx", "decoder.onnx", "mixture.npz", "examples.json"])
def test_a_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(StartError, match=rf"{folder}/{name}: can't be read \(No such file or directory\)"):
        Detector.load(folder, CPU)


@pytest.mark.parametrize("name", ["scorer.onnx", "encoder.onnx", "decoder.onnx", "mixture.npz", "examples.json"])
def test_an_altered_file(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes() + b" "
    (folder / name).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    with pytest.raises(StartError, match=f"{folder}/{name}: sha256 is {digest}, the manifest has "):
        Detector.load(folder, CPU)


def test_a_graph_that_is_not_onnx(folder: Path) -> None:
    replace(folder, ("graphs", "scorer"), b"not a graph")
    with pytest.raises(StartError, match=rf"{folder}/scorer.onnx: onnxruntime can't load it"):
        Detector.load(folder, CPU)


def test_a_graph_of_another_kind(folder: Path) -> None:
    replace(folder, ("graphs", "scorer"), (folder / "encoder.onnx").read_bytes())
    with pytest.raises(
        StartError, match=r"scorer.onnx: output of the scorer is \[\('z', .*the manifest has \[\('score'"
    ):
        Detector.load(folder, CPU)


def test_a_score_that_is_not_the_listed_one(folder: Path) -> None:
    change_examples(folder, lambda examples: examples["score"].__setitem__(3, 123.0))
    with pytest.raises(StartError, match=rf"{folder}/examples.json: score\[3\] is .*, the examples have 123.0"):
        Detector.load(folder, CPU)


def test_fewer_results_than_rows(folder: Path) -> None:
    change_examples(folder, lambda examples: examples["z"].pop())
    with pytest.raises(StartError, match=r"examples.json: x_hat has shape|examples.json: z has shape \(16, 6\)"):
        Detector.load(folder, CPU)


def test_fewer_rows_than_the_manifest_says(folder: Path) -> None:
    change_examples(folder, lambda examples: examples["x"].pop())
    with pytest.raises(StartError, match=r"examples.json: x has 15 rows, the manifest has 16"):
        Detector.load(folder, CPU)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{}", "x\n  Field required"),
        (b"nope", "Invalid JSON"),
        (b'{"x": [[1], [1, 2]], "score": [], "z": [], "x_hat": []}', "x has 2 rows, the manifest has 16"),
    ],
)
def test_examples_that_can_not_be_read(folder: Path, content: bytes, message: str) -> None:
    replace(folder, ("examples",), content)
    with pytest.raises(StartError, match=f"{folder}/examples.json: (.|\n)*{message}"):
        Detector.load(folder, CPU)


def test_ragged_examples(folder: Path) -> None:
    change_examples(folder, lambda examples: examples["x"][2].pop())
    with pytest.raises(StartError, match="examples.json: .*inhomogeneous"):
        Detector.load(folder, CPU)
