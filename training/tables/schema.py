"""What the columns of a table are, and which of them a model is fitted on."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import ClassVar

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from training.tables.errors import quote, shorten

MOST_PRINTED = 100
"""Columns that are printed; the file has them all."""

MOST_CATEGORIES_PRINTED = 4

PARTS = ("time_of_day", "day_of_week", "day_of_year")


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its name.
        type: The Arrow type it was read as.
        nulls: The rows that have no value there. If there are any, a null is allowed in later rows, and else refused.
        distinct: How many different values there are; of many it is an estimate, to about one in a hundred.
    """

    kind: ClassVar[str]

    name: str
    type: str
    nulls: int
    distinct: int

    def summary(self) -> str:
        """Says in a few words what values it has."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Dropped(Column):
    """A column that no model is fitted on.

    If it was to be dropped from the start, it was not read, and `nulls` and `distinct` are 0.

    Attributes:
        reason: Why not.
    """

    kind = "dropped"

    reason: str

    def summary(self) -> str:
        """Says why it is dropped."""
        return self.reason


@dataclass(frozen=True, kw_only=True)
class Used(Column):
    """A column that models are fitted on."""

    @property
    def width(self) -> int:
        """How many columns of numbers it becomes, at most."""
        return 2


@dataclass(frozen=True, kw_only=True)
class Numeric(Used):
    """A column of numbers.

    Attributes:
        minimum: The smallest.
        maximum: The largest.
        mean: Their mean.
        std: Their standard deviation.
    """

    kind = "numeric"

    minimum: float
    maximum: float
    mean: float
    std: float

    def summary(self) -> str:
        """Tells range, mean and standard deviation."""
        return f"{self.minimum:.6g} to {self.maximum:.6g}, mean {self.mean:.6g}, std {self.std:.6g}"


@dataclass(frozen=True, kw_only=True)
class Boolean(Used):
    """A column of true and false.

    Attributes:
        true: The rows where it is true.
    """

    kind = "boolean"

    true: int

    def summary(self) -> str:
        """Tells how many are true."""
        return f"true in {self.true} rows"


@dataclass(frozen=True, kw_only=True)
class Categorical(Used):
    """A column of categories, as text.

    Attributes:
        categories: Those that a model knows. All others are one, ``<other>``.
        counts: The rows that have each.
        other: The rows that have another.
    """

    kind = "categorical"

    categories: tuple[str, ...]
    counts: tuple[int, ...]
    other: int

    @property
    def width(self) -> int:
        """How many columns of numbers it becomes, at most."""
        return len(self.categories) + 2

    def summary(self) -> str:
        """Names a few categories."""
        named = islice(zip(self.categories, self.counts, strict=True), MOST_CATEGORIES_PRINTED)
        shown = [f"{shorten(name, 20)} ({count})" for name, count in named]
        if len(self.categories) > len(shown):
            shown.append(f"{len(self.categories) - len(shown)} more")
        if self.other:
            shown.append(f"<other> ({self.other})")
        return ", ".join(shown)


@dataclass(frozen=True, kw_only=True)
class Timestamp(Used):
    """A column of moments.

    Attributes:
        minimum: The earliest, in ISO 8601 and UTC.
        maximum: The latest.
        parts: What a model is told of a moment: ``time_of_day``, ``day_of_week``, ``day_of_year``, in this order.
    """

    kind = "timestamp"

    minimum: str
    maximum: str
    parts: tuple[str, ...]

    @property
    def width(self) -> int:
        """How many columns of numbers it becomes, at most."""
        return 2 * len(self.parts) + 1

    def summary(self) -> str:
        """Tells range and parts."""
        return f"{self.minimum} to {self.maximum}: {', '.join(self.parts)}"


KINDS: dict[str, type[Column]] = {one.kind: one for one in (Numeric, Boolean, Categorical, Timestamp, Dropped)}


@dataclass(frozen=True, kw_only=True)
class Label:
    """The column that says which rows are anomalies.

    Attributes:
        column: Its name.
        normal: What normal rows have there, as text.
        anomaly: What anomalies have there.
        normal_rows: The number of the former.
        anomaly_rows: The number of the latter.
    """

    column: str
    normal: str
    anomaly: str
    normal_rows: int
    anomaly_rows: int


@dataclass(frozen=True, kw_only=True)
class Schema:
    """What the columns of a table are.

    Attributes:
        source: The table's name.
        rows: The number of its rows.
        columns: All its columns, in their order.
        label: The labels, if there are any.
        warnings: What a user should know; they don't count when two schemas are compared, and files don't keep them.
    """

    source: str
    rows: int
    columns: tuple[Column, ...]
    label: Label | None = None
    warnings: tuple[str, ...] = field(default=(), compare=False)

    @property
    def used(self) -> list[Used]:
        """The columns that models are fitted on."""
        return [column for column in self.columns if isinstance(column, Used)]

    @property
    def dropped(self) -> list[Dropped]:
        """The columns that they are not fitted on."""
        return [column for column in self.columns if isinstance(column, Dropped)]

    @property
    def ignored(self) -> list[str]:
        """The names of the latter, as the manifest lists them."""
        return [column.name for column in self.dropped]


def show(schema: Schema, console: Console) -> None:
    """Prints a schema: its columns as a table, and a line for each that is dropped and each warning."""
    grid = Grid("column", "kind", "type", "nulls", "distinct", "values", title=f"{schema.source}: {schema.rows} rows")
    for column in schema.columns[:MOST_PRINTED]:
        counts = [f"{column.nulls}", f"{column.distinct}"]
        cells = [column.name, column.kind, column.type, *counts, column.summary()]
        grid.add_row(*(Text(shorten(cell, 120)) for cell in cells))
    console.print(grid)
    if len(schema.columns) > MOST_PRINTED:
        line(f"and {len(schema.columns) - MOST_PRINTED} more columns", console)
    for text in lines(schema):
        line(text, console)


def lines(schema: Schema) -> Iterable[str]:
    """Says what is dropped, which rows are anomalies, and what else a user should know."""
    for column in schema.dropped[:MOST_PRINTED]:
        yield f"dropped {quote(column.name)}: {column.reason}"
    if len(schema.dropped) > MOST_PRINTED:
        yield f"dropped {len(schema.dropped) - MOST_PRINTED} more columns"
    if (label := schema.label) is not None:
        yield (
            f"label {quote(label.column)}: {quote(label.anomaly)} is the anomaly ({label.anomaly_rows} rows),"
            f" {quote(label.normal)} is normal ({label.normal_rows} rows)"
        )
    yield from (f"warning: {warning}" for warning in schema.warnings)


def line(text: str, console: Console) -> None:
    """Prints a line as it is."""
    console.print(text, soft_wrap=True, highlight=False, markup=False)
