"""Bodies of inference requests and their answers: JSON, and behind it the tensors that come as bytes."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import simdjson
from numpy.typing import NDArray

from service.errors import InvalidField
from service.formats import Answer, Body, Context
from service.formats.json import parser_for, strict_document
from service.formats.rows import check_rows
from service.graphs import Matrix
from service.quotes import describe, shorten
from service.v2.models import Model, Tensor
from service.v2.tensors import DATATYPES, WRITTEN, Shape, from_bytes, from_numbers, from_values

JSON_BYTES = "Inference-Header-Content-Length"
"""The header that says how many bytes of a body are JSON; the rest are tensors."""

LARGEST_INTEGER = 2**63 - 1
"""The largest size that the protocol has a number for."""

MOST_FIELDS = 64
"""So many fields or list entries outside of the data are read fast: simdjson looks for each from the beginning."""

MOST_SIZES = 8
"""Sizes of a shape that an error repeats."""

SHARED_MEMORY = "shared_memory_region"


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output that is asked for.

    Attributes:
        tensor: Which one.
        binary: Whether as bytes behind the JSON.
    """

    tensor: Tensor
    binary: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """What an inference request asks for.

    Attributes:
        id: What the answer is to be known by.
        rows: The rows.
        outputs: The outputs, in the order of the answer.
    """

    id: str | None
    rows: Matrix
    outputs: list[Wanted]


def read(body: Body, json_bytes: bytes | None, model: Model, max_rows: int) -> Asked:
    """Reads an inference request.

    Arguments:
        body: Its body.
        json_bytes: What its header says of how much of that is JSON.
        model: Which model it is for.
        max_rows: The number of rows one request may carry.

    Raises:
        MalformedBody: The JSON is none, or has a key twice.
        InvalidField: A field or tensor is missing, unknown, there twice or of the wrong type, shape or size.
        InvalidValue: A value is not a finite number that fits its datatype and a float32.
        TooManyRows: There are more rows than one request may carry.
    """
    text, binary = split(body, json_bytes)
    document = read_document(text, max_rows)
    if not isinstance(document, dict):
        raise InvalidField("The body", f"is {describe(document)}", "an object")
    request_id = document.get("id")
    if not (request_id is None or isinstance(request_id, str)):
        raise InvalidField("id", f"is {describe(request_id)}", "a string")
    if request_id and not is_utf8(request_id):
        raise InvalidField("id", f"is {describe(request_id)}", "a string that can be written as UTF-8")
    parameters = parameters_of(document, "parameters")
    outputs = wanted_outputs(document, model, boolean_of(parameters, "binary_data_output", "parameters") or False)
    return Asked(request_id, read_input(only_input(document, model.input), model.input, binary, max_rows), outputs)


def split(body: Body, json_bytes: bytes | None) -> tuple[Body, memoryview]:
    """Splits a body into its JSON and what stands behind.

    Raises:
        InvalidField: The header is no number, or larger than the body.
    """
    if json_bytes is None:
        return body, memoryview(b"")
    text = json_bytes.decode("latin-1")
    if not text.isdecimal():
        raise InvalidField(JSON_BYTES, f"is '{shorten(text)}'", "a number of bytes")
    digits = text.lstrip("0") or "0"
    if len(digits) > len(str(len(body))) or int(digits) > len(body):
        raise InvalidField(JSON_BYTES, f"is {shorten(digits)}", f"at most {len(body)}, the bytes of the body")
    length = int(digits)
    return (body if length == len(body) else body[:length]), memoryview(body)[length:]


def read_document(text: Body, max_rows: int) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Reads JSON, with numbers of tensors as arrays where nothing is unusual about them.

    Raises:
        MalformedBody: It is not UTF-8, not JSON, nested too deeply, or has a key twice.
        InvalidField: It is long, and has more lists and objects than that many rows need.
    """
    found = _read_fast(text)
    return strict_document(text, max_rows) if found is None else found


def only_input(document: dict[str, Any], tensor: Tensor) -> dict[str, Any]:
    """Returns the one input that a model takes.

    Raises:
        InvalidField: It is missing or there twice, or another one is there.
    """
    entries = list(named(document.get("inputs"), "inputs"))
    for place, (name, _) in enumerate(entries):
        if name != tensor.name:
            raise InvalidField(f"inputs[{place}]", f"is {describe(name)}", f"{tensor.name}, the only input there is")
    if len(entries) != 1:
        found = f"is there {len(entries)} times" if entries else "is missing"
        raise InvalidField(f"Input {tensor.name}", found, "it once")
    return entries[0][1]


def read_input(entry: dict[str, Any], tensor: Tensor, binary: memoryview, max_rows: int) -> Matrix:
    """Reads an input's rows, from the JSON or from the bytes behind, of which none may be left.

    Raises:
        InvalidField: Its datatype, shape or size is wrong.
        InvalidValue: A value is not a finite number that fits its datatype and a float32.
        TooManyRows: There are more rows than one request may carry.
    """
    name, datatype, data = tensor.name, entry.get("datatype"), entry.get("data")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise InvalidField(f"{name}.datatype", _found(entry, "datatype"), f"one of {', '.join(DATATYPES)}")
    shape = read_shape(entry, tensor)
    check_rows(Context(b"", name, max_rows), shape[0])
    place = f"{name}.parameters"
    parameters = parameters_of(entry, place)
    _refuse(parameters, SHARED_MEMORY, place)
    size = parameters.get("binary_data_size")
    if size is None:
        if binary:
            found = f"has {len(binary)} bytes behind its JSON"
            raise InvalidField("The body", found, f"none without {place}.binary_data_size")
        if isinstance(data, np.ndarray):
            return from_numbers(name, datatype, shape, data)
        if not isinstance(data, list):
            raise InvalidField(f"{name}.data", _found(entry, "data"), f"a list of numbers, or {place}.binary_data_size")
        return from_values(name, datatype, shape, data)
    if data is not None:
        raise InvalidField(f"{name}.data", "is there", f"none beside {place}.binary_data_size")
    needed = math.prod(shape) * DATATYPES[datatype].itemsize
    if isinstance(size, bool) or not isinstance(size, int) or size != needed:
        found = _found(parameters, "binary_data_size")
        raise InvalidField(f"{place}.binary_data_size", found, f"{needed} for {datatype} of shape {[*shape]}")
    if len(binary) != needed:
        found = f"has {len(binary)} bytes behind its JSON"
        raise InvalidField("The body", found, f"{needed} for {name}, and {JSON_BYTES} with the length of the JSON")
    return from_bytes(name, datatype, shape, binary)


def read_shape(entry: dict[str, Any], tensor: Tensor) -> Shape:
    """Reads the shape of an input.

    Raises:
        InvalidField: It is not one that the model takes.
    """
    field, width, shape = f"{tensor.name}.shape", tensor.shape[1], entry.get("shape")
    if not isinstance(shape, list):
        raise InvalidField(field, _found(entry, "shape"), f"[rows, {width}]")
    if len(shape) > MOST_SIZES:
        raise InvalidField(field, f"has {len(shape)} sizes", f"[rows, {width}]")
    for i, size in enumerate(shape):
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= LARGEST_INTEGER:
            raise InvalidField(f"{field}[{i}]", f"is {describe(size)}", "a number that is not negative")
    if len(shape) != len(tensor.shape) or shape[1] != width:
        raise InvalidField(field, f"is {shorten(str(shape))}", f"[rows, {width}]")
    return shape[0], shape[1]


def wanted_outputs(document: dict[str, Any], model: Model, binary: bool) -> list[Wanted]:
    """Returns the outputs that a request asks for, all of the model's if it names none.

    Raises:
        InvalidField: One is unknown, there twice or wanted in a way that there is not.
    """
    known = {tensor.name: tensor for tensor in model.outputs}
    if not document.get("outputs"):
        return [Wanted(tensor, binary) for tensor in known.values()]
    wanted: dict[str, Wanted] = {}
    for i, (name, entry) in enumerate(named(document["outputs"], "outputs")):
        if name not in known:
            raise InvalidField(f"outputs[{i}]", f"is {describe(name)}", f"one of {', '.join(known)}")
        if name in wanted:
            raise InvalidField(f"Output {name}", "is there twice", "it once")
        place = f"outputs[{i}].parameters"
        parameters = parameters_of(entry, place)
        _refuse(parameters, SHARED_MEMORY, place)
        _refuse(parameters, "classification", place)
        own = boolean_of(parameters, "binary_data", place)
        wanted[name] = Wanted(known[name], binary if own is None else own)
    return list(wanted.values())


def named(entries: object, field: str) -> Iterable[tuple[str, dict[str, Any]]]:
    """Returns the tensors of a list with their names.

    Raises:
        InvalidField: It is no list, or an entry is no object with a name.
    """
    if not isinstance(entries, list):
        raise InvalidField(field, "is missing" if entries is None else f"is {describe(entries)}", "a list of tensors")
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise InvalidField(f"{field}[{i}]", f"is {describe(entry)}", "an object")
        if not isinstance(entry.get("name"), str):
            raise InvalidField(f"{field}[{i}].name", _found(entry, "name"), "a string")
        yield entry["name"], entry


def parameters_of(entry: dict[str, Any], place: str) -> dict[str, Any]:
    """Returns the parameters of a request or tensor, of which those that nobody knows are ignored.

    Raises:
        InvalidField: They are no object.
    """
    parameters = entry.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise InvalidField(place, f"is {describe(parameters)}", "an object")
    return parameters


def boolean_of(parameters: dict[str, Any], name: str, place: str) -> bool | None:
    """Returns a parameter that is true or false, or None if it is not there.

    Raises:
        InvalidField: It is something else.
    """
    value = parameters.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise InvalidField(f"{place}.{name}", f"is {describe(value)}", "true or false")


def write(model: Model, asked: Asked, answer: Answer) -> tuple[bytes, int | None]:
    """Writes an answer, and says how much of it is JSON if that is not all."""
    outputs, tensors = [], []
    for wanted in asked.outputs:
        tensor = wanted.tensor
        array = np.ascontiguousarray(answer.arrays[tensor.name], dtype=WRITTEN[tensor.datatype])
        output: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype, "shape": array.shape}
        if wanted.binary:
            output["parameters"] = {"binary_data_size": array.nbytes}
            tensors.append(array.tobytes())
        else:
            output["data"] = array.ravel()
        outputs.append(output)
    document: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
    if asked.id is not None:
        document["id"] = asked.id
    if "threshold" in answer.fields:
        document["parameters"] = {"threshold": answer.fields["threshold"]}
    text = orjson.dumps({**document, "outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
    return (b"".join([text, *tensors]), len(text)) if tensors else (text, None)


def is_utf8(text: str) -> bool:
    """Tells whether a text has no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse(parameters: dict[str, Any], name: str, place: str) -> None:
    if parameters.get(name) is not None:
        raise InvalidField(f"{place}.{name}", _found(parameters, name), "none, as it is not supported")


def _found(entry: dict[str, Any], field: str) -> str:
    value = entry.get(field)
    return "is missing" if value is None else f"is {describe(value)}"


def _read_fast(text: Body) -> dict[str, Any] | None:
    """Reads JSON with one input that has nothing unusual about it, or returns None.

    Nothing that refers to the parsed body may outlive this function, or its parser could not be used again.
    """
    try:
        document: Any = parser_for(len(text)).parse(text)
        read = {name: _plain(document[name]) for name in _names(document) if name != "inputs"}
        (entry,) = document["inputs"]
        tensor: dict[str, Any] = {name: _plain(entry[name]) for name in _names(entry) if name != "data"}
        read["inputs"] = [tensor]
        if "data" in entry:
            tensor["data"] = _numbers(entry["data"], text.count(b"[") - _count_lists(read))
        return read
    except (ValueError, TypeError, RuntimeError, KeyError):  # simdjson's words for what the strict reading says better
        return None


def _numbers(data: Any, brackets: int) -> NDArray[np.float64]:  # noqa: ANN401 - simdjson has no types for what it gives
    """Returns data as an array (N,) or a matrix (N, M), which simdjson itself would not tell from any other nesting."""
    if not isinstance(data, simdjson.Array):
        raise TypeError("no list")
    numbers = np.frombuffer(data.as_buffer(of_type="d"), dtype=np.float64)
    if brackets == 1:
        return numbers
    widths = {len(row) for row in data}  # type: ignore[arg-type]  # what has no length is no row, and a TypeError
    if len(widths) != 1 or brackets != len(data) + 1:
        raise ValueError("neither flat nor a matrix, or a text has a bracket")
    return numbers.reshape(len(data), -1)


def _names(found: Any) -> list[str]:  # noqa: ANN401
    if not isinstance(found, simdjson.Object):
        raise TypeError("no object")
    if len(found) > MOST_FIELDS:
        raise ValueError("too many to look for one by one")
    names = list(found)
    if len(set(names)) != len(names):
        raise ValueError("a key is there twice")
    return names


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    if isinstance(value, simdjson.Object):
        return {name: _plain(value[name]) for name in _names(value)}
    if isinstance(value, simdjson.Array):
        if len(value) > MOST_FIELDS:
            raise ValueError("too long to be anything but data")
        return [_plain(inner) for inner in value]
    return value


def _count_lists(value: object) -> int:
    if isinstance(value, dict):
        return sum(map(_count_lists, value.values()))
    return 1 + sum(map(_count_lists, value)) if isinstance(value, list) else 0
