"""The same rows in the many ways that a format allows, most of them seldom seen."""

import io
import json
import random
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from tests.chaos.samples import ARROW, CSV, DATASET, INFER, JSON, JSON_BYTES, NAMES, NPY, RAW, Rows, Sample

QUERY = f"/score?dataset={DATASET}"

SPELLINGS: tuple[Callable[[float], str], ...] = (
    repr,
    "{:.3e}".format,
    "{:.12f}".format,
    "{:G}".format,
    lambda value: f"{value:.17g}",
    lambda value: f"{round(value * 1e6)}e-6",
    lambda value: f"{value * 1e8:.1f}E-8",
    lambda value: str(round(value)),
    lambda value: f"-{value}",
    lambda value: f"{value:.40f}",
    lambda value: f"{value * 3e38!r}",
    lambda value: f"{value * 1e-40!r}",
    lambda value: str(round(value * 1e19)),
    lambda _: "3.4028235677973365e38",
    lambda _: "-0",
    lambda _: "0e999",
    lambda _: "1e-999",
    lambda _: "9007199254740993",
    lambda _: "18446744073709551616",
)
"""Numbers as texts may have them."""

SPACES = ("", "", "", " ", "\n", "\t", "\r\n  ")

TYPES = ("<f2", "<f4", ">f4", "<f8", ">f8", "<i1", "<u1", "<i2", ">i2", "<u4", "<i8", ">u8")


def vary(x: Rows, draw: random.Random) -> Sample:
    """Writes rows (N, 6) in some way; the values may be others than given, and are what the body says."""
    return draw.choice((as_json, as_csv, as_npy, as_raw, as_arrow, as_lists, as_v2, as_v2_bytes))(x, draw)


def texts(x: Rows, draw: random.Random) -> list[list[str]]:
    """Spells every number in one of a few ways."""
    ways = draw.choices(SPELLINGS, k=3)
    return [[draw.choice(ways)(float(value)) for value in row] for row in x]


def listed(parts: Sequence[str], draw: random.Random) -> str:
    """Writes a list of JSON."""
    space = draw.choice(SPACES)
    return f"[{space}{f'{space},{space}'.join(parts)}{space}]"


def as_json(x: Rows, draw: random.Random) -> Sample:
    """Writes JSON with spaces, escapes, and its fields in any order."""
    rows = listed([listed(row, draw) for row in texts(x, draw)], draw)
    name = draw.choice(('"dataset"', '"data\\u0073et"'))
    dataset = draw.choice((DATASET, "thyr\\u006fid"))
    fields = [f'{name}: "{dataset}"', f'"vectors": {rows}']
    fields += draw.choice(([], [], ['"version": 1'], ['"version": 2'], ['"version": null'], ['"version": 1.0']))
    draw.shuffle(fields)
    space = draw.choice(SPACES)
    body = f"{space}{{{f'{space},'.join(fields)}}}{space}"
    return Sample("json", "/score", {"content-type": JSON}, body.encode())


def as_csv(x: Rows, draw: random.Random) -> Sample:
    """Writes CSV with names in any order or none, quotation marks, spaces, and any end of lines."""
    names = list(NAMES)
    lines = texts(x, draw)
    if named := draw.random() < 0.6:
        draw.shuffle(names)
    quoted, space = draw.random() < 0.3, draw.choice(("", "", " ", "\t"))
    end = draw.choice(("\n", "\r\n", "\r", "\n\n"))
    rows = [names, *lines] if named else lines
    written = [",".join(space + (f'"{cell}"' if quoted and not space else cell) for cell in row) for row in rows]
    text = draw.choice(("", "", "\ufeff", "\n")) + end.join(written) + draw.choice(("", end))
    return Sample("csv", QUERY, {"content-type": CSV}, text.encode())


def converted(x: Rows, dtype: str, draw: random.Random) -> np.ndarray:
    """Makes rows of some type, as large as that allows now and then."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return (x * draw.choice((1, 1, 1e-5, 6e4))).astype(kind)
    return (x * min(int(np.iinfo(kind).max), draw.choice((1, 100, 2**62)))).astype(kind)


def as_npy(x: Rows, draw: random.Random) -> Sample:
    """Writes .npy of any type, in the order of C or of Fortran, in one of three versions."""
    array = converted(x, draw.choice(TYPES), draw)
    stream = io.BytesIO()
    array = np.asfortranarray(array) if draw.random() < 0.5 else array
    version = draw.choice(((1, 0), (2, 0), (3, 0)))
    np.lib.format.write_array(stream, array, version, allow_pickle=False)
    return Sample("npy", QUERY, {"content-type": NPY}, stream.getvalue())


def as_raw(x: Rows, draw: random.Random) -> Sample:
    """Writes float32 values, tiny ones among them."""
    return Sample("raw", QUERY, {"content-type": RAW}, (x * draw.choice((1, 1e-42, 1e30))).astype("<f4").tobytes())


def arrow_type(draw: random.Random) -> pa.DataType:
    """Chooses one of Arrow's types of numbers."""
    return draw.choice(
        (pa.float16(), pa.float32(), pa.float64(), pa.int8(), pa.uint16(), pa.int32(), pa.uint64(), pa.int64())
    )


def column_of(values: np.ndarray, kind: pa.DataType, draw: random.Random) -> pa.Array:
    """Makes a column, which may be a part of a longer one, or have a bitmap of nulls without any."""
    numbers = (values * draw.choice((1, 100))).astype(kind.to_pandas_dtype())
    if draw.random() < 0.3:
        return pa.array(np.concatenate([numbers[:1], numbers, numbers[:1]]), kind).slice(1, len(numbers))
    bits = pa.py_buffer(b"\xff" * (len(numbers) // 8 + 1)) if draw.random() < 0.3 else None
    return pa.Array.from_buffers(kind, len(numbers), [bits, pa.py_buffer(numbers.tobytes())])


def batches(batch: pa.RecordBatch, draw: random.Random) -> bytes:
    """Writes a batch as a stream, in one piece or in several."""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(use_legacy_format=draw.random() < 0.2)
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        for part in draw.choice(([batch], [batch.slice(0, 1), batch.slice(1)], [batch.slice(0, 0), batch])):
            writer.write_batch(part)
    return bytes(sink.getvalue())


def as_arrow(x: Rows, draw: random.Random) -> Sample:
    """Writes columns in any order, each of a type of its own."""
    places = draw.sample(range(len(NAMES)), len(NAMES))
    columns = [column_of(x[:, place], arrow_type(draw), draw) for place in places]
    batch = pa.record_batch(columns, names=[NAMES[place] for place in places])
    return Sample("arrow", QUERY, {"content-type": ARROW}, batches(batch, draw))


def as_lists(x: Rows, draw: random.Random) -> Sample:
    """Writes lists, of which the first may be left out."""
    kind = arrow_type(draw)
    lists = pa.FixedSizeListArray.from_arrays(column_of(x.ravel(), kind, draw), x.shape[1])
    lists = lists.slice(1) if len(lists) > 1 and draw.random() < 0.5 else lists
    return Sample("arrow", QUERY, {"content-type": ARROW}, batches(pa.record_batch([lists], names=["x"]), draw))


def as_v2(x: Rows, draw: random.Random) -> Sample:
    """Writes a tensor of numbers, flat or row by row, of a floating-point type or of integers."""
    datatype = draw.choice(("FP16", "FP32", "FP64", "INT8", "UINT64", "INT64"))
    rows = texts(x, draw) if datatype.startswith("FP") else [[str(round(float(v) * 100)) for v in row] for row in x]
    data = listed([listed(row, draw) for row in rows], draw)
    if draw.random() < 0.5:
        data = listed([cell for row in rows for cell in row], draw)
    fields = ['"name": "vectors"', f'"datatype": "{datatype}"', f'"shape": {json.dumps(x.shape)}', f'"data": {data}']
    draw.shuffle(fields)
    more = draw.choice(("", ', "id": "a[b"', ', "parameters": {"x": [[1], {}]}', ', "outputs": [{"name": "scores"}]'))
    body = '{"inputs": [{' + ", ".join(fields) + "}]" + more + "}"
    return Sample("v2", INFER, {"content-type": JSON}, body.encode())


def as_v2_bytes(x: Rows, draw: random.Random) -> Sample:
    """Writes a tensor of bytes, of any type, behind JSON of any length."""
    name, dtype = draw.choice((("FP16", "<f2"), ("FP32", "<f4"), ("FP64", "<f8"), ("INT8", "<i1"), ("UINT64", "<u8")))
    content = converted(x, dtype, draw)
    parameters = {"binary_data_size": content.nbytes}
    tensor = {"name": "vectors", "datatype": name, "shape": list(x.shape), "parameters": parameters}
    text = json.dumps({"inputs": [tensor]}).encode() + b" " * draw.randrange(9)
    headers = {"content-type": RAW, JSON_BYTES: str(len(text))}
    return Sample("v2 bytes", INFER, headers, text + content.tobytes())
