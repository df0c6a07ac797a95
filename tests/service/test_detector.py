"""A model folder becomes a detector, or an error that says which file is wrong and how."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from service.detector import Detector
from service.errors import StartError
from service.runtime import Runtime
from tests.manifests import Change, write_manifest

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
    write_manifest(path, manifest)


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
    assert detector.reference.count_outside(inside) == 0
    assert detector.reference.count_outside(inside - 0.5) == 6
    assert detector.reference.count_outside(np.concatenate([inside, inside + 99])) == 6


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
    with pytest.raises(StartError, match=rf"{folder}/scorer.onnx: is no ONNX graph"):
        Detector.load(folder, CPU)


def test_a_graph_of_another_kind(folder: Path) -> None:
    replace(folder, ("graphs", "scorer"), (folder / "encoder.onnx").read_bytes())
    with pytest.raises(
        StartError, match=r"scorer.onnx: output of the scorer is \[\('z', .*the manifest has \[\('score'"
    ):
        Detector.load(folder, CPU)


def scorer(*nodes: onnx.NodeProto, **constants: NDArray[np.int64]) -> bytes:
    """Makes a graph that takes rows as the shipped scorer does."""
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 6])
    score = onnx.helper.make_tensor_value_info("score", onnx.TensorProto.FLOAT, ["N"])
    initialisers = [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = onnx.helper.make_graph(nodes, "graph", [x], [score], initialisers)
    content: bytes = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10
    ).SerializeToString()
    return content


def test_a_graph_that_fails(folder: Path) -> None:
    fives = onnx.helper.make_node("Reshape", ["x", "shape"], ["fives"])
    total = onnx.helper.make_node("ReduceSum", ["fives", "axis"], ["score"], keepdims=0)
    replace(folder, ("graphs", "scorer"), scorer(fives, total, shape=np.array([-1, 5]), axis=np.array([1])))
    with pytest.raises(
        StartError, match=rf"{folder}/examples.json: onnxruntime can't run the graphs on them \(.*Reshape"
    ):
        Detector.load(folder, CPU)


def test_a_graph_whose_results_are_not_one_per_row(folder: Path) -> None:
    node = onnx.helper.make_node("Reshape", ["x", "shape"], ["score"])
    replace(folder, ("graphs", "scorer"), scorer(node, shape=np.array([-1])))
    with pytest.raises(StartError, match=r"score has shape \(96,\), the examples have \(16,\)"):
        Detector.load(folder, CPU)


def test_a_graph_with_a_tensor_in_another_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever folder the service was started in."""
    model = onnx.load(folder / "scorer.onnx")
    onnx.save(model, tmp_path / "scorer.onnx", save_as_external_data=True, location="weights", size_threshold=0)
    monkeypatch.chdir(tmp_path)
    replace(folder, ("graphs", "scorer"), (tmp_path / "scorer.onnx").read_bytes())
    with pytest.raises(StartError, match=f"{folder}/scorer.onnx: has external_data, a tensor in another file"):
        Detector.load(folder, CPU)


@pytest.mark.parametrize(("name", "place"), [("score", (3,)), ("z", (3, 2)), ("x_hat", (15, 5))])
@pytest.mark.parametrize("relative", [2e-4, -2e-4, 5e-5])
def test_a_result_that_is_not_the_listed_one(folder: Path, name: str, place: tuple[int, ...], relative: float) -> None:
    def change(examples: dict[str, Any]) -> None:
        results = np.asarray(examples[name])
        results[place] += relative * max(1.0, abs(results[place]))
        examples[name] = results.tolist()

    change_examples(folder, change)
    index = "".join(rf"\[{i}\]" for i in place)
    if abs(relative) < 1e-4:
        Detector.load(folder, CPU)
    else:
        with pytest.raises(StartError, match=rf"{folder}/examples.json: {name}{index} is .*, the examples have "):
            Detector.load(folder, CPU)


def without_a_row(examples: dict[str, Any], name: str) -> None:
    examples[name].pop()


def without_a_value(examples: dict[str, Any], name: str) -> None:
    examples[name][2].pop()


def without_a_column(examples: dict[str, Any], name: str) -> None:
    for row in examples[name]:
        row.pop()


def without_anything(examples: dict[str, Any], name: str) -> None:
    examples[name].clear()


@pytest.mark.parametrize(
    ("change", "name", "message"),
    [
        (without_a_row, "x", r"x has shape \(15, 6\), the manifest has \(16, 6\)"),
        (without_a_column, "x", r"x has shape \(16, 5\), the manifest has \(16, 6\)"),
        (without_a_value, "x", "x has rows of different lengths, expected 6 values in each"),
        (without_anything, "x", r"x has shape \(0,\), the manifest has \(16, 6\)"),
        (without_a_row, "z", r"z has shape \(15, 6\), the manifest has \(16, 6\)"),
        (without_a_column, "z", r"z has shape \(16, 5\), the manifest has \(16, 6\)"),
        (without_anything, "z", r"z has shape \(0,\), the manifest has \(16, 6\)"),
        (without_a_row, "score", r"score has shape \(16,\), the examples have \(15,\)"),
        (without_a_row, "x_hat", r"x_hat has shape \(16, 6\), the examples have \(15, 6\)"),
        (without_a_value, "x_hat", "inhomogeneous"),
    ],
)
def test_examples_of_another_shape(
    folder: Path, change: Callable[[dict[str, Any], str], None], name: str, message: str
) -> None:
    change_examples(folder, lambda examples: change(examples, name))
    with pytest.raises(StartError, match=f"{folder}/examples.json: .*{message}"):
        Detector.load(folder, CPU)


@pytest.mark.parametrize("name", ["x", "score", "z", "x_hat"])
def test_examples_that_no_float32_holds(folder: Path, name: str) -> None:
    def change(examples: dict[str, Any]) -> None:
        examples[name][3] = 1e39 if name == "score" else [1e39] * 6

    change_examples(folder, change)
    with pytest.raises(
        StartError, match=rf"{folder}/examples.json: {name}\.3.* is 1e\+39: .* less than or equal to 3402"
    ):
        Detector.load(folder, CPU)


@pytest.mark.parametrize(("content", "message"), [(b"{}", "x is missing; score is missing"), (b"nope", "Invalid JSON")])
def test_examples_that_can_not_be_read(folder: Path, content: bytes, message: str) -> None:
    replace(folder, ("examples",), content)
    with pytest.raises(StartError, match=f"{folder}/examples.json: .*{message}"):
        Detector.load(folder, CPU)
