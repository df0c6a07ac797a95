"""Graphs that would reach beyond their own bytes are refused before onnxruntime sees them."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.errors import StartError
from service.inspection import check_graph
from tests.server import MODELS

Change = Callable[[onnx.ModelProto], None]

SCORER = MODELS / "thyroid" / "2" / "scorer.onnx"


def external(location: str = "secret.bin", marked: bool = True) -> TensorProto:
    tensor = TensorProto(name="outside", data_type=TensorProto.FLOAT, dims=[4])
    if marked:
        tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def branch() -> onnx.GraphProto:
    output = helper.make_tensor_value_info("out", TensorProto.FLOAT, [4])
    return helper.make_graph([], "branch", [], [output], [external()])


def sparse() -> onnx.SparseTensorProto:
    values, indices = numpy_helper.from_array(np.ones(1, np.float32), "w"), numpy_helper.from_array(np.zeros(1, int))
    return helper.make_sparse_tensor(values, indices, [4])


def initialiser(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(external())


def initialiser_that_is_not_marked(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(external(marked=False))


def location_alone(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL


def constant(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=external("/etc/passwd")))


def constants(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["c"], values=[external()]))


def condition(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("If", ["x"], ["c"], then_branch=branch(), else_branch=branch()))


def loop(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Loop", ["", ""], ["c"], body=branch()))


def graphs(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Odd", [], ["c"], bodies=[branch()]))


def sparse_initialiser(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.append(sparse())


def sparse_constant(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Constant", [], ["c"], sparse_value=sparse()))


def training(model: onnx.ModelProto) -> None:
    model.training_info.add().initialization.initializer.append(external())


def function(model: onnx.ModelProto) -> None:
    model.functions.append(helper.make_function("", "F", [], [], [], [helper.make_opsetid("", 20)]))


def operator_of_another_library(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("EPContext", [], ["c"], domain="com.microsoft"))


def opset_of_another_library(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("ours", 1))


REFUSED: list[tuple[Change, str]] = [
    (initialiser, "has external_data, a tensor in another file"),
    (initialiser_that_is_not_marked, "has external_data, a tensor in another file"),
    (location_alone, "has a tensor whose data_location is another file"),
    (constant, "has external_data, a tensor in another file"),
    (constants, "has external_data, a tensor in another file"),
    (condition, "has a graph inside a node"),
    (loop, "has a graph inside a node"),
    (graphs, "has graphs inside a node"),
    (sparse_initialiser, "has sparse_initializer"),
    (sparse_constant, "has a sparse tensor"),
    (training, "has training_info"),
    (function, "has functions"),
    (operator_of_another_library, "has operators of the domain 'com.microsoft', expected ONNX's own"),
    (opset_of_another_library, "has operators of the domain 'ours', expected ONNX's own"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[change.__name__ for change, _ in REFUSED])
def test_what_reaches_beyond_the_file_is_refused(change: Change, message: str) -> None:
    model = onnx.load(SCORER)
    change(model)
    with pytest.raises(StartError, match=message):
        check_graph(model.SerializeToString())


@pytest.mark.parametrize("path", sorted(MODELS.glob("*/*/*.onnx")), ids=lambda path: "-".join(path.parts[-3:]))
def test_shipped_graphs_are_taken(path: Path) -> None:
    check_graph(path.read_bytes())


def test_a_message_in_two_parts_is_looked_at_whole() -> None:
    """Protocol buffers join the parts of a message that is there twice."""
    second = onnx.ModelProto()
    second.graph.initializer.append(external())
    content = SCORER.read_bytes() + second.SerializeToString()
    assert onnx.load_from_string(content).graph.initializer[-1].name == "outside"
    with pytest.raises(StartError, match="external_data"):
        check_graph(content)


def test_a_number_that_is_cut_to_32_bits_is_no_way_around() -> None:
    """A reader cuts an enumeration's number to 32 bits, so that this is EXTERNAL as well."""
    location = bytes([14 << 3, 0x81, 0x80, 0x80, 0x80, 0x10])
    tensor = b"\x2a" + bytes([len(location)]) + location
    with pytest.raises(StartError, match="data_location"):
        check_graph(b"\x3a" + bytes([len(tensor)]) + tensor)


def test_onnxruntimes_own_format_is_refused(tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "scorer.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    onnxruntime.InferenceSession(SCORER.read_bytes(), options, providers=["CPUExecutionProvider"])
    with pytest.raises(StartError, match="is in onnxruntime's own format, expected ONNX"):
        check_graph((tmp_path / "scorer.ort").read_bytes())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it has no field graph"),
        (b"not a graph", "wire type 6 before byte 1"),
        (b"\x3a\x05\x0a", "a field that ends 4 bytes behind its message"),
        (b"\x3a" + b"\x80" * 20, "a number without an end at byte"),
        (b"\x00\x00", "field number 0 before byte 1"),
        (b"\x08\x01" * 1_000_001, "more than 1000000 fields"),
    ],
    ids=["empty", "text", "cut", "endless", "zero", "many"],
)
def test_what_is_no_graph_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(StartError, match=f"is no ONNX graph .*{message}"):
        check_graph(content)


def test_no_bytes_bring_the_walk_to_another_end() -> None:
    generator, content = random.Random(0), SCORER.read_bytes()[:20_000]
    for _ in range(300):
        changed = bytearray(content)
        for _ in range(generator.randint(1, 8)):
            changed[generator.randrange(2000)] = generator.randrange(256)
        try:
            check_graph(bytes(changed[: generator.randint(0, len(changed))]))
        except StartError:
            continue
