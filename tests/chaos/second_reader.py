"""Bodies read a second way, to hold the service's answers against: a mutated body may be answered, but not wrongly."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

import numpy as np
import onnxruntime
import pyarrow as pa
from numpy.typing import NDArray

from tests.chaos.samples import (
    ARROW,
    CSV,
    DATASET,
    INFER,
    JSON,
    JSON_BYTES,
    NAMES,
    NPY,
    RAW,
    UNPACK,
    WIDTH,
    Rows,
    Sample,
)
from tests.chaos.wire import Reply
from tests.server import MODELS

VERSIONS = (1, 2)
NEWEST = 2

DTYPES = {
    f"{name}{8 * size}": np.dtype(f"<{kind}{size}")
    for name, kind, sizes in (("FP", "f", (2, 4, 8)), ("INT", "i", (1, 2, 4, 8)), ("UINT", "u", (1, 2, 4, 8)))
    for size in sizes
}


class Unreadable(Exception):
    """The second reader does not take a body."""


class Scorer:
    """The models' graphs, run without the service."""

    def __init__(self) -> None:
        self._sessions = {version: session_of(version) for version in VERSIONS}

    def __call__(self, version: int, x: Rows) -> NDArray[np.float64]:
        """Returns the scores (N,) of rows (N, 6)."""
        session = self._sessions[version]
        found: NDArray[np.float64] = session.run(None, {session.get_inputs()[0].name: x})[0]
        return found.astype(np.float64).ravel()


def session_of(version: int) -> Any:  # noqa: ANN401 - onnxruntime has no types
    """Opens a scorer's graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    file = MODELS / DATASET / str(version) / "scorer.onnx"
    return onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])


def rows_in(sample: Sample) -> tuple[Rows, int]:
    """Reads a request's rows (N, 6) and the version it asks for, by other libraries than the service does.

    Raises:
        Unreadable: It has none.
    """
    try:
        body = sample.body
        if (encoding := sample.headers.get("content-encoding", "identity").lower()) != "identity":
            body = UNPACK[encoding](body)
        rows, version = READERS[kind_of(sample)](body, sample)
        x = np.asarray(rows, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != WIDTH or not len(x):
            raise Unreadable(f"shape {x.shape}")
        with np.errstate(over="ignore"):
            found = x.astype(np.float32)
    except Unreadable:
        raise
    except Exception as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error
    if not np.isfinite(found).all():
        raise Unreadable("a value is not finite")
    return np.ascontiguousarray(found), NEWEST if version is None else version


def kind_of(sample: Sample) -> str:
    """Returns what a request says that it is, whatever it was made of; the protocol doesn't look at its type."""
    media_type = sample.headers.get("content-type", "").partition(";")[0].strip().lower()
    return sample.kind if sample.kind.startswith("v2") else KINDS_BY_TYPE[media_type]


Read = tuple[Any, int | None]


def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Makes an object of pairs.

    Raises:
        Unreadable: A key is there twice.
    """
    if len(dict(pairs)) != len(pairs):
        raise Unreadable("a key is there twice")
    return dict(pairs)


def numbers_only(values: object) -> None:
    """Looks for anything but numbers in lists of lists.

    Raises:
        Unreadable: There is something else.
    """
    if isinstance(values, list):
        for value in values:
            numbers_only(value)
    elif isinstance(values, bool) or not isinstance(values, int | float):
        raise Unreadable(f"{values!r} is no number")


def read_json(body: bytes, _: Sample) -> Read:
    """Reads JSON by Python's own reader."""
    document = json.loads(body.decode(), object_pairs_hook=no_duplicates)
    if document["dataset"] != DATASET or set(document) - {"dataset", "version", "vectors", "records"}:
        raise Unreadable("another dataset or field")
    if "records" in document:
        if "vectors" in document or any(set(record) != set(NAMES) for record in document["records"]):
            raise Unreadable("vectors as well, or another column")
        vectors = [[record[name] for name in NAMES] for record in document["records"]]
    else:
        vectors = document["vectors"]
    numbers_only(vectors)
    return vectors, document.get("version")


def in_query(sample: Sample) -> int | None:
    """Returns the version that a query asks for.

    Raises:
        Unreadable: It asks for another dataset.
    """
    query = parse_qs(sample.target.partition("?")[2], keep_blank_values=True, encoding="latin-1")
    if query.get("dataset") != [DATASET]:
        raise Unreadable("another dataset")
    return int(query["version"][0]) if "version" in query else None


def in_order(columns: Mapping[str, Sequence[Any]], names: Sequence[str]) -> NDArray[Any]:
    """Puts named columns into the model's order.

    Raises:
        Unreadable: There are others.
    """
    if sorted(names) != sorted(NAMES):
        raise Unreadable("other columns")
    return np.stack([np.asarray(columns[name], dtype=np.float64) for name in NAMES], axis=1)


def read_csv(body: bytes, sample: Sample) -> Read:
    """Reads CSV by Python's own reader."""
    text = body.decode("utf-8-sig")
    lines = [line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line]
    names = None
    try:
        [float(cell) for cell in lines[0]]
    except ValueError:
        names = [cell.strip() for cell in lines.pop(0)]
    if any("_" in cell for line in lines for cell in line):
        raise Unreadable("digits with an underscore")
    values = [[float(cell) for cell in line] for line in lines]
    if names is None:
        return values, in_query(sample)
    return in_order(dict(zip(names, zip(*values, strict=True), strict=True)), names), in_query(sample)


def read_npy(body: bytes, sample: Sample) -> Read:
    """Reads .npy by numpy."""
    stream = io.BytesIO(body)
    found = np.load(stream, allow_pickle=False)
    if stream.read(1) or found.dtype.kind not in "fiu":
        raise Unreadable("bytes behind, or no numbers")
    return found, in_query(sample)


def read_raw(body: bytes, sample: Sample) -> Read:
    """Reads float32 values."""
    return np.frombuffer(body, "<f4").reshape(-1, WIDTH), in_query(sample)


def read_arrow(body: bytes, sample: Sample) -> Read:
    """Reads Arrow's stream as one table."""
    table = pa.ipc.open_stream(body).read_all()
    table.validate(full=True)
    if any(column.null_count for column in table.columns):
        raise Unreadable("a null")
    if len(table.schema) == 1 and pa.types.is_fixed_size_list(table.schema.types[0]):
        return table.column(0).to_pylist(), in_query(sample)
    return in_order(
        dict(zip(table.schema.names, (c.to_pylist() for c in table.columns), strict=True)), table.schema.names
    ), in_query(sample)


def only_tensor(text: bytes, sample: Sample) -> dict[str, Any]:
    """Returns the one tensor of a request of the protocol.

    Raises:
        Unreadable: It has others, or is for another model.
    """
    if sample.target.partition("?")[0] != INFER:
        raise Unreadable("another model")
    (tensor,) = json.loads(text.decode(), object_pairs_hook=no_duplicates)["inputs"]
    if tensor["name"] != "vectors" or len(tensor["shape"]) != 2:
        raise Unreadable("another tensor")
    found: dict[str, Any] = tensor
    return found


def read_v2(body: bytes, sample: Sample) -> Read:
    """Reads a tensor of numbers."""
    if JSON_BYTES in sample.headers:
        return read_v2_bytes(body, sample)
    tensor = only_tensor(body, sample)
    numbers_only(tensor["data"])
    values, dtype = np.asarray(tensor["data"], dtype=np.float64), DTYPES[tensor["datatype"]]
    if dtype.kind != "f" and (values != np.trunc(values)).any():
        raise Unreadable("no integers")
    return values.reshape(tensor["shape"]), None


def read_v2_bytes(body: bytes, sample: Sample) -> Read:
    """Reads a tensor of bytes."""
    length = int(sample.headers[JSON_BYTES])
    if length > len(body):
        raise Unreadable("no such length")
    tensor = only_tensor(body[:length], sample)
    content = np.frombuffer(body[length:], DTYPES[tensor["datatype"]])
    if tensor["parameters"]["binary_data_size"] != content.nbytes:
        raise Unreadable("another size")
    return content.reshape(tensor["shape"]), None


READERS: dict[str, Callable[[bytes, Sample], Read]] = {
    "json": read_json,
    "csv": read_csv,
    "npy": read_npy,
    "raw": read_raw,
    "arrow": read_arrow,
    "v2": read_v2,
    "v2 bytes": read_v2_bytes,
}


KINDS_BY_TYPE = {JSON: "json", CSV: "csv", NPY: "npy", RAW: "raw", ARROW: "arrow"}


def scores_in(reply: Reply) -> tuple[NDArray[np.float64], int | None]:
    """Reads an answer's scores (N,), and the version if it has one."""
    kind, body = reply.headers.get("content-type", ""), reply.body
    version = int(reply.headers["x-radogaga-version"]) if "x-radogaga-version" in reply.headers else None
    if JSON_BYTES in reply.headers:
        length = int(reply.headers[JSON_BYTES])
        return v2_scores(json.loads(body[:length]), body[length:])
    if kind == "application/json":
        document = json.loads(body)
        if "outputs" in document:
            return v2_scores(document, b"")
        return np.asarray(document["scores"], dtype=np.float64), document["version"]
    if kind.startswith("text/csv"):
        lines = list(csv.DictReader(io.StringIO(body.decode())))
        return np.asarray([float(line["scores"]) for line in lines]), version
    if kind == "application/x-npy":
        return np.load(io.BytesIO(body)).astype(np.float64), version
    if kind == "application/octet-stream":
        return np.frombuffer(body, "<f4").astype(np.float64), version
    return pa.ipc.open_stream(body).read_all().column("scores").to_numpy().astype(np.float64), version


def v2_scores(document: dict[str, Any], behind: bytes) -> tuple[NDArray[np.float64], int | None]:
    """Reads the protocol's scores."""
    (found,) = [output for output in document["outputs"] if output["name"] == "scores"]
    data = found["data"] if "data" in found else np.frombuffer(behind[: 8 * found["shape"][0]], "<f8")
    return np.asarray(data, dtype=np.float64).reshape(found["shape"]), int(document["model_version"])
