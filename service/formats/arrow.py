"""Apache Arrow's IPC stream: a column of numbers per feature, by name, or one column of lists of a fixed size.

pyarrow takes as much memory as all of the service, so it is imported when the first such body comes.
"""

from typing import Any

import numpy as np
from flatbuffers import encode
from flatbuffers.number_types import UOffsetTFlags
from flatbuffers.table import Table
from numpy.typing import NDArray

from service.errors import InvalidField, MalformedBody
from service.formats.query import address_of
from service.formats.rows import Answer, Body, Context, NamedRows, check_rows, refuse_value
from service.quotes import describe, shorten

MEDIA_TYPE = "application/vnd.apache.arrow.stream"

NEWLINE = "\n"

HEADER_SLOT, COMPRESSION_SLOT = 8, 10
"""Where the format's Message.fbs has a message's header, and in a record batch's header its compression."""


def read(body: Body, context: Context) -> NamedRows:
    """Reads a stream of record batches.

    Raises:
        MalformedBody: The body is no Arrow stream, is cut, or its buffers are compressed.
        InvalidField: A column is no numbers, there are no rows, or the query doesn't say which model they are for.
        InvalidValue: A value is null.
        TooManyRows: There are more rows than one request may carry.
    """
    import pyarrow as pa

    address = address_of(context.query)
    try:
        stream = pa.py_buffer(body)
        _check_messages(pa.ipc.MessageReader.open_stream(stream))
        reader = pa.ipc.open_stream(stream)
        _check_schema(reader.schema)
        batches, rows = [], 0
        for batch in reader:
            batch.validate(full=True)
            batches.append(batch)
            rows += batch.num_rows
            if rows > context.max_rows:
                break
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MalformedBody(f"The body is no Arrow stream: {shorten(str(error).partition(NEWLINE)[0])}.") from None
    check_rows(context, rows)
    lists = pa.types.is_fixed_size_list(reader.schema.types[0])
    names = None if lists else reader.schema.names
    parts = [_matrix(batch, lists, context.field) for batch in batches]
    return NamedRows(address, context.field, np.concatenate(parts), names)


def write(answer: Answer) -> bytes:
    """Writes an answer's arrays as columns, and its single values as the schema's metadata."""
    import pyarrow as pa

    columns: dict[str, NDArray[Any]] = {}
    for name, listed in answer.arrays.items():
        array = np.asarray(listed)
        columns |= dict(zip(answer.columns, array.T, strict=True)) if array.ndim == 2 else {name: array}
    batch = pa.RecordBatch.from_pydict(
        {name: pa.array(np.ascontiguousarray(column)) for name, column in columns.items()},
        metadata={name: str(value) for name, value in answer.fields.items()},
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _check_messages(messages: Any) -> None:  # noqa: ANN401 - pyarrow has no types
    """Looks at the messages' own words before their buffers are touched."""
    while True:
        try:
            message = messages.read_next_message()
        except StopIteration:
            return
        if message.type not in ("schema", "record batch", "dictionary"):  # a column of dictionaries is named later
            raise MalformedBody(f"The body has a message of type {message.type}, expected record batches.")
        if message.type == "record batch" and _is_compressed(message):
            raise MalformedBody("The body has compressed buffers, expected plain ones.")


def _check_schema(schema: Any) -> None:  # noqa: ANN401
    import pyarrow as pa

    if not schema.names:
        raise InvalidField("The body", "has no columns", "a column for each of the dataset's")
    only = schema.types[0]
    if len(schema) == 1 and pa.types.is_fixed_size_list(only) and _is_number(only.value_type):
        return
    for field in schema:
        if not _is_number(field.type):
            raise InvalidField(
                f"Column {describe(field.name)}",
                f"has values of type {shorten(str(field.type))}",
                "floating point numbers or integers, or one column of lists of a fixed size",
            )


def _is_number(type_: Any) -> bool:  # noqa: ANN401
    import pyarrow as pa

    return bool(pa.types.is_floating(type_) or pa.types.is_integer(type_))


def _is_compressed(message: Any) -> bool:  # noqa: ANN401
    """Tells whether a record batch's buffers are compressed: pyarrow would inflate them without any bound."""
    metadata = message.metadata.to_pybytes()
    root = Table(metadata, encode.Get(UOffsetTFlags.packer_type, metadata, 0))
    at = root.Offset(HEADER_SLOT)
    if not at:
        return False
    header = Table(metadata, root.Indirect(root.Pos + at))
    return bool(header.Offset(COMPRESSION_SLOT))


def _matrix(batch: Any, lists: bool, field: str) -> NDArray[np.number]:  # noqa: ANN401
    if lists:
        column = batch.column(0)
        _refuse_nulls(column, field, None)
        width = column.type.list_size
        items = column.flatten()
        if items.null_count:
            row, place = divmod(next(i for i, item in enumerate(items) if not item.is_valid), width)
            refuse_value(field, row, place, None)
        return _numbers(items).reshape(batch.num_rows, width)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        _refuse_nulls(column, field, name)
    numbers = [_numbers(column) for column in batch.columns]
    matrix = np.empty((batch.num_rows, len(numbers)), dtype=np.result_type(np.float32, *numbers))
    for place, column in enumerate(numbers):
        matrix[:, place] = column
    return matrix


def _numbers(column: Any) -> NDArray[np.number]:  # noqa: ANN401
    numbers: NDArray[np.number] = column.to_numpy(zero_copy_only=True)
    return numbers


def _refuse_nulls(column: Any, field: str, name: str | None) -> None:  # noqa: ANN401
    if column.null_count:
        row = next(i for i, value in enumerate(column) if not value.is_valid)
        refuse_value(field, row, name if name is not None else 0, None)
