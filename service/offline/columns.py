"""Which columns of a table feed a model, and the matrix that they make.

A numeric feature is a column of numbers of its name. A categorical feature is either a column ``feature=category`` for
each category, as the service takes it, or one column of its name with the categories themselves.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from service.graphs import Matrix
from service.manifest import CategoricalFeature, Manifest, NumericFeature
from service.offline.errors import BadRow, NullCategory, OfflineError
from service.offline.tables import Batch, Schema
from service.quotes import describe, shorten

NUMBERS = "floating point numbers, integers, decimals or booleans"

CATEGORIES = "text, integers or booleans"


@dataclass(frozen=True)
class Layout:
    """Where the M values of a row come from.

    Attributes:
        numbers: Columns of numbers, each with the place of its value.
        categories: Columns of categories, each with the place of its first value and what it may be.
        width: The number of values, M.
    """

    numbers: Sequence[tuple[str, int]]
    categories: Sequence[tuple[str, int, Sequence[str]]]
    width: int

    @property
    def columns(self) -> list[str]:
        """The columns that feed the model."""
        return [name for name, _ in self.numbers] + [name for name, *_ in self.categories]

    def matrix(self, batch: Batch) -> Matrix:
        """Returns rows (N, M); what is not a finite number that fits a float32 is not finite here either.

        The values are those that the service makes of the same rows: by way of float64, to float32.
        """
        rows = np.zeros((batch.num_rows, self.width), dtype=np.float32)
        with np.errstate(over="ignore"):
            for name, place in self.numbers:
                rows[:, place] = _numbers(batch.column(name))
        for name, place, known in self.categories:
            _mark(rows, place, _text(batch.column(name)), known)
        return rows

    def refuse(self, batch: Batch, rows: Matrix, file: str, first_row: int) -> NoReturn:
        """Names the first value in a batch that is not a finite number.

        Raises:
            OfflineError: Always.
        """
        row, place = (int(i) for i in np.argwhere(~np.isfinite(rows))[0])
        for name, found in self.numbers:
            if found == place:
                raise BadRow(file, first_row + row, name, batch.column(name)[row].as_py())
        name = next(name for name, found, _ in self.categories if found == place)
        raise NullCategory(file, first_row + row, name)


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
    numbers: list[tuple[str, int]] = []
    categories: list[tuple[str, int, Sequence[str]]] = []
    place = 0
    for feature in manifest.features:
        if isinstance(feature, NumericFeature):
            names = [feature.name]
        elif _is_raw(feature, counts, file):
            categories.append((feature.name, place, feature.categories))
            place += len(feature.categories)
            continue
        else:
            names = [f"{feature.name}={category}" for category in feature.categories]
        numbers += [(name, place + i) for i, name in enumerate(names)]
        place += len(names)
    layout = Layout(numbers, categories, place)
    for name in layout.columns:
        _check_there_once(name, counts, file)
    if not text:
        for name, _ in numbers:
            _check_type(schema, name, _is_number, NUMBERS, file)
        for name, *_ in categories:
            _check_type(schema, name, _is_category, CATEGORIES, file)
    return layout


def _is_raw(feature: CategoricalFeature, counts: Counter[str], file: str) -> bool:
    there = [name for category in feature.categories if (name := f"{feature.name}={category}") in counts]
    if there and feature.name in counts:
        raise OfflineError(
            f"{file}: there are columns {describe(feature.name)} and {describe(there[0])}, expected one or the other"
        )
    return not there


def _check_there_once(name: str, counts: Counter[str], file: str) -> None:
    if not counts[name]:
        have = shorten(", ".join(map(str, counts)), 200)
        raise OfflineError(f"{file}: column {describe(name)} is missing, the table has {have}")
    if counts[name] > 1:
        raise OfflineError(f"{file}: column {describe(name)} is there {counts[name]} times, expected once")


def _check_type(schema: Schema, name: str, fits: Any, expected: str, file: str) -> None:  # noqa: ANN401
    found = schema.field(name).type
    if not fits(found):
        raise OfflineError(
            f"{file}: column {describe(name)} has values of type {shorten(str(found))}, expected {expected}"
        )


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


def _read_numbers(column: Any) -> NDArray[np.float64]:  # noqa: ANN401
    try:
        numbers: NDArray[np.float64] = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:  # a bad cell, or one with white space around its number
        numbers = np.array([_read_number(cell) for cell in column.to_pylist()])
    return numbers


def _read_number(cell: str) -> float:
    try:
        return np.nan if "_" in cell else float(cell)
    except ValueError:
        return np.nan


def _text(column: Any) -> Any:  # noqa: ANN401
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    return column.cast(pa.string())


def _mark(rows: Matrix, place: int, column: Any, known: Sequence[str]) -> None:  # noqa: ANN401
    """Puts 1 where a category's column is; a category that is not known has none, and none at all is not a number."""
    found = pc.index_in(column, value_set=pa.array(known, pa.string()))
    if column.null_count:
        rows[pc.is_null(column).to_numpy(zero_copy_only=False), place] = np.nan
    listed = pc.fill_null(found, -1).to_numpy()
    (places,) = np.nonzero(listed >= 0)
    rows[places, place + listed[places]] = 1
