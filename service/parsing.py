"""A request's body becomes a float32 matrix, or an error that names the field and the value it had.

A body is read by orjson and numpy, which are fast and lenient: they take null for NaN, "2" and true for numbers, and
the last of two equal keys. So three cheap facts are looked at beside, none of which a lenient reading can hide: how
many quotation marks the body has (a duplicate key or a string among the numbers adds some), whether it says true or
false anywhere, and whether all values are finite. If anything is off, the strict and slow reading follows: it names
what is wrong, or finds that nothing is.
"""

import json
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import orjson

from service.detector import Matrix
from service.errors import InvalidField, InvalidValue, MalformedBody, TooManyRows, WrongWidth
from service.quotes import Unrepresentable, describe

TOO_LARGE = 2.0**128 - 2.0**103
"""The smallest value that a cast to float32 rounds to infinity."""

LONGEST_NUMBER = 400
"""Digits of an integer that are still converted; longer ones can't fit a float32 anyway."""


@dataclass(frozen=True)
class RowsRequest:
    """A body that is JSON with the right fields; its rows are not looked at yet.

    Attributes:
        dataset: The dataset asked for.
        version: The version asked for, or None for the newest.
        field: The name of the field that holds the rows.
        rows: What the body has there, a list.
        strict: Whether the body was read strictly already.
        body: The body itself.
    """

    dataset: str
    version: int | None
    field: str
    rows: list[Any]
    strict: bool
    body: bytes

    def matrix(self, width: int) -> Matrix:
        """Returns the rows as a matrix (N, M) with M = `width`.

        Raises:
            WrongWidth: A row has another number of values.
            InvalidField: A row is not a list.
            InvalidValue: A value is not a number, or is not finite as a float32.
        """
        if self.strict:
            return strict_matrix(self.rows, self.field, width)
        try:
            values = np.array(self.rows, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            values = np.empty(0)
        if values.ndim == 2 and values.shape[1] == width and (np.abs(values) < TOO_LARGE).all():
            return values.astype(np.float32)
        return strict_matrix(strict_document(self.body)[self.field], self.field, width)


def parse(body: bytes, field: str, max_rows: int) -> RowsRequest:
    """Reads the fields of a body.

    Arguments:
        body: The bytes of the request.
        field: The name of the field that holds the rows.
        max_rows: The number of rows one request may carry.

    Raises:
        MalformedBody: The body is not UTF-8, not JSON, or has a key twice.
        InvalidField: A field is missing, unknown, of the wrong type or empty.
        TooManyRows: There are more rows than `max_rows`.
    """
    document, strict = _load(body)
    if not isinstance(document, dict):
        raise InvalidField("The body", f"is {describe(document)}", "an object")
    for name in document:
        if name not in ("dataset", "version", field):
            raise InvalidField(describe(name), "is unknown", f"the fields dataset, version and {field}")
    for name in ("dataset", field):
        if name not in document:
            raise InvalidField(name, "is missing", "a string" if name == "dataset" else "a list of rows")
    dataset, version, rows = document["dataset"], document.get("version"), document[field]
    if not isinstance(dataset, str):
        raise InvalidField("dataset", f"is {describe(dataset)}", "a string")
    if version is not None and (not isinstance(version, int) or isinstance(version, bool)):
        raise InvalidField("version", f"is {describe(version)}", "an integer")
    if not isinstance(rows, list):
        raise InvalidField(field, f"is {describe(rows)}", "a list of rows")
    if not rows:
        raise InvalidField(field, "is empty", "at least one row")
    if len(rows) > max_rows:
        raise TooManyRows(field, len(rows), max_rows)
    return RowsRequest(dataset, version, field, rows, strict, body)


def _load(body: bytes) -> tuple[Any, bool]:
    """Returns what the body holds, and whether it was read strictly because something about it is unusual."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return strict_document(body), True
    if isinstance(document, dict):
        quotes = 2 * len(document) + 2  # of the keys and of the dataset's name
        if (
            body.count(b'"') == quotes
            and b"true" not in body
            and b"false" not in body
            and not isinstance(document.get("version"), float)  # so orjson reads an integer of more than 64 bits
        ):
            return document, False
    return strict_document(body), True


def strict_document(body: bytes) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Reads JSON so that nothing is lost: duplicate keys are refused, numbers without a value keep their text.

    Raises:
        MalformedBody: The body is not UTF-8, not JSON, nested too deeply, or has a key twice.
    """
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


def strict_matrix(rows: list[Any], field: str, width: int) -> Matrix:
    """Turns rows into a matrix (N, M) with M = `width`, looking at every value.

    Raises:
        WrongWidth: A row has another number of values.
        InvalidField: A row is not a list.
        InvalidValue: A value is not a number, or is not finite as a float32.
    """
    for i, row in enumerate(rows):
        if not isinstance(row, list):
            raise InvalidField(f"{field}[{i}]", f"is {describe(row)}", f"a list of {width} numbers")
        if len(row) != width:
            raise WrongWidth(f"{field}[{i}]", f"has {len(row)} values", str(width))
        for j, value in enumerate(row):
            if isinstance(value, bool) or not isinstance(value, int | float):
                _refuse_value(field, i, j, value)
            if not abs(value) < TOO_LARGE:
                _refuse_value(field, i, j, value)
    return np.array(rows, dtype=np.float64).astype(np.float32)


def _refuse_value(field: str, row: int, column: int, value: object) -> NoReturn:
    raise InvalidValue(f"{field}[{row}][{column}]", f"is {describe(value)}", "a finite number that fits a float32")


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
