"""Columns of Arrow arrays as numbers, text and moments, and text as any of them.

Text that stands for a number or a moment is read strictly, so that what is not one stays text:

- A null is spelled as one of `NULLS`, with or without white space around it; so is NaN in a column of numbers.
- A number is decimal, without separators: ``12``, ``+.5``, ``-1e-3``, ``inf``.
- A moment is that of ISO 8601, ``2026-01-31``, ``2026-01-31 12:30`` or ``2026-01-31T12:30:00.25+02:00``. Without an
  offset it is UTC; digits behind the microseconds are cut off.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from training.tables.errors import BadCell, TableError, quote

Array = Any
"""A `pyarrow.Array`; pyarrow has no types."""

Batch = Any
"""A `pyarrow.RecordBatch`."""

ArrowSchema = Any
"""A `pyarrow.Schema`."""

ArrowType = Any
"""A `pyarrow.DataType`."""

Numbers = NDArray[np.float32] | NDArray[np.float64]

NULLS = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "?", "-")
"""What a null is in text; other spellings, such as none, are often a category."""

INTEGER = r"^[+-]?[0-9]+$"
NUMBER = r"^[+-]?(([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|(?i:inf|infinity|nan))$"
WRITTEN_NUMBER = r"^[^0-9a-zA-Z]{0,3}[0-9][0-9.,'_\s\x{a0}]*[^0-9a-zA-Z]{0,3}[a-zA-Z]{0,3}$"
"""Text that people take for a number: with separators of thousands, a decimal comma, a currency or a unit."""

WRITTEN_DATE = r"^[0-9]{1,4}[./-][0-9]{1,2}[./-][0-9]{1,4}([ T]|$)"
"""Text that people take for a date."""

OFFSET = r"[0-9]([zZ]|[+-][0-9]{2}(:?[0-9]{2})?)$"

A_NUMBER = "a finite number that fits a float32"
A_MOMENT = "a date and time such as 2026-01-31T12:30:00 in the years 1 to 9999"
A_CATEGORY = "a category"
A_BOOLEAN = "true or false"

MOMENT = pa.timestamp("us", "UTC")

MICROSECONDS = {"s": 1_000_000, "ms": 1000, "us": 1}
"""In a unit of a timestamp; ns are the other way about."""

FIRST_MOMENT = int(np.datetime64("0001-01-01", "us").astype(np.int64))
END_OF_MOMENTS = int(np.datetime64("10000-01-01", "us").astype(np.int64))


@dataclass(frozen=True)
class Place:
    """Where the cells of an array stand, for errors.

    Attributes:
        source: The table's name.
        column: The column's name.
        first_row: The row of the array's first cell.
    """

    source: str
    column: str
    first_row: int = 0

    def refuse(self, cells: Array, position: int, expected: str) -> BadCell:
        """Returns an error that names one of the cells."""
        cell = cells[position]
        try:
            value = cell.as_py()
        except (ValueError, OverflowError):  # a moment that Python has no value for
            value = str(cell.cast(pa.int64()).as_py())
        return BadCell(self.source, self.first_row + position, self.column, value, expected)


def plain_type(found: ArrowType) -> ArrowType:
    """Returns the simpler type that a column is read as.

    Dictionaries become their values, all kinds of strings the usual one, decimals and halves floats, dates timestamps,
    extension types what they are stored as. Types that have no simpler one are returned as they are.
    """
    types = pa.types
    if types.is_dictionary(found):
        return plain_type(found.value_type)
    if isinstance(found, pa.BaseExtensionType):
        return plain_type(found.storage_type)
    if types.is_large_string(found) or types.is_string_view(found):
        return pa.string()
    if types.is_decimal(found):
        return pa.float64()
    if types.is_float16(found):
        return pa.float32()
    if types.is_date32(found):
        return pa.timestamp("s")
    if types.is_date64(found):
        return pa.timestamp("ms")
    return found


def is_usable(found: ArrowType) -> bool:
    """Says whether a column of a plain type can be used: numbers, booleans, text, moments or nothing but nulls."""
    types = pa.types
    return is_number(found) or any(
        fits(found) for fits in (types.is_boolean, types.is_string, types.is_timestamp, types.is_null)
    )


def is_number(found: ArrowType) -> bool:
    """Says whether values of a plain type are numbers."""
    return bool(pa.types.is_integer(found) or pa.types.is_floating(found))


def plain(array: Array, place: Place) -> Array:
    """Returns an array of any type as one of its plain type.

    Raises:
        TableError: The column has a type that can't be used, or text that is not UTF-8; it is named.
    """
    goal = plain_type(array.type)
    if not is_usable(goal):
        raise TableError(
            f"{place.source}: column {quote(place.column)} has the type {array.type},"
            " expected numbers, booleans, text, dates or timestamps; drop it or take it apart"
        )
    if isinstance(array.type, pa.BaseExtensionType):
        array = array.storage
    if array.type != goal:
        try:
            if pa.types.is_dictionary(array.type):  # views of strings, as Polars' categories are, can't be decoded
                array = pa.DictionaryArray.from_arrays(array.indices, array.dictionary.cast(goal, safe=False))
            array = array.cast(goal, safe=False)
        except pa.ArrowException as error:
            raise TableError(f"{place.source}: column {quote(place.column)} can't be read: {error}") from error
    if pa.types.is_string(goal):
        try:
            array.validate(full=True)
        except pa.ArrowInvalid:
            position = _first_failure(array.cast(pa.binary()), lambda cells: cells.cast(pa.string()))
            text = str(array.cast(pa.binary())[position].as_py())
            raise BadCell(place.source, place.first_row + position, place.column, text, "UTF-8") from None
    return array


def clean(cells: Array) -> Array:
    """Returns text without white space around it, and null where it spells one."""
    trimmed = pc.ascii_trim_whitespace(cells)
    spelled = pc.is_in(trimmed, value_set=pa.array(NULLS))
    if not pc.any(spelled).as_py():
        return trimmed
    return pc.if_else(spelled, pa.scalar(None, pa.string()), trimmed)


def numbers_of(array: Array, place: Place) -> Numbers:
    """Returns the values (N,) of a plain array as floats, NaN where there is none.

    Raises:
        TableError: A value is not a number, or is not finite as a float32; row, column and value are named.
    """
    found = array.type
    if pa.types.is_null(found):
        return np.full(len(array), np.nan, dtype=np.float32)
    if pa.types.is_string(found):
        read = parse(clean(array), as_numbers, A_NUMBER, place)
    elif is_number(found):
        read = array
    else:
        raise TableError(f"{place.source}: column {quote(place.column)} has the type {found}, expected {A_NUMBER}")
    values: Numbers = read.to_numpy(zero_copy_only=False)
    if values.dtype != np.float32:
        values = values.astype(np.float64)
    with np.errstate(over="ignore"):
        unusable = np.isinf(values.astype(np.float32, copy=False))
    if unusable.any():
        raise place.refuse(array, int(unusable.argmax()), A_NUMBER)
    return values


def booleans_of(array: Array, place: Place) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Returns the values (N,) of a plain array as booleans, and where there is none.

    Raises:
        TableError: A value is neither true nor false, 1 nor 0; row, column and value are named.
    """
    if pa.types.is_string(array.type):
        array = parse(clean(array), as_booleans, A_BOOLEAN, place)
    if pa.types.is_boolean(array.type):
        return pc.fill_null(array, False).to_numpy(zero_copy_only=False), nulls_of(array)
    values = numbers_of(array, place)
    null = np.isnan(values)
    wrong = ~null & (values != 0) & (values != 1)
    if wrong.any():
        raise place.refuse(array, int(wrong.argmax()), A_BOOLEAN)
    return values == 1, null


def text_of(array: Array, place: Place) -> Array:
    """Returns a plain array as text, which categories and labels are: integers as digits, booleans as true and false.

    Raises:
        TableError: A value is a number that is not whole, or a moment; row, column and value are named.
    """
    found = array.type
    if pa.types.is_floating(found):
        values = numbers_of(array, place)
        null = np.isnan(values)
        wrong = ~null & ((values != np.rint(values)) | (np.abs(values) >= 2.0**53))
        if wrong.any():
            raise place.refuse(array, int(wrong.argmax()), f"{A_CATEGORY}: text, a whole number, true or false")
        array = pa.array(np.where(null, 0, values).astype(np.int64), mask=null)
    elif pa.types.is_timestamp(found):
        raise TableError(f"{place.source}: column {quote(place.column)} has the type {found}, expected {A_CATEGORY}")
    return array.cast(pa.string())


def moments_of(array: Array, place: Place) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Returns the microseconds (N,) between 1970 and each moment, 0 where there is none, and where that is.

    Raises:
        TableError: A value is not a moment of the years 1 to 9999; row, column and value are named.
    """
    if pa.types.is_null(array.type):
        return np.zeros(len(array), dtype=np.int64), np.ones(len(array), dtype=np.bool_)
    if pa.types.is_string(array.type):
        cells = clean(array)
        read = parse(cells, as_moments, A_MOMENT, place)
    elif pa.types.is_timestamp(array.type):
        read = array
    else:
        raise TableError(f"{place.source}: column {quote(place.column)} has the type {array.type}, expected {A_MOMENT}")
    null = nulls_of(read)
    ticks: NDArray[np.int64] = pc.fill_null(read.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    if read.type.unit == "ns":
        return ticks // 1000, null
    each = MICROSECONDS[read.type.unit]
    outside = (ticks < FIRST_MOMENT // each) | (ticks >= END_OF_MOMENTS // each)
    if outside.any():
        raise place.refuse(array, int(outside.argmax()), A_MOMENT)
    return ticks * each, null


def nulls_of(array: Array) -> NDArray[np.bool_]:
    """Returns where (N,) an array has no value."""
    if not array.null_count:
        return np.zeros(len(array), dtype=np.bool_)
    null: NDArray[np.bool_] = pc.is_null(array).to_numpy(zero_copy_only=False)
    return null


def as_integers(cells: Array) -> Array:
    """Reads text as integers.

    Raises:
        ArrowInvalid: There is a cell that is none, or one that 64 bits don't hold.
    """
    try:
        return cells.cast(pa.int64())
    except pa.ArrowInvalid:
        return pc.replace_substring_regex(cells, r"^\+([0-9])", r"\1").cast(pa.int64())


def as_numbers(cells: Array) -> Array:
    """Reads text as numbers.

    Raises:
        ArrowInvalid: There is a cell that is none.
    """
    return cells.cast(pa.float64())


def as_booleans(cells: Array) -> Array:
    """Reads text as booleans: true and false, in any case.

    Raises:
        ArrowInvalid: There is a cell that is neither.
    """
    lower = pc.ascii_lower(cells)
    true = pc.equal(lower, "true")
    if not pc.all(pc.or_(true, pc.equal(lower, "false"))).as_py():
        raise pa.ArrowInvalid("neither true nor false")
    return true


def as_moments(cells: Array) -> Array:
    """Reads text as moments, in microseconds and UTC.

    Raises:
        ArrowInvalid: There is a cell that is none.
    """
    if pc.any(pc.greater(pc.binary_length(cells), len("2026-01-31T12:30:00.123456"))).as_py():
        cells = pc.replace_substring_regex(cells, r"(\.[0-9]{6})[0-9]+", r"\1")
    naive = pa.timestamp("us")
    try:
        return cells.cast(naive).cast(pa.int64()).cast(MOMENT)
    except pa.ArrowInvalid:
        with_offset = pc.and_(pc.match_substring(cells, ":"), pc.match_substring_regex(cells, OFFSET))
        nothing = pa.scalar(None, pa.string())
        offset = pc.if_else(with_offset, cells, nothing).cast(MOMENT)
        local = pc.if_else(with_offset, nothing, cells).cast(naive).cast(pa.int64()).cast(MOMENT)
        return pc.coalesce(offset, local)


def parse(cells: Array, read: Callable[[Array], Array], expected: str, place: Place) -> Array:
    """Reads text, and names the first cell that can't be read.

    Raises:
        BadCell: There is one.
    """
    try:
        return read(cells)
    except pa.ArrowInvalid:
        raise place.refuse(cells, _first_failure(cells, read), expected) from None


def _first_failure(cells: Array, read: Callable[[Array], Array]) -> int:
    """Returns the first position that can't be read, of cells of which one can't."""
    first, behind = 0, len(cells)  # all before `first` can be read, and what lies before `behind` can't
    while behind - first > 1:
        middle = (first + behind) // 2
        try:
            read(cells.slice(first, middle - first))
            first = middle
        except pa.ArrowInvalid:
            behind = middle
    return first
