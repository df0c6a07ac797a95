"""Raw values to rows and back: the one place that knows what a manifest's features make of a number or a category.

Where the values come from is another matter: `Columns` are a request's records, a table's columns or plain sequences.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.graphs import Matrix
from service.manifest import (
    OTHER,
    BooleanFeature,
    CategoricalFeature,
    Feature,
    Manifest,
    NumericFeature,
    Part,
    TimestampFeature,
)

Numbers = NDArray[np.float64]

Instants = NDArray[np.datetime64]
"""Moments in microseconds, in UTC."""

WRONG = math.inf
"""Stands for a value that is no number, or neither true nor false. What is missing is NaN."""

NO_CATEGORY, NO_PLACE = -1, -2
"""Stand for the place of a category that has no column, and for that of a value that is none or may not be missing."""

MICROSECOND = np.timedelta64(1, "us")
NO_INSTANT = np.datetime64(2**63 - 1, "us")
"""Stands for a value that is no moment. What is missing is NaT."""

EPOCH = datetime(1970, 1, 1)
DAY = 86_400_000_000
"""Microseconds."""

PERIODS: Mapping[Part, int] = {"time_of_day": DAY, "day_of_week": 7 * DAY, "day_of_year": 366 * DAY}

DAYS_SINCE_MONDAY = 3
"""From the Monday before 1970-01-01, which was a Thursday."""

NUMBERS = frozenset({int, float})
NUMBERS_OR_NONE = NUMBERS | {type(None)}
"""Types that numpy makes the right numbers of, and NaN of None."""

NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
"""A category that is a number as text; with zeros before it, it is a code."""

INTEGER = re.compile(r"-?[0-9]+")
"""One that is compared as it is, for floats would make one of several beyond 2**53."""

HALF = 0.5


class Columns(Protocol):
    """Raw columns by name, N values each."""

    def __len__(self) -> int:
        """Returns N."""

    def numbers(self, names: Sequence[str]) -> Numbers:
        """Returns columns of numbers (N, K), NaN where one is missing and infinite where it is none or too large."""

    def booleans(self, names: Sequence[str]) -> Numbers:
        """Returns columns (N, K) of 0 and 1, NaN where a value is missing and infinite where it is neither."""

    def places(self, name: str, categories: "Categories") -> Sequence[int] | NDArray[np.int64]:
        """Returns the places (N,) of a column's categories, as `Categories.place` has them."""

    def instants(self, name: str) -> Instants:
        """Returns a column of moments (N,), NaT where one is missing and `NO_INSTANT` where it is none."""


class Categories:
    """The places of a categorical feature's columns.

    Arguments:
        feature: The feature.
        first: The place of its first column.

    Attributes:
        known: The places of the categories, as text and, if all of them are numbers, as numbers; and that of None.
        numbers: Whether all categories are numbers, so that they may be given as such.
    """

    def __init__(self, feature: CategoricalFeature, first: int) -> None:
        texts = {category: first + i for i, category in enumerate(feature.categories)}
        self.known: dict[object, int] = dict(texts.items())
        self.numbers = all(map(NUMBER.fullmatch, texts))
        if self.numbers:
            for text, place in sorted(texts.items(), key=lambda entry: len(entry[0])):  # "1" goes before "1.0"
                self.known.setdefault(int(text) if INTEGER.fullmatch(text) else float(text), place)
        columns = feature.columns
        self._unseen = first + columns.index(f"{feature.name}={OTHER}") if feature.other else NO_CATEGORY
        if feature.missing:
            self.known[None] = first + len(columns) - 1

    def place(self, value: object) -> int:
        """Returns the place of a value's column.

        It is `NO_CATEGORY` if a category is not known and there is no column for others, and `NO_PLACE` if the value is
        none, or is missing and may not be. True and false are the categories ``true`` and ``false`` if there is one of
        them, and otherwise 1 and 0.
        """
        if isinstance(value, bool):
            word = "true" if value else "false"
            if "true" in self.known or "false" in self.known:
                return self.known.get(word, self._unseen)
        elif value is None or isinstance(value, str):
            return self.known.get(value, NO_PLACE if value is None else self._unseen)
        elif not isinstance(value, int | float):
            return NO_PLACE
        return self.known.get(value, self._unseen) if self.numbers else NO_PLACE

    def lenient(self, value: object) -> int:
        """The same for a value of a table, whose column has a type that is taken: a new category is no wrong one."""
        missing = value is None or value != value  # NaN, which pandas has for what is missing
        place = self.place(None if missing else value)
        if place != NO_PLACE or missing:
            return place
        return self.known.get(str(int(value)), self._unseen) if isinstance(value, bool) else self._unseen


@dataclass(frozen=True)
class Scalars:
    """Features that are a number each.

    Attributes:
        names: The names of K of them.
        places: The places of their columns.
        fills: What stands for a missing value (K,), NaN where none may be missing.
        marked: Which of them have a column that says that a value was missing.
        marks: The places of these columns.
    """

    names: tuple[str, ...]
    places: NDArray[np.intp] | slice
    fills: Numbers
    marked: NDArray[np.intp]
    marks: NDArray[np.intp]

    @classmethod
    def of(cls, features: Iterable[tuple[Feature, int]]) -> "Scalars":
        """Collects those of features with the places of their columns that are a number or a boolean."""
        names: list[str] = []
        places: list[int] = []
        fills: list[float] = []
        marked: list[int] = []
        marks: list[int] = []
        for feature, first in features:
            if len(feature.columns) > 1:
                marked.append(len(names))
                marks.append(first + 1)
            if isinstance(feature, NumericFeature):
                fills.append(feature.missing.fill if feature.missing else math.nan)
            else:
                fills.append(0.0 if feature.missing else math.nan)
            names.append(feature.name)
            places.append(first)
        return cls(
            tuple(names),
            _slice_if_possible(places),
            np.array(fills, dtype=np.float64),
            np.array(marked, dtype=np.intp),
            np.array(marks, dtype=np.intp),
        )

    def put(self, values: Numbers, rows: Matrix) -> None:
        """Puts values (N, K) into rows (N, M)."""
        nulls = np.isnan(values)
        if np.count_nonzero(nulls):
            values = np.where(nulls, self.fills, values)
            rows[:, self.marks] = nulls[:, self.marked]
        rows[:, self.places] = values


class Encoder:
    """Turns raw columns into rows, and rows into records.

    Arguments:
        features: Features, each with the place of its first column of x.
        width: The number of columns of x, M.
        ignored: Raw columns that there may be beside those of the features.

    Attributes:
        features: The features by their names.
        ignored: Raw columns that there may be beside theirs.
    """

    def __init__(self, features: Sequence[tuple[Feature, int]], width: int, ignored: Iterable[str] = ()) -> None:
        self.features = {feature.name: feature for feature, _ in features}
        self.ignored = frozenset(ignored)
        self._features = features
        self._width = width
        self._numbers = Scalars.of((f, place) for f, place in features if isinstance(f, NumericFeature))
        self._booleans = Scalars.of((f, place) for f, place in features if isinstance(f, BooleanFeature))
        self._categories = [(f.name, Categories(f, p), p) for f, p in features if isinstance(f, CategoricalFeature)]
        self._firsts = np.array([place for *_, place in self._categories], dtype=np.int64)
        self._timestamps = [(f, place) for f, place in features if isinstance(f, TimestampFeature)]

    @classmethod
    def of(cls, manifest: Manifest) -> "Encoder":
        """Returns the encoder of a manifest's features."""
        return cls(list(placed(manifest)), manifest.width, manifest.ignored)

    def rows(self, columns: Columns) -> Matrix:
        """Returns rows (N, M) of float32.

        A row is not finite at the first of a feature's columns if its value is none of the feature's, is too large for
        a float32, or is missing and may not be. Numbers go by way of float64.
        """
        rows = np.zeros((len(columns), self._width), dtype=np.float32)
        with np.errstate(over="ignore"):
            if self._numbers.names:
                self._numbers.put(columns.numbers(self._numbers.names), rows)
            if self._booleans.names:
                self._booleans.put(columns.booleans(self._booleans.names), rows)
        if self._categories:
            places = [columns.places(name, known) for name, known, _ in self._categories]
            self._mark(rows, np.array(places, dtype=np.int64).T)
        for feature, first in self._timestamps:
            put_instants(feature, columns.instants(feature.name), rows[:, first : first + len(feature.columns)])
        return rows

    def first_wrong(self, rows: Matrix) -> tuple[int, Feature] | None:
        """Returns the first of rows (N, M) that is not finite, and the feature whose value it can't take."""
        finite = np.isfinite(rows)
        if np.count_nonzero(finite) == rows.size:
            return None
        row, column = divmod(int(np.argmin(finite)), self._width)
        return row, next(f for f, first in self._features if first <= column < first + len(f.columns))

    def records(self, rows: Matrix) -> list[dict[str, Any]]:
        """Returns rows (N, M) as records, as near as they come to that.

        A boolean is true from 0.5 on, a category is the one whose column is the largest, and is ``<other>`` if that is
        the one for others. A value is None if the column that says that it was missing is above 0.5 or, of a category,
        the largest. Timestamps are left out: from the parts that rows have of them nothing leads back.
        """
        columns: dict[str, Sequence[Any]] = {}
        for feature, first in self._features:
            part = rows[:, first : first + len(feature.columns)]
            if isinstance(feature, CategoricalFeature):
                columns[feature.name] = _categories_of(feature, part)
            elif not isinstance(feature, TimestampFeature):
                cells: list[Any] = list(part[:, 0]) if feature.kind == "numeric" else (part[:, 0] >= HALF).tolist()
                if part.shape[1] > 1:
                    cells = [None if null else cell for cell, null in zip(cells, part[:, 1] > HALF, strict=True)]
                columns[feature.name] = cells
        if not columns:
            return [{} for _ in rows]
        names = tuple(columns)
        return [dict(zip(names, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]

    def _mark(self, rows: Matrix, places: NDArray[np.int64]) -> None:
        """Puts 1 at places (N, C) of the C categorical features' columns."""
        starts = np.arange(0, rows.size, self._width)[:, None]
        flat = rows.reshape(-1)
        if places.size and places.min() < 0:
            flat[(starts + places)[places >= 0]] = 1
            flat[(starts + self._firsts)[places == NO_PLACE]] = np.nan
        else:
            flat[starts + places] = 1


class ValueColumns:
    """Raw columns as sequences of Python's values.

    Arguments:
        columns: The columns by name, N values each.
        length: N.
    """

    def __init__(self, columns: Mapping[str, Sequence[object]], length: int) -> None:
        self._columns, self._length = columns, length

    def __len__(self) -> int:
        """Returns N."""
        return self._length

    def numbers(self, names: Sequence[str]) -> Numbers:
        """Returns columns of numbers (N, K)."""
        cells = [self._columns[name] for name in names]
        try:
            if NUMBERS.issuperset(map(type, chain.from_iterable(cells))):
                size = len(cells) * self._length
                return np.fromiter(chain.from_iterable(cells), np.float64, size).reshape(len(cells), self._length).T
            if NUMBERS_OR_NONE.issuperset(map(type, chain.from_iterable(cells))):
                return np.array(cells, dtype=np.float64).T
        except OverflowError:  # an integer beyond all floats
            pass
        return np.array([list(map(number_of, column)) for column in cells], dtype=np.float64).T

    def booleans(self, names: Sequence[str]) -> Numbers:
        """Returns columns of booleans (N, K)."""
        return np.array([list(map(boolean_of, self._columns[name])) for name in names], dtype=np.float64).T

    def places(self, name: str, categories: Categories) -> Sequence[int]:
        """Returns the places (N,) of a column's categories."""
        return places_of(self._columns[name], categories)

    def instants(self, name: str) -> Instants:
        """Returns a column of moments (N,)."""
        return instants_of(self._columns[name])


def placed(manifest: Manifest) -> Iterable[tuple[Feature, int]]:
    """Yields a manifest's features, each with the place of its first column of x."""
    place = 0
    for feature in manifest.features:
        yield feature, place
        place += len(feature.columns)


def number_of(value: object) -> float:
    """Returns a number, NaN if it is missing, or `WRONG`; true and false are no numbers."""
    if value is None:
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float):
        return WRONG
    try:
        return float(value)
    except OverflowError:
        return WRONG


BOOLEANS: Mapping[object, float] = {None: math.nan, True: 1.0, False: 0.0}
"""0 and 1 are equal to what they stand for."""


def boolean_of(value: object) -> float:
    """Returns 1 or 0 for a boolean or for itself, NaN if it is missing, or `WRONG`."""
    return BOOLEANS.get(value, WRONG) if value is None or isinstance(value, int | float) else WRONG


def places_of(values: Sequence[object], categories: Categories) -> list[int]:
    """Returns the places (N,) of categories, as `Categories.place` has them."""
    try:
        return list(map(categories.known.__getitem__, values))
    except (KeyError, TypeError):  # a new one, or one that is no category at all
        return list(map(categories.place, values))


def instants_of(values: Iterable[object]) -> Instants:
    """Returns moments (N,) out of ISO 8601 texts; what has no offset is UTC."""
    return np.array([_microseconds(value) for value in values], dtype=np.int64).view("M8[us]")


def put_instants(feature: TimestampFeature, instants: Instants, into: Matrix) -> None:
    """Puts what a feature wants to know of moments (N,) into its columns (N, C)."""
    missing, wrong = np.isnat(instants), instants == NO_INSTANT
    known = np.where(missing | wrong, np.datetime64(0, "us"), instants)
    for i, part in enumerate(feature.parts):
        angle = 2 * np.pi * (_passed(part, known) / PERIODS[part])
        into[:, 2 * i] = np.where(missing, 0, np.sin(angle))
        into[:, 2 * i + 1] = np.where(missing, 0, np.cos(angle))
    if feature.missing:
        into[:, -1] = missing
    else:
        wrong |= missing
    into[wrong, 0] = np.nan


def expected(feature: Feature) -> str:
    """Says what a feature's values are."""
    null = bool(feature.missing)
    match feature:
        case NumericFeature():
            words = ["a finite number that fits a float32"]
        case BooleanFeature():
            words = ["true", "false", "0", "1"]
        case CategoricalFeature():
            words = ["a string", *(["a number"] if Categories(feature, 0).numbers else [])]
        case TimestampFeature():
            words = ['a time as "2026-01-31T12:00:00Z"']
    if null:
        words.append("null")
    return ", ".join(words[:-1]) + " or " * (len(words) > 1) + words[-1]


def _microseconds(value: object) -> int:
    """Returns the microseconds since 1970 that a text stands for, those of NaT, or those of `NO_INSTANT`."""
    if value is None:
        return np.iinfo(np.int64).min
    try:
        found = datetime.fromisoformat(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return int(NO_INSTANT.astype(np.int64))
    since = found.replace(tzinfo=None) - EPOCH - (found.utcoffset() or timedelta(0))
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _passed(part: Part, instants: Instants) -> NDArray[np.int64]:
    """Returns the microseconds (N,) of a day, week or year that have passed at some moments."""
    since = instants.astype(np.int64)
    match part:
        case "time_of_day":
            return since % DAY
        case "day_of_week":
            return (since + DAYS_SINCE_MONDAY * DAY) % (7 * DAY)
        case "day_of_year":
            return since - instants.astype("M8[Y]").astype("M8[us]").astype(np.int64)


def _categories_of(feature: CategoricalFeature, part: Matrix) -> list[str | None]:
    values: list[str | None] = [*feature.categories]
    if feature.other:
        values.append(OTHER)
    if feature.missing:
        values.append(None)
    return [values[i] for i in part.argmax(axis=1).tolist()]


def _slice_if_possible(places: Sequence[int]) -> NDArray[np.intp] | slice:
    """Returns places as a slice if they follow each other, for numpy is several times faster with it."""
    if places and places[-1] - places[0] + 1 == len(places):
        return slice(places[0], places[-1] + 1)
    return np.array(places, dtype=np.intp)
