"""JSON, as it comes and as it goes.

A body with vectors is read by simdjson, which gives the numbers of all rows in one piece, without a Python object for
each. It refuses whatever is not a number, but takes ragged and nested rows for flat ones, so the lengths of the rows
and the number of brackets are looked at beside. If anything is off, the strict and slow reading follows: it names what
is wrong, or finds that nothing is.

A body with records is read by orjson, which makes Python's objects faster than simdjson does, and of a key that is
there twice keeps the last value only. So the colons are counted beside: if there are more than its objects explain, the
strict reading follows.
"""

import json
import threading
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson
import simdjson
from numpy.typing import NDArray

from service.errors import InvalidField, MalformedBody
from service.formats.records import RECORDS, RecordsRequest
from service.formats.rows import (
    TOO_LARGE,
    Address,
    Answer,
    Body,
    Context,
    as_float32,
    check_rows,
    check_width,
    refuse_value,
)
from service.graphs import Matrix
from service.quotes import Unrepresentable, describe

LONGEST_NUMBER = 400
"""Digits of an integer that are still converted; longer ones can't fit a float32 anyway."""

KEPT_BYTES = 2**19
"""A parser keeps several times the longest body it has read; for longer bodies than this, one is made and left."""

MEDIA_TYPE = "application/json"

FIELDS = ("dataset", "version", "vectors or latents")
"""What a body has; the version may be missing."""

VECTORS, LATENTS = "vectors", "latents"

ANSWER = "answer"
"""The field that says how rows are to be answered."""

RECORDS_FIELDS = frozenset({"dataset", "version", RECORDS})

ESCAPED_COLON = b"\\u003"
"""How a colon may be written in a text, or one of its neighbours."""

HEAD_BYTES = 256
"""Where the name of the rows stands in most bodies."""

FEW_LISTS = 1000
"""Lists and objects that a body may have beside its rows. What has more is refused before it is read strictly, which
takes twenty times its bytes of memory if it is nothing but brackets."""

LONG = 2**16
"""Bytes from which on numpy counts faster than `bytes.count`."""

_parsers = threading.local()


class JsonRows:
    """A body that is JSON with the right fields.

    Arguments:
        address: Which model the rows are for.
        context: What is known beside the body.
        rows: The rows, all of the same length; or as the strict reading has them, whatever they are.
    """

    __slots__ = ("_context", "_rows", "address")

    def __init__(self, address: Address, context: Context, rows: NDArray[np.float64] | list[Any]) -> None:
        self.address = address
        self._context = context
        self._rows = rows

    def matrix(self, columns: Sequence[str]) -> Matrix:
        """Returns the rows as a matrix (N, M); `RowsRequest` has the errors."""
        field, rows = self._context.field, self._rows
        if isinstance(rows, list):
            return strict_matrix(rows, field, columns)
        check_width(field, 0, rows.shape[1], columns)
        return as_float32(rows, field)


def read(body: Body, context: Context) -> JsonRows | RecordsRequest:
    """Reads the fields of a body.

    Raises:
        MalformedBody: The body is not UTF-8, not JSON, or has a key twice.
        InvalidField: A field is missing, unknown, of the wrong type or empty.
        TooManyRows: There are more rows than one request may carry.
    """
    if context.field == VECTORS and body.find(b'"records"', 0, HEAD_BYTES) >= 0:
        read = _read_records(body, context)
        if read:
            return read
    found = _read_fast(body, context)
    if found:
        address, rows = found
        check_rows(context, len(rows))
        return JsonRows(address, context, rows)
    address, field, listed = check_fields(strict_document(body, context.max_rows), context)
    check_rows(Context(b"", field, context.max_rows), len(listed))
    return RecordsRequest(address, listed) if field == RECORDS else JsonRows(address, context, listed)


def write(answer: Answer) -> bytes:
    """Writes an answer: its single values, then its arrays."""
    return orjson.dumps({**answer.fields, **answer.arrays}, option=orjson.OPT_SERIALIZE_NUMPY)


def check_fields(document: object, context: Context) -> tuple[Address, str, list[Any]]:
    """Returns what a document asks for, what its rows are called, and the rows.

    Raises:
        InvalidField: A field is missing, unknown or of the wrong type.
    """
    field = context.field
    fields = ["dataset", "version", field, RECORDS if field == VECTORS else ANSWER]
    if not isinstance(document, dict):
        raise InvalidField("The body", f"is {describe(document)}", "an object")
    for name in document:
        if name not in fields:
            raise InvalidField(describe(name), "is unknown", f"the fields {', '.join(fields[:-1])} and {fields[-1]}")
    if field == VECTORS and RECORDS in document:
        if VECTORS in document:
            raise InvalidField(RECORDS, "is there", "nothing beside vectors")
        field = RECORDS
    for name in ("dataset", field):
        if name not in document:
            expected = "a list of rows, or records" if field == VECTORS else "a list of rows"
            raise InvalidField(name, "is missing", "a string" if name == "dataset" else expected)
    dataset, version, rows = document["dataset"], document.get("version"), document[field]
    if not isinstance(dataset, str):
        raise InvalidField("dataset", f"is {describe(dataset)}", "a string")
    if version is not None and (not isinstance(version, int) or isinstance(version, bool)):
        raise InvalidField("version", f"is {describe(version)}", "an integer")
    if not isinstance(rows, list):
        raise InvalidField(field, f"is {describe(rows)}", "a list of rows")
    answer = document.get(ANSWER, VECTORS)
    if answer not in (VECTORS, RECORDS):
        raise InvalidField(ANSWER, f"is {describe(answer)}", '"vectors" or "records"')
    return Address(dataset, version, answer == RECORDS), field, rows


def strict_document(body: Body, max_rows: int) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Reads JSON so that nothing is lost: duplicate keys are refused, numbers without a value keep their text.

    Raises:
        MalformedBody: The body is not UTF-8, not JSON, nested too deeply, or has a key twice.
        InvalidField: It is long, and has more lists and objects than that many rows need.
    """
    check_brackets(body, max_rows)
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise MalformedBody(f"The body is not UTF-8: byte {body[error.start]:#04x} at offset {error.start}.") from None
    if text.startswith("\ufeff"):
        raise MalformedBody("The body begins with a byte order mark.")
    try:
        return json.loads(
            text,
            object_pairs_hook=_refuse_duplicates,
            parse_constant=Unrepresentable,
            parse_float=_finite_or_text,
            parse_int=_short_or_text,
        )
    except json.JSONDecodeError as error:
        raise MalformedBody(
            f"The body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
        ) from None
    except RecursionError:
        raise MalformedBody("The body is nested too deeply.") from None


def check_brackets(body: Body, max_rows: int) -> None:
    """Checks that a long body has no more lists and objects than so many rows need.

    Raises:
        InvalidField: It has.
    """
    if len(body) > KEPT_BYTES:
        brackets, most = body.count(b"[") + body.count(b"{"), max_rows + FEW_LISTS
        if brackets > most:
            raise InvalidField("The body", f"has {brackets} opening brackets", f"at most {most} for {max_rows} rows")


def strict_matrix(rows: list[Any], field: str, columns: Sequence[str]) -> Matrix:
    """Turns rows into a matrix (N, M), looking at every value; `RowsRequest` has the errors."""
    for i, row in enumerate(rows):
        if not isinstance(row, list):
            raise InvalidField(f"{field}[{i}]", f"is {describe(row)}", f"a list of {len(columns)} numbers")
        check_width(field, i, len(row), columns)
        for j, value in enumerate(row):
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < TOO_LARGE:
                refuse_value(field, i, j, value)
    return np.array(rows, dtype=np.float64).astype(np.float32)


def _read_records(body: Body, context: Context) -> RecordsRequest | None:
    """Reads a body of records that has nothing unusual about it, or finds that it has and returns None."""
    check_brackets(body, context.max_rows)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(document, dict) or not document.keys() <= RECORDS_FIELDS:
        return None
    dataset, records, version = document.get("dataset"), document.get(RECORDS), document.get("version")
    if not (isinstance(dataset, str) and isinstance(records, list) and (version is None or type(version) is int)):
        return None
    check_rows(Context(b"", RECORDS, context.max_rows), len(records))
    if set(map(type, records)) != {dict} or not _kept_all(document, records, body):
        return None
    return RecordsRequest(Address(dataset, version), records)


def _kept_all(document: dict[str, Any], records: list[dict[str, Any]], body: Body) -> bool:
    """Tells whether no object of a body has a key twice, or another object in it.

    A body has a colon behind every key, so that it has more of them than its objects have keys, and than there are in
    texts, if something was not kept. Texts have fewer than it seems if one is written as an escape.
    """
    more = _count(body, b":") - len(document) - sum(map(len, records))
    if more and ESCAPED_COLON not in body:
        texts = [value for record in records for value in record.values() if value.__class__ is str]
        more -= "".join([document["dataset"], *texts, *chain.from_iterable(records)]).count(":")
    return more == 0


def _count(body: Body, byte: bytes) -> int:
    if len(body) < LONG:
        return body.count(byte)
    return int(np.count_nonzero(np.frombuffer(body, dtype=np.uint8) == ord(byte)))


def _read_fast(body: Body, context: Context) -> tuple[Address, NDArray[np.float64]] | None:
    """Reads a body that has nothing unusual about it, or finds that it has and returns None.

    Nothing that refers to the parsed body may outlive this function, or its parser could not be used again.
    """
    field = context.field
    try:
        document = parser_for(len(body)).parse(body)
        if not isinstance(document, simdjson.Object):
            return None
        dataset, rows = document["dataset"], document[field]
        version = document["version"] if len(document) == len(FIELDS) else None
        if len(document) > len(FIELDS) or (version is None and len(document) != len(FIELDS) - 1):
            return None  # another field, or one twice, or a version that is null
        if not (isinstance(dataset, str) and isinstance(rows, simdjson.Array)):
            return None
        if len(rows) > context.max_rows:
            check_rows(context, len(rows))
        if version is not None and (isinstance(version, bool) or not isinstance(version, int)):
            return None
        matrix = _matrix(rows, body)
        return None if matrix is None else (Address(dataset, version), matrix)
    except (ValueError, TypeError, KeyError, RuntimeError):  # simdjson's words for what the strict reading says better
        return None


def matrix_of(body: Body) -> NDArray[np.float64] | None:
    """Reads a list of rows that are of the same length and hold nothing but numbers, or returns None."""
    try:
        rows = parser_for(len(body)).parse(body)
        return _matrix(rows, body) if isinstance(rows, simdjson.Array) else None
    except (ValueError, TypeError, RuntimeError):
        return None


def _matrix(rows: simdjson.Array, body: Body) -> NDArray[np.float64] | None:
    widths = {len(row) for row in rows}  # type: ignore[arg-type]  # what has no length is no row, and a TypeError
    brackets = _count(body, b"[")
    if len(widths) != 1 or brackets != len(rows) + 1:
        return None
    return np.frombuffer(rows.as_buffer(of_type="d"), dtype=np.float64).reshape(len(rows), -1)


def parser_for(length: int) -> simdjson.Parser:
    """Returns a parser for a body of that many bytes, to be used by one thread, and for one body at a time."""
    if length > KEPT_BYTES:
        return simdjson.Parser()
    try:
        kept: simdjson.Parser = _parsers.kept
    except AttributeError:
        kept = _parsers.kept = simdjson.Parser()
    return kept


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise MalformedBody(f"The body has the key {describe(twice)} twice.")
    return document


def _finite_or_text(text: str) -> float | Unrepresentable:
    value = float(text)
    return value if abs(value) < float("inf") else Unrepresentable(text)


def _short_or_text(text: str) -> int | Unrepresentable:
    return int(text) if len(text) <= LONGEST_NUMBER else Unrepresentable(text)
