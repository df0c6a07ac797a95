"""Arrow's IPC stream, as pyarrow writes it and as nobody should."""

import io
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from service.errors import InvalidField, InvalidValue, MalformedBody, ServiceError, TooManyRows, WrongWidth
from service.formats.arrow import MEDIA_TYPE
from tests.service.formats.readings import VALUES, read, read_changed


def stream(*batches: Any, **options: Any) -> bytes:  # noqa: ANN401 - pyarrow has no types
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, batches[0].schema, **options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    return sink.getvalue()


def columns(values: Any = VALUES, names: str = "abc", type_: Any = None) -> Any:  # noqa: ANN401
    return pa.record_batch({name: pa.array(values[:, i], type_) for i, name in enumerate(names)})


def lists(values: Any = VALUES) -> Any:  # noqa: ANN401
    flat = pa.array(np.ravel(values))
    return pa.record_batch({"rows": pa.FixedSizeListArray.from_arrays(flat, values.shape[1])})


def test_columns_are_read_by_name() -> None:
    assert read(MEDIA_TYPE, stream(columns())).tobytes() == VALUES.tobytes()
    turned = VALUES[:, [2, 0, 1]]
    assert read(MEDIA_TYPE, stream(columns(turned, "cab"))).tobytes() == VALUES.tobytes()


def test_one_column_of_lists_has_the_models_order() -> None:
    assert read(MEDIA_TYPE, stream(lists())).tobytes() == VALUES.tobytes()
    assert read(MEDIA_TYPE, stream(lists(VALUES.astype(np.float64)))).tobytes() == VALUES.tobytes()


def test_batches_follow_one_another() -> None:
    batch = columns()
    body = stream(batch.slice(0, 1), batch.slice(1, 0), batch.slice(1, 1))
    assert read(MEDIA_TYPE, body).tobytes() == VALUES.tobytes()
    assert read(MEDIA_TYPE, stream(lists()[:1], lists()[1:])).tobytes() == VALUES.tobytes()


@pytest.mark.parametrize("type_", [pa.float16(), pa.float64(), pa.int8(), pa.uint64()])
def test_numbers_of_any_type(type_: Any) -> None:  # noqa: ANN401
    numbers = np.array([[1, 2, 3]], dtype=type_.to_pandas_dtype())
    assert read(MEDIA_TYPE, stream(columns(numbers, type_=type_))).tolist() == [[1.0, 2.0, 3.0]]


OTHERS = {
    "string": pa.array(["1"]),
    "bool": pa.array([True]),
    "timestamp[s]": pa.array([1], pa.timestamp("s")),
    "dictionary<values=string, indices=int32, ordered=0>": pa.array(["x"]).dictionary_encode(),
    "null": pa.nulls(1),
    "list<item: double>": pa.array([[1.0]]),
    "decimal128(3, 1)": pa.array([1], pa.decimal128(3, 1)),
    "fixed_size_list<item: string>[2]": pa.array([["x", "y"]], pa.list_(pa.string(), 2)),
}


@pytest.mark.parametrize("type_", OTHERS)
def test_columns_of_other_types_are_named(type_: str) -> None:
    body = stream(pa.record_batch({"a": pa.array([1.0]), "b": OTHERS[type_], "c": pa.array([1.0])}))
    with pytest.raises(InvalidField) as caught:
        read(MEDIA_TYPE, body)
    assert str(caught.value).startswith(f'Column "b" has values of type {type_}, expected')


def test_nulls_are_named() -> None:
    batch = pa.record_batch({"a": [1.0, 2.0], "b": [1.0, None], "c": [1.0, 2.0]})
    with pytest.raises(InvalidValue, match=r'^vectors\[1\]\["b"\] is null, expected a finite number'):
        read(MEDIA_TYPE, stream(batch))
    item = pa.record_batch({"rows": pa.array([[1.0, 2.0, 3.0], [1.0, 2.0, None]], pa.list_(pa.float32(), 3))})
    with pytest.raises(InvalidValue, match=r"^vectors\[1\]\[2\] is null"):
        read(MEDIA_TYPE, stream(item))
    row = pa.record_batch({"rows": pa.array([[1.0, 2.0, 3.0], None], pa.list_(pa.float32(), 3))})
    with pytest.raises(InvalidValue, match=r"^vectors\[1\]\[0\] is null"):
        read(MEDIA_TYPE, stream(row))


@pytest.mark.parametrize(("value", "named"), [(np.nan, "NaN"), (np.inf, "Infinity"), (1e39, r"1e\+39")])
def test_values_that_are_not_finite(value: float, named: str) -> None:
    broken = VALUES.astype(np.float64)
    broken[1, 2] = value
    with pytest.raises(InvalidValue, match=rf'^vectors\[1\]\["c"\] is {named}'):
        read(MEDIA_TYPE, stream(columns(broken)))


def test_names_and_widths_that_are_wrong() -> None:
    with pytest.raises(InvalidField, match='Column "d" is unknown'):
        read(MEDIA_TYPE, stream(columns(names="abd")))
    with pytest.raises(InvalidField, match='Column "c" is missing'):
        read(MEDIA_TYPE, stream(columns(names="ab")))
    twice = pa.RecordBatch.from_arrays([pa.array([1.0])] * 2, ["a", "a"])
    with pytest.raises(InvalidField, match='Column "a" is there twice'):
        read(MEDIA_TYPE, stream(twice))
    with pytest.raises(WrongWidth, match=r"vectors\[0\] has 2 values, expected 3"):
        read(MEDIA_TYPE, stream(lists(VALUES[:, :2])))


def test_no_rows_too_many_and_no_columns() -> None:
    with pytest.raises(InvalidField, match="vectors is empty"):
        read(MEDIA_TYPE, stream(columns().slice(0, 0)))
    with pytest.raises(TooManyRows):
        read(MEDIA_TYPE, stream(*[columns()] * 51))
    with pytest.raises(InvalidField, match="The body has no columns"):
        read(MEDIA_TYPE, stream(pa.RecordBatch.from_pydict({})))


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_buffers_are_refused_unseen(compression: str) -> None:
    """A body of a few hundred bytes could ask for any amount of memory."""
    body = stream(columns(np.zeros((100, 3))), options=pa.ipc.IpcWriteOptions(compression=compression))
    with pytest.raises(MalformedBody, match=r"^The body has compressed buffers, expected plain ones"):
        read(MEDIA_TYPE, body)


def test_bodies_that_are_cut() -> None:
    whole = stream(columns())
    for length in range(0, len(whole) - 8, 7):
        with pytest.raises(ServiceError):
            read(MEDIA_TYPE, whole[:length])


@pytest.mark.parametrize("body", [b"garbage" * 20, b"ARROW1\0\0" * 20, b"\xff" * 64, b"\xff\xff\xff\xff" + bytes(60)])
def test_bodies_that_are_no_stream(body: bytes) -> None:
    with pytest.raises(MalformedBody, match="The body is no Arrow stream: "):
        read(MEDIA_TYPE, body)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("make", [columns, lists])
def test_changed_bytes_are_read_or_refused(make: Any, seed: int) -> None:  # noqa: ANN401
    read_changed(MEDIA_TYPE, stream(make()), seed)
