"""What every format reads and writes: rows of numbers, and where they belong."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidField, InvalidValue, TooManyRows, WrongWidth
from service.graphs import Matrix
from service.quotes import describe

Body = bytes | bytearray

TOO_LARGE = 2.0**128 - 2.0**103
"""The smallest value that a cast to float32 rounds to infinity."""


BYTES_OF_FLOAT64 = 8

FEW_VALUES = 4096
"""So few values are looked through by their sum of squares first, which is one step in place of three; for more, BLAS
would start threads."""

SAFE_SQUARE = TOO_LARGE**2 / 2
"""No value of a sum of squares below this can be too large, however the sum was rounded."""


@dataclass(frozen=True, slots=True)
class Address:
    """Which model rows are for, and how it is to answer.

    Attributes:
        dataset: The dataset asked for.
        version: The version asked for, or None for the newest.
        answers_records: Whether the answer is to have records where it would have vectors.
    """

    dataset: str
    version: int | None = None
    answers_records: bool = False


@dataclass(slots=True)
class Context:
    """What a reader knows about a request beside its body.

    Attributes:
        query: The query as it was sent, without its question mark.
        field: The name that rows have in JSON, and in errors of every format: vectors or latents.
        max_rows: The number of rows one request may carry.
    """

    query: bytes
    field: str
    max_rows: int


class RowsRequest(Protocol):
    """A body that was read as far as that goes without knowing the model."""

    @property
    def address(self) -> Address:
        """Which model the rows are for."""

    def matrix(self, columns: Sequence[str]) -> Matrix:
        """Returns the rows as a matrix (N, M), a column for each of the model's names.

        Raises:
            WrongWidth: A row has another number of values.
            InvalidField: Something is not a row, or a column is missing or unknown.
            InvalidValue: A value is not a number, or is not finite as a float32.
            TooManyRows: There are more rows than one request may carry.
        """


@dataclass(slots=True)
class Answer:
    """What a request is answered, whatever the format.

    Attributes:
        fields: Single values: dataset, version and, of scores, the threshold.
        arrays: The result (N,) or (N, *) and, of scores, the decisions (N,) and p-values (N,). The first is the one
            that formats of a single array answer. A list stands for an array (N,).
        columns: The names of the result's columns, if it has more than one.
    """

    fields: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any] | list[Any]]
    columns: Sequence[str] = ()

    def result(self) -> NDArray[Any]:
        """Returns the first array."""
        return np.asarray(next(iter(self.arrays.values())))


def check_rows(context: Context, rows: int) -> None:
    """Checks the number of rows.

    Raises:
        InvalidField: There is none.
        TooManyRows: There are more than one request may carry.
    """
    if not rows:
        raise InvalidField(context.field, "is empty", "at least one row")
    if rows > context.max_rows:
        raise TooManyRows(context.field, rows, context.max_rows)


class NamedRows:
    """Rows (N, C) whose columns have names, in any order; or none, and then the model's order.

    Arguments:
        address: Which model the rows are for.
        field: The name of the rows in errors.
        values: The rows, numbers of any type.
        names: The names of their columns.
    """

    __slots__ = ("_field", "_names", "_values", "address")

    def __init__(self, address: Address, field: str, values: NDArray[Any], names: Sequence[str] | None) -> None:
        self.address = address
        self._field = field
        self._values = values
        self._names = names

    def matrix(self, columns: Sequence[str]) -> Matrix:
        """Returns the rows as a matrix (N, M); `RowsRequest` has the errors."""
        if self._names is None:
            check_width(self._field, 0, self._values.shape[1], columns)
            return as_float32(self._values, self._field)
        places = order_of(self._names, columns)
        return as_float32(self._values, self._field, self._names)[:, places]


def order_of(names: Sequence[str], columns: Sequence[str]) -> list[int]:
    """Returns where among names each of a model's columns is.

    Raises:
        InvalidField: A name is there twice or unknown, or a column is missing.
    """
    places = {name: place for place, name in enumerate(names)}
    known = set(columns)
    for place, name in enumerate(names):
        if name not in known:
            raise InvalidField(f"Column {describe(name)}", "is unknown", f"the {len(columns)} columns of the dataset")
        if places[name] != place:
            raise InvalidField(f"Column {describe(name)}", "is there twice", "each column once")
    for column in columns:
        if column not in places:
            raise InvalidField(f"Column {describe(column)}", "is missing", "all columns of the dataset")
    return [places[column] for column in columns]


def as_float32(values: NDArray[Any], field: str, names: Sequence[str] | None = None) -> Matrix:
    """Returns numbers (N, M) of any type as float32, none of them infinite.

    Arguments:
        values: The numbers.
        field: The name of the rows in errors.
        names: The names of the columns in errors; their numbers unless given.

    Raises:
        InvalidValue: A value is not finite, or too large for a float32.
    """
    if values.dtype == np.float64 and values.size <= FEW_VALUES and (flat := values.ravel()).dot(flat) < SAFE_SQUARE:
        return np.ascontiguousarray(values, dtype=np.float32)
    small = values.dtype.itemsize < BYTES_OF_FLOAT64
    representable = np.isfinite(values) if small else np.abs(values) < TOO_LARGE
    if np.count_nonzero(representable) != values.size:  # in a third of the time of all()
        row, column = (int(i) for i in np.argwhere(~representable)[0])
        refuse_value(field, row, names[column] if names else column, values[row, column].item())
    return np.ascontiguousarray(values, dtype=np.float32)


def check_width(field: str, row: int, found: int, columns: Sequence[str]) -> None:
    """Checks the number of values in a row.

    Raises:
        WrongWidth: It is not that of the columns.
    """
    if found != len(columns):
        raise WrongWidth(f"{field}[{row}]", f"has {found} values", str(len(columns)))


def refuse_value(field: str, row: int, column: int | str, value: object) -> NoReturn:
    """Names a value that is not a finite number.

    Raises:
        InvalidValue: Always.
    """
    raise InvalidValue(
        f"{field}[{row}][{describe(column)}]", f"is {describe(value)}", "a finite number that fits a float32"
    )
