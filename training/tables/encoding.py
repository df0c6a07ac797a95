"""Rows of a table as a matrix of float32, by features as manifests have them.

Each kind of feature takes columns of the matrix as `models/README.md` says, and the service makes the same numbers of
the same values, to the bit.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from training.tables.base import MOST_COLUMNS, Observer, Table
from training.tables.errors import BadCell, TableError, quote
from training.tables.inference import RESERVED
from training.tables.moments import shares
from training.tables.schema import Boolean, Categorical, Label, Numeric, Schema, Timestamp, Used
from training.tables.sketches import Sample
from training.tables.values import (
    A_BOOLEAN,
    A_CATEGORY,
    A_MOMENT,
    A_NUMBER,
    Array,
    Batch,
    Place,
    booleans_of,
    moments_of,
    nulls_of,
    numbers_of,
    text_of,
)

Rows = NDArray[np.float32]
Labels = NDArray[np.bool_]
Feature = Mapping[str, Any]
"""A feature as manifests have it."""

OTHER, MISSING = RESERVED

MOST_VALUES, LEAST_VALUES, VALUES_IN_ALL = 2**20, 2**13, 2**26
"""Values that a median is taken of, if there are no more: of a column, and of all columns together."""


@dataclass(frozen=True)
class Encoder:
    """Makes rows of a matrix out of batches of a table.

    Attributes:
        source: The table's name in errors.
        features: The features, in their order, as manifests have them.
        label: The labels, if there are any.
        stand_ins: By feature, the values (W,) of its columns in rows where it is null and has no place for that. A
            null is refused there if there are none.
    """

    source: str
    features: Sequence[Feature]
    label: Label | None = None
    stand_ins: Mapping[str, Rows] = field(default_factory=dict)

    @property
    def inputs(self) -> list[str]:
        """The names of the table's columns that are encoded."""
        return [feature["name"] for feature in self.features]

    @property
    def columns(self) -> list[str]:
        """The names of the matrix's columns, M of them."""
        return [name for feature in self.features for name in columns_of(feature)]

    def encode(self, batch: Batch, first_row: int = 0) -> Rows:
        """Returns rows (N, M).

        Arguments:
            batch: Has the features' columns, of plain types, and may have others.
            first_row: Where in the table the batch begins.

        Raises:
            TableError: A value can't be used, or is null where the feature has no place for it; row and column are
                named.
        """
        widths = [width_of(feature) for feature in self.features]
        rows = np.zeros((sum(widths), batch.num_rows), dtype=np.float32)  # column by column, as tables are
        first = 0
        for feature, width in zip(self.features, widths, strict=True):
            name = feature["name"]
            part, place = rows[first : first + width], Place(self.source, name, first_row)
            if name in self.stand_ins and not feature.get("missing"):
                write_filled(part, batch.column(name), feature, place, self.stand_ins[name])
            else:
                WRITERS[feature["kind"]](part, batch.column(name), feature, place)
            first += width
        return np.ascontiguousarray(rows.T)

    def labels(self, batch: Batch, first_row: int = 0) -> Labels:
        """Returns which of the rows (N,) are anomalies.

        Raises:
            TableError: There are no labels, or one is neither of the two.
        """
        if self.label is None:
            raise TableError(f"{self.source}: has no labels")
        return labels_of(batch.column(self.label.column), self.label, Place(self.source, self.label.column, first_row))

    def batches(self, table: Table, observe: Observer | None = None) -> Iterator[tuple[Rows, Labels | None]]:
        """Encodes a table from its beginning.

        Arguments:
            table: The table.
            observe: Is told how many rows are done.

        Yields:
            Rows (N, M) of a batch, and their labels (N,) if there are any.

        Raises:
            TableError: As `encode` and `labels` say.
        """
        names = self.inputs + ([] if self.label is None else [self.label.column])
        done = 0
        for batch in table.batches(names):
            x = self.encode(batch, done)
            y = None if self.label is None else self.labels(batch, done)
            done += len(x)
            if observe is not None:
                observe(done)
            yield x, y


def fit_encoder(schema: Schema, table: Table, chosen: Labels | None = None, observe: Observer | None = None) -> Encoder:
    """Makes the features of a table's columns, from the rows that a model is fitted on.

    A number that is missing becomes the median of those rows, with an indicator beside it. The median is that of all
    values up to about a million, and beyond of a random sample of as many, drawn with seed 0; where very many columns
    have gaps, each gets less.

    Arguments:
        schema: What the columns are.
        table: The table, all of which is read once.
        chosen: Which of its rows (N,) are fitted on; all unless given.
        observe: Is told how many rows are read.

    Raises:
        TableError: A value can't be used, a column of numbers has none in the chosen rows, or the matrix would have too
            many columns, or two of the same name.
    """
    if chosen is not None and len(chosen) != table.rows:
        raise TableError(f"{table.source}: {len(chosen)} rows are chosen from or not, expected {table.rows}")
    numeric = [column for column in schema.used if isinstance(column, Numeric)]
    gaps = sum(column.nulls > 0 for column in numeric)
    limit = min(MOST_VALUES, max(LEAST_VALUES, VALUES_IN_ALL // max(1, gaps)))
    ranges = {column.name: Range(Sample(limit) if column.nulls else None) for column in numeric}
    first = 0
    if numeric:
        for batch in table.batches(list(ranges)):
            where = None if chosen is None else chosen[first : first + batch.num_rows]
            for i, (name, one) in enumerate(ranges.items()):
                values = numbers_of(batch[i], Place(table.source, name, first))
                one.add(values if where is None else values[where])
            first += batch.num_rows
            if observe is not None:
                observe(first)
    for name, one in ranges.items():
        if one.minimum > one.maximum:
            raise TableError(
                f"{table.source}: column {quote(name)} has no value in the rows that are fitted on; drop it"
            )
    features = [feature_of(column, ranges) for column in schema.used]
    encoder = Encoder(table.source, features, schema.label)
    check_columns(encoder.columns, table.source)
    return encoder


class Range:
    """The range of numbers, and the values that their median is taken of.

    Arguments:
        sample: Keeps the latter; None if no median is needed.
    """

    def __init__(self, sample: Sample | None) -> None:
        self.minimum, self.maximum = np.float32(np.inf), np.float32(-np.inf)
        self.sample = sample

    def add(self, values: NDArray[Any]) -> None:
        """Takes values (N,), NaN where there is none."""
        present = values.astype(np.float32)[~np.isnan(values)]
        if len(present):
            self.minimum = min(self.minimum, present.min())
            self.maximum = max(self.maximum, present.max())
        if self.sample is not None:
            self.sample.add(present)


def feature_of(column: Used, ranges: Mapping[str, Range]) -> dict[str, Any]:
    """Returns a column's feature."""
    feature: dict[str, Any] = {"kind": column.kind, "name": column.name}
    if isinstance(column, Numeric):
        one = ranges[column.name]
        feature |= {"minimum": float(one.minimum), "maximum": float(one.maximum)}
        if one.sample is not None:
            feature["missing"] = {"fill": one.sample.median(), "indicator": True}
        return feature
    if isinstance(column, Categorical):
        feature |= {"categories": list(column.categories), "other": True}
    elif isinstance(column, Timestamp):
        feature["parts"] = list(column.parts)
    else:
        assert isinstance(column, Boolean)  # noqa: S101 - there is no other kind
    return {**feature, "missing": column.nulls > 0}


def columns_of(feature: Feature) -> list[str]:
    """Names the columns of the matrix that a feature takes."""
    name = feature["name"]
    missing = [f"{name}={MISSING}"] if has_indicator(feature) else []
    if feature["kind"] == "categorical":
        known = [f"{name}={category}" for category in feature["categories"]]
        return known + ([f"{name}={OTHER}"] if feature.get("other") else []) + missing
    if feature["kind"] == "timestamp":
        return [f"{name}={wave}({part})" for part in feature["parts"] for wave in ("sin", "cos")] + missing
    return [name, *missing]


def has_indicator(feature: Feature) -> bool:
    """Says whether a feature has a column that tells where a value is missing."""
    missing = feature.get("missing")
    return bool(missing["indicator"] if isinstance(missing, Mapping) else missing)


def width_of(feature: Feature) -> int:
    """Counts the columns of the matrix that a feature takes."""
    one = {"categorical": len(feature.get("categories", ())) + bool(feature.get("other"))}
    one["timestamp"] = 2 * len(feature.get("parts", ()))
    return one.get(feature["kind"], 1) + has_indicator(feature)


def check_columns(names: Sequence[str], source: str) -> None:
    """Checks the names of the matrix's columns.

    Raises:
        TableError: There are too many, or two are the same.
    """
    if len(names) > MOST_COLUMNS:
        raise TableError(
            f"{source}: its columns and their categories become {len(names)} columns, expected at most {MOST_COLUMNS}"
        )
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise TableError(
                f"{source}: two columns or categories would both be called {quote(name)}; drop or rename one"
            )
        seen.add(name)


def write_numeric(rows: Rows, cells: Array, feature: Feature, place: Place) -> None:
    """Writes numbers into rows (1 or 2, N) of the transposed matrix, and where they are missing."""
    values = numbers_of(cells, place)
    null = np.isnan(values)
    rows[0] = values
    if not null.any():
        return
    missing = feature.get("missing")
    if missing is None:
        raise gap(cells, null, A_NUMBER, place)
    rows[0, null] = missing["fill"]
    if missing["indicator"]:
        rows[1] = null


def write_boolean(rows: Rows, cells: Array, feature: Feature, place: Place) -> None:
    """Writes 0 and 1, as `write_numeric` does."""
    values, null = booleans_of(cells, place)
    rows[0] = values
    write_missing(rows, null, feature, place, cells, A_BOOLEAN)


def write_categorical(rows: Rows, cells: Array, feature: Feature, place: Place) -> None:
    """Writes a 1 into the row of each category."""
    text = text_of(cells, place)
    categories = feature["categories"]
    found = pc.index_in(text, value_set=pa.array(categories, pa.string()))
    null = nulls_of(text)
    positions = pc.fill_null(found, len(categories)).to_numpy()
    where = ~null if feature.get("other") else ~null & (positions < len(categories))
    (columns,) = np.nonzero(where)
    rows[positions[columns], columns] = 1
    write_missing(rows, null, feature, place, cells, A_CATEGORY)


def write_timestamp(rows: Rows, cells: Array, feature: Feature, place: Place) -> None:
    """Writes sine and cosine of each part's angle."""
    values, null = moments_of(cells, place)
    for i, part in enumerate(feature["parts"]):
        angle = 2 * np.pi * shares(values, part)
        rows[2 * i] = np.sin(angle)
        rows[2 * i + 1] = np.cos(angle)
    rows[:, null] = 0
    write_missing(rows, null, feature, place, cells, A_MOMENT)


def write_missing(
    rows: Rows, null: NDArray[np.bool_], feature: Feature, place: Place, cells: Array, expected: str
) -> None:
    """Writes into the last row where values are missing, if the feature has a place for that."""
    if feature.get("missing"):
        rows[-1] = null
    elif null.any():
        raise gap(cells, null, expected, place)


def write_filled(rows: Rows, cells: Array, feature: Feature, place: Place, stand_in: Rows) -> None:
    """Writes a feature's values, and what stands for them (W,) where they are missing."""
    marked = {**feature, "missing": {"fill": 0.0, "indicator": True} if feature["kind"] == "numeric" else True}
    written = np.zeros((len(rows) + 1, len(cells)), dtype=np.float32)
    WRITERS[feature["kind"]](written, cells, marked, place)
    null = written[-1] == 1
    rows[:] = written[:-1]
    rows[:, null] = stand_in[:, None]


def gap(cells: Array, null: NDArray[np.bool_], expected: str, place: Place) -> BadCell:
    """Returns an error for a value that is missing where none may be."""
    return place.refuse(cells, int(null.argmax()), f"{expected}, for the schema says that it has no nulls")


WRITERS = {
    "numeric": write_numeric,
    "boolean": write_boolean,
    "categorical": write_categorical,
    "timestamp": write_timestamp,
}


def labels_of(cells: Array, label: Label, place: Place) -> Labels:
    """Returns which of some labels (N,) are those of anomalies.

    Raises:
        BadCell: One is neither of the two.
    """
    text = text_of(cells, place)
    found = pc.index_in(text, value_set=pa.array([label.normal, label.anomaly]))
    if found.null_count:
        expected = f"{quote(label.normal)} or {quote(label.anomaly)}"
        raise place.refuse(cells, int(nulls_of(found).argmax()), expected)
    anomalies: Labels = found.to_numpy(zero_copy_only=False) == 1
    return anomalies
