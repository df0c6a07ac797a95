"""Infers what the columns of a table are, in one pass over all its rows.

The rules, in the order they are tried. Shares and counts are of the rows that have a value in the column.

1. **Asked for.** What is named by `Overrides` is what it is asked to be; a column named in `drop` isn't read.
2. **Label.** It has exactly two values, and no nulls. The anomaly is the one that is asked for; else 1 beside 0, true
   beside false, or a word such as ``anomaly`` or ``fraud`` beside one such as ``normal`` or ``benign``; else the rarer,
   and a warning says so. In a file of .npz or .mat, y is the label unless another column is.
3. **All null.** A column without any value is dropped. NaN counts as null, in any format.
4. **Constant.** A column with one value is dropped, unless there are nulls beside it, for then there is something to
   tell rows apart by. Numbers are constant that are all one float32.
5. **Identifier.** Over at least 100 rows, 95 % of which are different: integers that rise from row to row (in 95 % of
   the steps), or that fill their range, as numbered rows in any order do; or text of at most 64 characters without
   white space. It is dropped, for the next rows will have none of these values. Floats are never an identifier.
6. **Numbers.** Integers and floats are numeric, however few different ones there are. Infinite values, and those beyond
   a float32, are refused by row and column, as the service refuses them: were they counted as missing here, a model
   would be fitted on gaps that it never meets again.
7. **Free text.** Text of which more than half of the values are different, or of more than 50 different ones none of
   which has 10 rows, is dropped with a warning.
8. **Categories.** All other text: all its values where there are at most 50; else those that have at least 10 rows and
   are among the 50 most frequent or have 0.5 % of the rows. The rest is ``<other>``, and so is what was never seen.
   Text of more than 256 characters is always among the rest.
9. **Booleans.** Columns of booleans; in text those of true and false, in any case. Text of 1 and 0 has numbers. They
   stay booleans if they are asked for as numeric or categorical.
10. **Moments.** Of dates and timestamps a model is told the parts that vary and come again: the time of day if the rows
    span a day, the day of the week if they span 7 days, the day of the year if they span 365. The first and the last
    percent of the rows don't count for the span, so that a few strange dates don't stretch it. Without any part the
    column is dropped. Where it is asked for as a timestamp, parts need only vary.

Different values are counted exactly up to a few thousand, and estimated beyond.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from training.tables.base import Observer, Table
from training.tables.errors import TableError, UnknownColumn, listed, quote
from training.tables.moments import DAY, days_of_the_year, iso, weekdays
from training.tables.schema import Boolean, Categorical, Column, Dropped, Label, Numeric, Schema, Timestamp
from training.tables.sketches import Counts, Distinct, Moments, hash_numbers, hash_texts
from training.tables.values import (
    NUMBER,
    WRITTEN_DATE,
    WRITTEN_NUMBER,
    Array,
    ArrowType,
    Place,
    booleans_of,
    is_number,
    moments_of,
    numbers_of,
    text_of,
)

MANY_ROWS = 100
NEARLY_ALL = 0.95
FULL_RANGE = 1.1
LONGEST_IDENTIFIER = 64

HARDLY_REPEATED = 0.5
FEW_CATEGORIES = 50
LEAST_ROWS = 10
LEAST_SHARE = 0.005
LONGEST_CATEGORY = 256

MOST_HASHES, LEAST_HASHES, HASHES_IN_ALL = 2**13, 2**10, 2**23
MOST_TEXTS, LEAST_TEXTS, TEXTS_IN_ALL = 10_000, 1000, 1_000_000
"""What a column may remember, and what all of them may."""

EDGE = 0.01
"""The share of the rows, on either side, that doesn't count for the span of moments."""

DAYS_FOR = {"time_of_day": 1, "day_of_week": 7, "day_of_year": 365}
"""The span after which a part comes again."""

NORMAL_WORDS = frozenset(
    "normal nominal benign inlier legit legitimate genuine healthy good ok 0 false no n neg".split()
)
ANOMALY_WORDS = frozenset(
    "anomaly anomalous abnormal outlier attack malicious malignant fraud fraudulent faulty bad 1 true yes y pos".split()
)

HINTS = {
    NUMBER: "it reads like numbers: if it has some, ask for it as numeric",
    WRITTEN_DATE: "it reads like dates: moments are read as ISO 8601, such as 2026-01-31 or 2026-01-31T12:30:00Z",
    WRITTEN_NUMBER: "it reads like numbers with separators or units: numbers are read such as 1234.56",
}
"""What a dropped column of text was perhaps meant for, by what nearly all of its values look like."""

RESERVED = ("<other>", "<missing>")
"""Names of columns of the matrix; text that reads like them is no category of its own."""


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """What a user says of columns, by name.

    Attributes:
        drop: Columns not to fit on.
        categorical: Columns of text or integers that are categories, even if rules would drop them.
        numeric: Columns that are numbers: those of text are read as such.
        timestamp: Columns that are moments: those of text are read as such.
        label: The column with the labels.
        anomaly: The label of anomalies.
    """

    drop: Sequence[str] = ()
    categorical: Sequence[str] = ()
    numeric: Sequence[str] = ()
    timestamp: Sequence[str] = ()
    label: str | None = None
    anomaly: str | None = None

    def by_column(self) -> dict[str, str]:
        """Returns what each named column is asked to be."""
        lists = {"drop": self.drop, "categorical": self.categorical, "numeric": self.numeric}
        lists |= {"timestamp": self.timestamp, "label": () if self.label is None else (self.label,)}
        asked: dict[str, str] = {}
        for kind, names in lists.items():
            for name in names:
                if asked.setdefault(name, kind) != kind:
                    raise TableError(f"column {quote(name)} is asked for as {asked[name]} and as {kind}, expected one")
        return asked


NOTHING_SAID = Overrides()


def infer_schema(table: Table, overrides: Overrides = NOTHING_SAID, observe: Observer | None = None) -> Schema:
    """Infers what the columns of a table are, by the rules above.

    Arguments:
        table: The table, all of which is read once.
        overrides: What a user says of its columns.
        observe: Is told how many rows are read.

    Raises:
        TableError: A named column isn't there, a column has a type or a value that can't be used, the label has other
            than two values, or no column is left to fit on.
    """
    asked = overrides.by_column()
    names = table.schema.names
    for name, kind in asked.items():
        if name not in names:
            raise UnknownColumn(table.source, kind, name, names)
    if table.label is not None and overrides.label is None:
        asked.setdefault(table.label, "label")
    label = next((name for name, kind in asked.items() if kind == "label"), None)
    if overrides.anomaly is not None and label is None:
        raise TableError(f"{table.source}: the anomaly is to be {quote(overrides.anomaly)}, but no column has labels")
    wanted = [field for field in table.schema if asked.get(field.name) != "drop"]
    summaries = {field.name: summary_of(field.type, asked.get(field.name), len(wanted)) for field in wanted}
    rows = 0
    for batch in table.batches(list(summaries)):
        for i, (name, summary) in enumerate(summaries.items()):
            summary.add(batch[i], Place(table.source, name, rows))
        rows += batch.num_rows
        if observe is not None:
            observe(rows)
    columns: list[Column] = []
    warnings = list(table.warnings)
    for field in table.schema:
        found = Found(field.name, str(field.type), asked.get(field.name))
        columns.append(summaries[field.name].column(found) if field.name in summaries else found.dropped("asked for"))
        warnings += [f"{table.source}: {warning}" for warning in found.warnings]
    labels = None
    if label is not None:
        counted = summaries[label]
        assert isinstance(counted, LabelSummary)  # noqa: S101 - summary_of says so
        labels = counted.label(label, overrides.anomaly, table.source, warnings)
    if all(isinstance(column, Dropped) for column in columns):
        reasons = "; ".join(f"{quote(c.name)}: {c.summary()}" for c in columns[:10])
        raise TableError(f"{table.source}: no column is left to fit on ({reasons})")
    return Schema(source=table.source, rows=table.rows, columns=tuple(columns), label=labels, warnings=tuple(warnings))


class Found:
    """What is known of a column before it is said what it is.

    Attributes:
        name: Its name.
        type: The Arrow type it was read as.
        asked: What it is asked to be, if anything.
        nulls: The rows without a value.
        distinct: The number of different values.
        warnings: What its summary has to say about it.
    """

    def __init__(self, name: str, type_: str, asked: str | None) -> None:
        self.name = name
        self.type = type_
        self.asked = asked
        self.nulls = self.distinct = 0
        self.warnings: list[str] = []

    @property
    def known(self) -> dict[str, Any]:
        """What all columns have."""
        return {"name": self.name, "type": self.type, "nulls": self.nulls, "distinct": self.distinct}

    def dropped(self, reason: str) -> Dropped:
        """Returns it as a column that is dropped."""
        return Dropped(**self.known, reason=reason)

    def warn(self, text: str) -> None:
        """Takes a warning."""
        self.warnings.append(f"column {quote(self.name)} {text}")


class Summary(ABC):
    """What is gathered of a column's values."""

    @abstractmethod
    def add(self, cells: Array, place: Place) -> None:
        """Takes plain cells (N,)."""

    @abstractmethod
    def column(self, found: Found) -> Column:
        """Returns what the column is."""


def summary_of(found: ArrowType, asked: str | None, columns: int) -> Summary:
    """Returns an empty summary for a column of a type.

    Arguments:
        found: The plain type.
        asked: What the column is asked to be, if anything.
        columns: How many columns are summarised; of very many each remembers less.
    """
    hashes = min(MOST_HASHES, max(LEAST_HASHES, HASHES_IN_ALL // columns))
    texts = min(MOST_TEXTS, max(LEAST_TEXTS, TEXTS_IN_ALL // columns))
    if asked == "label":
        return LabelSummary(texts)
    if pa.types.is_null(found):
        return NullSummary()
    if pa.types.is_boolean(found) and asked != "timestamp":
        return BooleanSummary()
    if asked == "numeric" or (asked is None and is_number(found)):
        return NumericSummary(hashes, bool(pa.types.is_integer(found)))
    if asked == "timestamp" or (asked is None and pa.types.is_timestamp(found)):
        return TimestampSummary(hashes)
    return TextSummary(hashes, texts)


class NullSummary(Summary):
    """Of a column that can have nothing but nulls."""

    def __init__(self) -> None:
        self._rows = 0

    def add(self, cells: Array, place: Place) -> None:  # noqa: ARG002 - there is nothing to be wrong with
        """Takes plain cells (N,)."""
        self._rows += len(cells)

    def column(self, found: Found) -> Column:
        """Returns a dropped column."""
        found.nulls = self._rows
        return found.dropped("all null")


class NumericSummary(Summary):
    """Of numbers.

    Arguments:
        hashes: How many values are told apart exactly.
        integers: Whether they are integers, which may be identifiers.
    """

    def __init__(self, hashes: int, integers: bool) -> None:
        self._integers = integers
        self._nulls = self._steps = self._rises = 0
        self._last: NDArray[Any] | None = None
        self._moments = Moments()
        self._distinct = Distinct(hashes)

    def add(self, cells: Array, place: Place) -> None:
        """Takes plain cells (N,)."""
        values = numbers_of(cells, place)
        null = np.isnan(values)
        nulls = int(np.count_nonzero(null))
        self._nulls += nulls
        present: NDArray[Any] = values[~null] if nulls else values
        self._moments.add(present)
        if self._integers:
            present = cells.drop_null().to_numpy(zero_copy_only=False)
            self._count_rises(present)
        self._distinct.add(hash_numbers(present))

    def _count_rises(self, present: NDArray[Any]) -> None:
        if not len(present):
            return
        if self._last is not None:
            present = np.concatenate([self._last, present])
        self._steps += len(present) - 1
        self._rises += int(np.count_nonzero(present[1:] > present[:-1]))
        self._last = present[-1:]

    def _looks_like_an_identifier(self) -> bool:
        moments = self._moments
        if not self._integers or moments.count < MANY_ROWS:
            return False
        always = self._rises == self._steps
        different = always or self._distinct.count >= NEARLY_ALL * moments.count
        rising = self._rises >= NEARLY_ALL * self._steps
        full = moments.maximum - moments.minimum + 1 <= FULL_RANGE * moments.count
        return different and (rising or full)

    def column(self, found: Found) -> Column:
        """Returns a numeric column, or a dropped one."""
        moments = self._moments
        found.nulls, found.distinct = self._nulls, min(self._distinct.count, moments.count)
        if not moments.count:
            return found.dropped("all null")
        if found.asked is None:
            if self._looks_like_an_identifier():
                return found.dropped("identifier: integers that are all different and count rows")
            if not self._nulls and np.float32(moments.minimum) == np.float32(moments.maximum):
                same = moments.minimum == moments.maximum
                return found.dropped(f"constant: {moments.minimum:g}{'' if same else ', as a float32'}")
        return Numeric(
            **found.known,
            minimum=moments.minimum,
            maximum=moments.maximum,
            mean=moments.mean,
            std=moments.std,
        )


class BooleanSummary(Summary):
    """Of booleans."""

    def __init__(self) -> None:
        self._nulls = self._true = self._rows = 0

    def add(self, cells: Array, place: Place) -> None:
        """Takes plain cells (N,)."""
        values, null = booleans_of(cells, place)
        self._rows += len(cells)
        self._nulls += int(np.count_nonzero(null))
        self._true += int(np.count_nonzero(values))

    def column(self, found: Found) -> Column:
        """Returns a column of booleans, or a dropped one."""
        values = self._rows - self._nulls
        distinct = (self._true > 0) + (self._true < values)
        found.nulls, found.distinct = self._nulls, distinct
        if not values:
            return found.dropped("all null")
        if distinct == 1 and not self._nulls and found.asked is None:
            return found.dropped(f"constant: {'true' if self._true else 'false'}")
        return Boolean(**found.known, true=self._true)


class TextSummary(Summary):
    """Of text.

    Arguments:
        hashes: How many values are told apart exactly.
        texts: How many are counted.
    """

    def __init__(self, hashes: int, texts: int) -> None:
        self._rows = self._nulls = self._longest = self._spaced = 0
        self._read_like = dict.fromkeys(HINTS, 0)
        self._distinct = Distinct(hashes)
        self._counts = Counts(texts)

    def add(self, cells: Array, place: Place) -> None:
        """Takes plain cells (N,)."""
        cells = text_of(cells, place)
        self._rows += len(cells)
        self._nulls += cells.null_count
        counted = cells.drop_null().value_counts()
        texts, rows = counted.field(0), counted.field(1)
        if not len(texts):
            return
        lengths = pc.utf8_length(texts)
        self._longest = max(self._longest, pc.max(lengths).as_py())
        self._spaced += rows_of(rows, pc.match_substring_regex(texts, r"\s"))
        for pattern in self._read_like:
            self._read_like[pattern] += rows_of(rows, pc.match_substring_regex(texts, pattern))
        self._distinct.add(hash_texts(texts))
        short = pc.less_equal(lengths, LONGEST_CATEGORY)
        self._counts.add(texts.filter(short), rows.filter(short))

    def _dropped(self, found: Found, reason: str, warning: str | None = None) -> Dropped:
        """Drops it, and warns if there is a warning or it was perhaps meant for something else."""
        values = self._rows - self._nulls
        hint = next((HINTS[pattern] for pattern, rows in self._read_like.items() if rows >= NEARLY_ALL * values), None)
        if hint is not None:
            found.warn(f"is dropped, but {hint}")
            return found.dropped(f"{reason} ({hint})")
        if warning is not None:
            found.warn(warning)
        return found.dropped(reason)

    def column(self, found: Found) -> Column:
        """Returns a column of categories, or a dropped one."""
        values = self._rows - self._nulls
        distinct = min(self._distinct.count, values)
        found.nulls, found.distinct = self._nulls, distinct
        if not values:
            return found.dropped("all null")
        frequent = [(text, rows) for text, rows in self._counts.most_frequent() if text not in RESERVED]
        if found.asked is None:
            if distinct == 1 and not self._nulls:
                return found.dropped(f"constant: {quote(frequent[0][0]) if frequent else 'one text'}")
            spaced = self._spaced > (1 - NEARLY_ALL) * values
            short = self._longest <= LONGEST_IDENTIFIER
            if values >= MANY_ROWS and distinct >= NEARLY_ALL * values and short and not spaced:
                return self._dropped(found, "identifier: text that is all different")
            if distinct > HARDLY_REPEATED * values:
                warning = f"is dropped as free text: {distinct} of its {values} values are different"
                return self._dropped(found, "free text: hardly a value is repeated", warning)
        if not frequent:
            found.warn(f"is dropped as free text: every value is longer than {LONGEST_CATEGORY} characters")
            return found.dropped("free text: every value is very long")
        kept = frequent_enough(frequent, values)
        if not kept and found.asked is None:
            warning = f"is dropped as free text: none of its {distinct} values has {LEAST_ROWS} rows"
            return self._dropped(found, f"free text: no value has {LEAST_ROWS} rows", warning)
        kept = kept or frequent[:FEW_CATEGORIES]
        counts = tuple(rows for _, rows in kept)
        return Categorical(
            **found.known,
            categories=tuple(text for text, _ in kept),
            counts=counts,
            other=values - sum(counts),
        )


def rows_of(rows: Array, chosen: Array) -> int:
    """Adds up the rows (N,) of those texts that are chosen."""
    return int(pc.sum(rows.filter(chosen)).as_py() or 0)


def frequent_enough(frequent: Sequence[tuple[str, int]], values: int) -> list[tuple[str, int]]:
    """Chooses categories, out of texts with their counts, the most frequent first."""
    if len(frequent) <= FEW_CATEGORIES:
        return list(frequent)
    return [
        (text, rows)
        for rank, (text, rows) in enumerate(frequent)
        if rows >= LEAST_ROWS and (rank < FEW_CATEGORIES or rows >= LEAST_SHARE * values)
    ]


class TimestampSummary(Summary):
    """Of moments.

    Arguments:
        hashes: How many values are told apart exactly.
    """

    def __init__(self, hashes: int) -> None:
        self._rows = self._nulls = 0
        self._range: tuple[int, int] | None = None
        self._times: tuple[int, int] = (DAY, -1)  # the least and the largest time of a day
        self._days: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._rows_of_days: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._distinct = Distinct(hashes)

    def add(self, cells: Array, place: Place) -> None:
        """Takes plain cells (N,)."""
        values, null = moments_of(cells, place)
        self._rows += len(values)
        self._nulls += int(np.count_nonzero(null))
        present = values[~null]
        if not len(present):
            return
        first, last = int(present.min()), int(present.max())
        self._range = (first, last) if self._range is None else (min(first, self._range[0]), max(last, self._range[1]))
        days, times = np.divmod(present, DAY)
        self._times = (min(int(times.min()), self._times[0]), max(int(times.max()), self._times[1]))
        new, rows = np.unique(days, return_counts=True)
        self._days, places = np.unique(np.concatenate([self._days, new]), return_inverse=True)
        self._rows_of_days = np.bincount(places, np.concatenate([self._rows_of_days, rows])).astype(np.int64)
        self._distinct.add(hash_numbers(present))

    def column(self, found: Found) -> Column:
        """Returns a column of moments, or a dropped one."""
        found.nulls = self._nulls
        found.distinct = min(self._distinct.count, self._rows - self._nulls)
        if self._range is None:
            return found.dropped("all null")
        first, last = self._range
        if first == last and not self._nulls and found.asked is None:
            return found.dropped(f"constant: {iso(first)}")
        parts = tuple(self._parts(asked=found.asked is not None))
        if not parts:
            return found.dropped(
                f"timestamps from {iso(first)} to {iso(last)}: no part of day, week or year varies and comes again"
            )
        return Timestamp(
            **found.known,
            minimum=iso(first),
            maximum=iso(last),
            parts=parts,
        )

    def _parts(self, asked: bool) -> Iterable[str]:
        varies = {
            "time_of_day": self._times[0] < self._times[1],
            "day_of_week": len(np.unique(weekdays(self._days))) > 1,
            "day_of_year": len(np.unique(days_of_the_year(self._days))) > 1,
        }
        below = np.cumsum(self._rows_of_days)
        edges = np.searchsorted(below, [EDGE * below[-1], (1 - EDGE) * below[-1]])
        first, last = self._days[edges]
        for part, days in DAYS_FOR.items():
            if varies[part] and (asked or last - first >= days):
                yield part


class LabelSummary(Summary):
    """Of labels.

    Arguments:
        texts: How many different ones are counted.
    """

    def __init__(self, texts: int) -> None:
        self._nulls = 0
        self._counts = Counts(texts)

    def add(self, cells: Array, place: Place) -> None:
        """Takes plain cells (N,)."""
        cells = text_of(cells, place)
        self._nulls += cells.null_count
        counted = cells.drop_null().value_counts()
        self._counts.add(counted.field(0), counted.field(1))

    def column(self, found: Found) -> Column:
        """Returns a dropped column."""
        found.nulls, found.distinct = self._nulls, len(self._counts)
        return found.dropped("label")

    def label(self, column: str, anomaly: str | None, source: str, warnings: list[str]) -> Label:
        """Returns which value is the anomaly's.

        Arguments:
            column: The label's name.
            anomaly: The value that is asked for, if any.
            source: The table's name.
            warnings: Takes one more, if the choice needs one.

        Raises:
            TableError: There are other than two values, nulls, or two values neither of which can be chosen.
        """
        where = f"{source}: label column {quote(column)}"
        rows = dict(self._counts.most_frequent())
        if len(rows) != 2:
            have = ", ".join(f"{quote(value)} ({count} rows)" for value, count in list(rows.items())[:10])
            more = ", ..." if len(rows) > 10 else ""
            raise TableError(f"{where} has {have or 'no values'}{more}, expected two values, for normal and anomaly")
        if self._nulls:
            raise TableError(f"{where} has {self._nulls} nulls, expected a label for every row")
        if anomaly is not None and anomaly not in rows:
            raise TableError(f"{where} has the values {listed(rows)}, and the anomaly is to be {quote(anomaly)}")
        if anomaly is None:
            anomaly = known_anomaly(list(rows))
        if anomaly is None:
            common, anomaly = rows
            if rows[common] == rows[anomaly]:
                raise TableError(f"{where} has {listed(rows)} equally often; say which is the anomaly's")
            warnings.append(f"{where}: {quote(anomaly)} is rarer than {quote(common)} and taken for the anomaly")
        (normal,) = (value for value in rows if value != anomaly)
        if rows[anomaly] > rows[normal]:
            warnings.append(f"{where}: most rows, {rows[anomaly]}, are anomalies")
        return Label(
            column=column, normal=normal, anomaly=anomaly, normal_rows=rows[normal], anomaly_rows=rows[anomaly]
        )


def known_anomaly(values: Sequence[str]) -> str | None:
    """Returns which of two labels is a word for anomalies while the other is one for normal rows, or None."""
    first, second = ((value, value.strip().lower().rstrip(".")) for value in values)
    for (anomaly, a), (_, b) in ((first, second), (second, first)):
        if a in ANOMALY_WORDS and b in NORMAL_WORDS:
            return anomaly
    return None
