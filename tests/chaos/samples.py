"""Requests that are right, of every format, for others to be made of."""

import gzip
import io
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from backports import zstd
from numpy.typing import NDArray

DATASET, WIDTH = "thyroid", 6

NAMES = ("age", "TSH", "T3", "TT4", "T4U", "FTI")

JSON = "application/json"
CSV = "text/csv"
NPY = "application/x-npy"
RAW = "application/octet-stream"
ARROW = "application/vnd.apache.arrow.stream"

INFER = f"/v2/models/{DATASET}/infer"
JSON_BYTES = "inference-header-content-length"

Rows = NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """A request with rows.

    Attributes:
        kind: How the rows are written.
        target: Its path and query.
        headers: Its header, names in lower case.
        body: Its body.
    """

    kind: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


def rows_of(count: int, seed: int = 0) -> Rows:
    """Makes rows (N, 6), uniform on [0, 1) with few decimals."""
    return np.random.default_rng(seed).random((count, WIDTH)).round(4).astype(np.float32)


def as_json(x: Rows) -> Sample:
    """Writes rows as JSON."""
    document = {"dataset": DATASET, "vectors": x.astype(float).round(4).tolist()}
    return Sample("json", "/score", {"content-type": JSON}, json.dumps(document).encode())


def as_records(x: Rows) -> Sample:
    """Writes rows as records."""
    records = [dict(zip(NAMES, row, strict=True)) for row in x.astype(float).round(4).tolist()]
    document = {"dataset": DATASET, "records": records}
    return Sample("json", "/score", {"content-type": JSON}, json.dumps(document).encode())


def as_csv(x: Rows) -> Sample:
    """Writes rows as CSV, under their names."""
    lines = [",".join(NAMES), *(",".join(f"{value:.4g}" for value in row) for row in x)]
    return Sample("csv", f"/score?dataset={DATASET}", {"content-type": CSV}, "\n".join(lines).encode())


def as_npy(x: Rows) -> Sample:
    """Writes rows as numpy does."""
    stream = io.BytesIO()
    np.save(stream, x)
    return Sample("npy", f"/score?dataset={DATASET}", {"content-type": NPY}, stream.getvalue())


def as_raw(x: Rows) -> Sample:
    """Writes rows as float32."""
    return Sample("raw", f"/score?dataset={DATASET}", {"content-type": RAW}, x.astype("<f4").tobytes())


def as_arrow(x: Rows) -> Sample:
    """Writes rows as Arrow's columns."""
    batch = pa.record_batch([pa.array(np.ascontiguousarray(column)) for column in x.T], names=list(NAMES))
    return Sample("arrow", f"/score?dataset={DATASET}", {"content-type": ARROW}, stream_of(batch))


def as_arrow_lists(x: Rows) -> Sample:
    """Writes rows as Arrow's lists."""
    lists = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), WIDTH)
    batch = pa.record_batch([lists], names=["x"])
    return Sample("arrow", f"/score?dataset={DATASET}", {"content-type": ARROW}, stream_of(batch))


def stream_of(batch: pa.RecordBatch) -> bytes:
    """Writes a batch as a stream of its own."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def as_v2(x: Rows) -> Sample:
    """Writes rows as the Open Inference Protocol's numbers."""
    tensor = {"name": "vectors", "datatype": "FP32", "shape": list(x.shape), "data": x.ravel().astype(float).tolist()}
    return Sample("v2", INFER, {"content-type": JSON}, json.dumps({"id": "7", "inputs": [tensor]}).encode())


def as_v2_bytes(x: Rows) -> Sample:
    """Writes rows as the Open Inference Protocol's bytes."""
    parameters = {"binary_data_size": x.nbytes}
    tensor = {"name": "vectors", "datatype": "FP32", "shape": list(x.shape), "parameters": parameters}
    text = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return Sample("v2 bytes", INFER, {"content-type": RAW, JSON_BYTES: str(len(text))}, text + x.tobytes())


WAYS: tuple[Callable[[Rows], Sample], ...] = (
    as_json,
    as_csv,
    as_npy,
    as_raw,
    as_arrow,
    as_arrow_lists,
    as_v2,
    as_v2_bytes,
    as_records,
)

KINDS = ("json", "csv", "npy", "raw", "arrow", "v2", "v2 bytes")

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda body: gzip.compress(body, mtime=0),
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}
UNPACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
    "zstd": zstd.decompress,
}


def packed(sample: Sample, encoding: str) -> Sample:
    """Compresses a request's body."""
    return Sample(
        sample.kind, sample.target, {**sample.headers, "content-encoding": encoding}, PACK[encoding](sample.body)
    )
