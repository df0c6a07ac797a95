"""CSV (RFC 4180): a row per line, with the columns' names in the first line or without them.

The first line is taken for names unless all its cells are numbers. What has nothing unusual about it, no quotation
marks above all, differs from JSON in its brackets only, and is read as JSON is, which is faster.
"""

import codecs
import csv
import io
from collections.abc import Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidField, MalformedBody, TooManyRows, WrongWidth
from service.formats import json
from service.formats.query import address_of
from service.formats.rows import TOO_LARGE, Answer, Body, Context, NamedRows, check_rows, refuse_value

MEDIA_TYPE = "text/csv"

MOST_COLUMNS = 2**16
"""Cells of the first line: more would take much memory before a model could say how many it wants."""

UNUSUAL = b'[]{}"'
"""Bytes that only the slow reading takes."""


def read(body: Body, context: Context) -> NamedRows:
    """Reads a body of numbers.

    Raises:
        MalformedBody: The body is not UTF-8, or has an open quotation mark.
        WrongWidth: A row has more or fewer values than the first.
        InvalidValue: A value is not a number, or is not finite.
        InvalidField: There are no rows, the first line has cells without end, or the query doesn't say which model they
            are for.
        TooManyRows: There are more rows than one request may carry.
    """
    address = address_of(context.query)
    body = bytes(body).removeprefix(codecs.BOM_UTF8).lstrip(b"\r\n")
    first, _, rest = body.partition(b"\n")
    if (cells := first.partition(b"\r")[0].count(b",") + 1) > MOST_COLUMNS:
        raise InvalidField("The first line", f"has {cells} cells", f"at most {MOST_COLUMNS}")
    usual = b"\r" not in first[:-1] and not any(byte in first for byte in UNUSUAL)
    names = _cells(_text(first)) if usual else None
    if names is not None:
        if all(map(_is_number, names)):
            names, rest = None, body
        values = _read_fast(rest, context.max_rows)
        if values is not None:
            check_rows(context, len(values))
            if names is not None and len(names) != values.shape[1]:
                raise WrongWidth(f"{context.field}[0]", f"has {values.shape[1]} values", str(len(names)))
            return NamedRows(address, context.field, values, names)
    return NamedRows(address, context.field, *_read_strictly(_text(body), context))


def write(answer: Answer) -> bytes:
    """Writes an answer's arrays as columns, their names in the first line."""
    names: list[str] = []
    columns: list[list[object]] = []
    for name, listed in answer.arrays.items():
        array = np.asarray(listed)
        names += answer.columns if array.ndim == 2 else [name]
        columns += array.T.tolist() if array.ndim == 2 else [array.tolist()]
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(names)
    writer.writerows(zip(*columns, strict=True))
    return stream.getvalue().encode()


def _read_fast(rest: bytes, max_rows: int) -> NDArray[np.float64] | None:
    rest = rest.strip()
    if not rest or rest.count(b"\n") >= max_rows or any(byte in rest for byte in UNUSUAL):
        return None
    if b"\r" in rest and rest.count(b"\r") != rest.count(b"\r\n"):
        return None  # a return alone ends a line, too, and to JSON it is a space
    return json.matrix_of(b"[[" + rest.replace(b"\n", b"],[") + b"]]")


def _read_strictly(text: str, context: Context) -> tuple[NDArray[np.float64], Sequence[str] | None]:
    try:
        filled = (line for line in csv.reader(io.StringIO(text, newline=""), strict=True) if line)
        lines = list(islice(filled, context.max_rows + 2))  # names, and a row too many
    except csv.Error as error:
        raise MalformedBody(f"The body is no CSV: {error}.") from None
    names = None
    if lines and not all(map(_is_number, lines[0])):
        names = [cell.strip() for cell in lines.pop(0)]
    if len(lines) > context.max_rows:
        raise TooManyRows(context.field, f"more than {context.max_rows}", context.max_rows)
    check_rows(context, len(lines))
    width = len(names or lines[0])
    for i, line in enumerate(lines):
        if len(line) != width:
            raise WrongWidth(f"{context.field}[{i}]", f"has {len(line)} values", str(width))
        for j, cell in enumerate(line):
            if not _is_number(cell) or not abs(float(cell)) < TOO_LARGE:
                refuse_value(context.field, i, names[j] if names else j, cell)
    return np.array(lines, dtype=np.float64), names


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split(",")]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _text(body: Body) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise MalformedBody(f"The body is not UTF-8: byte {body[error.start]:#04x} at offset {error.start}.") from None
