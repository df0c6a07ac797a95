"""Which columns of a table feed a model, and the rows that they make.

A feature is a column of its name with raw values, or has a column for each of those that the service takes of it:
``feature=category`` for each category, for example. Either way `service.encoding` makes the rows.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from service.encoding import (
    NO_INSTANT,
    WRONG,
    Categories,
    Encoder,
    Instants,
    Numbers,
    boolean_of,
    expected,
    instants_of,
    placed,
)
from service.graphs import Matrix
from service.manifest import CategoricalFeature, Feature, Manifest, NumericFeature
from service.offline.errors import BadRow, OfflineError
from service.offline.tables import Batch, Schema
from service.quotes import describe, shorten

NUMBERS = "floating point numbers, integers, decimals or booleans"

CATEGORIES = "text, integers or booleans"

TIMES = "timestamps, dates or text"

OR_TEXT = "numbers, booleans or text"
"""What newer manifests' numbers, booleans and categories may be."""

NULLS = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "?", "-")
"""What a missing value is in text, for newer manifests; training reads tables so, too."""

WORDS = {"true": True, "false": False, "1": True, "0": False}
"""What stands for booleans in text, in any case."""

EARLIEST, LATEST = np.datetime64("0001-01-01", "us"), np.datetime64("9999-12-31T23:59:59.999999", "us")
"""The moments that have a text, too."""

NEWER = 3
"""The manifests' format from which on text spells missing values and stands for numbers in any table, and numbers that
are whole stand for categories."""


@dataclass(frozen=True)
class Layout:
    """Where the M values of a row come from.

    Attributes:
        encoder: Makes rows of the table's columns.
        width: The number of values, M.
        text: Whether all values are text, as it stands in the file.
        newer: Whether text is read as newer manifests have it.
    """

    encoder: Encoder
    width: int
    text: bool = False
    newer: bool = False

    @property
    def columns(self) -> list[str]:
        """The columns that feed the model."""
        return list(self.encoder.features)

    def matrix(self, batch: Batch) -> Matrix:
        """Returns rows (N, M), not finite where a value is none of its feature's, as `Encoder.rows` has it.

        The values are those that the service makes of the same rows: by way of float64, to float32.
        """
        return self.encoder.rows(ArrowColumns(batch, self.text, self.newer))

    def refuse(self, batch: Batch, rows: Matrix, file: str, first_row: int) -> NoReturn:
        """Names the first value in a batch that is none of its feature's.

        Raises:
            OfflineError: Always.
        """
        found = self.encoder.first_wrong(rows)
        if found is None:
            raise RuntimeError("a row is refused that is finite")
        row, feature = found
        wanted = "a category" if isinstance(feature, CategoricalFeature) else expected(feature)
        raise BadRow(file, first_row + row, feature.name, _value(batch.column(feature.name)[row]), wanted)


class ArrowColumns:
    """The columns of a batch of a table.

    Arguments:
        batch: The batch, whose columns have types that the features take.
        text: Whether all values are text, as it stands in the file.
        newer: Whether text is read as newer manifests have it.
    """

    def __init__(self, batch: Batch, text: bool = False, newer: bool = False) -> None:
        self._batch = batch
        self._text = text
        self._newer = newer

    def __len__(self) -> int:
        """Returns the number of rows, N."""
        rows: int = self._batch.num_rows
        return rows

    def numbers(self, names: Sequence[str]) -> Numbers:
        """Returns columns of numbers (N, K); one that is NaN counts as missing."""
        return self._all(names, _numbers)

    def booleans(self, names: Sequence[str]) -> Numbers:
        """Returns columns of booleans (N, K)."""
        return self._all(names, _booleans)

    def places(self, name: str, categories: Categories) -> NDArray[np.int64]:
        """Returns the places (N,) of a column's categories."""
        column = self._batch.column(name)
        if self._text and self._newer:
            column = clean(column)
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        values = column.dictionary.to_pylist()
        if not categories.numbers:
            values = [_as_text(value) for value in values]
        places = np.array([categories.lenient(value) for value in [*values, None]], dtype=np.int64)
        found: NDArray[np.int64] = places[pc.fill_null(column.indices, -1).to_numpy(zero_copy_only=False)]
        return found

    def instants(self, name: str) -> Instants:
        """Returns a column of moments (N,)."""
        column = self._column(name)
        if _is_text(column.type):
            return instants_of(column.to_pylist())
        if pa.types.is_null(column.type):
            return np.full(len(column), np.datetime64("NaT"), dtype="M8[us]")
        found = column.to_numpy(zero_copy_only=False)
        unit = np.datetime_data(found.dtype)[0]
        lowest, highest = (moment.astype(f"M8[{unit}]") for moment in (EARLIEST, LATEST))
        outside = (found < lowest) | (found > highest) if unit != "ns" else np.zeros(len(found), dtype=bool)
        instants: Instants = np.where(outside, NO_INSTANT, np.where(outside, lowest, found).astype("M8[us]"))
        return instants

    def _column(self, name: str) -> Any:  # noqa: ANN401 - pyarrow has no types
        column = self._batch.column(name)
        if self._newer:
            if pa.types.is_dictionary(column.type):
                column = column.dictionary_decode()
            if _is_text(column.type):
                column = clean(column.cast(pa.string()))
        return column

    def _all(self, names: Sequence[str], convert: Callable[[Any], NDArray[np.number]]) -> Numbers:
        values = np.empty((len(self), len(names)), dtype=np.float64, order="F")
        for i, name in enumerate(names):
            values[:, i] = convert(self._column(name))
        return values


def layout_of(schema: Schema, manifest: Manifest, file: str, text: bool) -> Layout:
    """Finds the columns of a table that feed a model.

    Arguments:
        schema: The table's columns.
        manifest: Has the features.
        file: The table's name in errors.
        text: Whether all values are text, out of which numbers are read.

    Raises:
        OfflineError: A column is missing, there twice, there in two ways, or of another type; it is named.
    """
    counts = Counter(schema.names)
    features: list[tuple[Feature, int]] = []
    for feature, place in placed(manifest):
        if _is_raw(feature, counts, file):
            features.append((feature, place))
        else:
            features += [(number_called(name), place + i) for i, name in enumerate(feature.columns)]
    newer = manifest.format_version >= NEWER
    layout = Layout(Encoder(features, manifest.width), manifest.width, text, newer)
    for name in layout.columns:
        _check_there_once(name, counts, file)
    if not text:
        for feature, _ in features:
            _check_type(schema, feature, newer, file)
    return layout


def number_called(name: str) -> NumericFeature:
    """Returns a feature that stands for one column of x."""
    return NumericFeature(kind="numeric", name=name, minimum=0, maximum=0)


def _is_raw(feature: Feature, counts: Counter[str], file: str) -> bool:
    """Tells whether a feature is a column of its name, or else one for each of its columns of x."""
    others = [name for name in feature.columns if name != feature.name and name in counts]
    if others and feature.name in counts and feature.name not in feature.columns:
        raise OfflineError(
            f"{file}: there are columns {describe(feature.name)} and {describe(others[0])}, expected one or the other"
        )
    return not others


def _check_there_once(name: str, counts: Counter[str], file: str) -> None:
    if not counts[name]:
        have = shorten(", ".join(map(str, counts)), 200)
        raise OfflineError(f"{file}: column {describe(name)} is missing, the table has {have}")
    if counts[name] > 1:
        raise OfflineError(f"{file}: column {describe(name)} is there {counts[name]} times, expected once")


def clean(column: Any) -> Any:  # noqa: ANN401
    """Returns text without white space around it, and null where it spells that."""
    trimmed = pc.ascii_trim_whitespace(column)
    return pc.if_else(pc.is_in(trimmed, value_set=pa.array(NULLS)), pa.scalar(None, pa.string()), trimmed)


def _check_type(schema: Schema, feature: Feature, newer: bool, file: str) -> None:
    found = schema.field(feature.name).type
    plain = found.value_type if newer and pa.types.is_dictionary(found) else found
    if feature.missing and pa.types.is_null(plain):
        return
    if feature.kind == "timestamp":
        fits, wanted = _is_text(plain) or pa.types.is_timestamp(plain) or pa.types.is_date(plain), TIMES
    elif newer:
        fits, wanted = _is_number(plain) or _is_text(plain), OR_TEXT
    elif feature.kind == "categorical":
        fits, wanted = _is_category(plain), CATEGORIES
    else:
        fits, wanted = _is_number(plain), NUMBERS
    if not fits:
        raise OfflineError(
            f"{file}: column {describe(feature.name)} has values of type {shorten(str(found))}, expected {wanted}"
        )


def _value(cell: Any) -> object:  # noqa: ANN401
    """Returns a cell's value, or the ticks of a moment that Python has no value for."""
    try:
        found: object = cell.as_py()
    except (OverflowError, ValueError):
        found = cell.cast(pa.int64()).as_py()
    return found


def _as_text(value: object) -> object:
    """Returns a value as what it is in a file without types; booleans and what is missing stay as they are."""
    if value is None or isinstance(value, bool) or value != value:
        return value
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _is_number(type_: Any) -> bool:  # noqa: ANN401
    types = pa.types
    return any(fits(type_) for fits in (types.is_floating, types.is_integer, types.is_boolean, types.is_decimal))


def _is_text(type_: Any) -> bool:  # noqa: ANN401
    types = pa.types
    if types.is_dictionary(type_):
        return _is_text(type_.value_type)
    return any(fits(type_) for fits in (types.is_string, types.is_large_string, types.is_string_view))


def _is_category(type_: Any) -> bool:  # noqa: ANN401
    return _is_text(type_) or bool(pa.types.is_integer(type_) or pa.types.is_boolean(type_))


def _numbers(column: Any) -> NDArray[np.number]:  # noqa: ANN401
    if pa.types.is_string(column.type):
        return _read_numbers(column)
    if not pa.types.is_floating(column.type):
        column = column.cast(pa.float64(), safe=False)
    numbers: NDArray[np.number] = column.to_numpy(zero_copy_only=False)  # null becomes NaN
    return numbers


def _booleans(column: Any) -> NDArray[np.number]:  # noqa: ANN401
    if pa.types.is_string(column.type):
        words = (None if cell is None else WORDS.get(cell.lower(), cell) for cell in column.to_pylist())
        return np.array([boolean_of(word) for word in words], dtype=np.float64)
    numbers = _numbers(column)
    return np.where((numbers == 0) | (numbers == 1) | np.isnan(numbers), numbers, WRONG)


def _read_numbers(column: Any) -> NDArray[np.float64]:  # noqa: ANN401
    try:
        numbers: NDArray[np.float64] = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:  # a bad cell, or one with white space around its number
        numbers = np.array([_read_number(cell) for cell in column.to_pylist()])
    return numbers


def _read_number(cell: str | None) -> float:
    if cell is None:
        return np.nan
    try:
        return WRONG if "_" in cell else float(cell)
    except ValueError:
        return WRONG
