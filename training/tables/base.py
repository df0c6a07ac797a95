"""What all tables have in common, whatever file they come from."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from training.tables.errors import TableError, UnknownColumn, listed
from training.tables.values import ArrowSchema, Batch, Place, plain, plain_type

MOST_COLUMNS = 2**16
"""Columns that a manifest may have."""

LEAST_ROWS = 2

BATCH_ROWS = 2**16

BATCH_CELLS = 2**23
"""A batch has at most so many cells, 64 MiB of numbers, so that many columns make it short."""

Observer = Callable[[int], None]
"""Is told how many rows are done."""


class Table(ABC):
    """Rows that can be read as often as wanted.

    Attributes:
        source: The table's name in errors.
        schema: The columns' names, and the plain types that batches have: numbers, booleans, text, timestamps or null.
            Types that can't be used are as in the file.
        rows: The number of rows.
        label: The column that the file's format has for labels, if any.
        warnings: What a user should know about the file.
    """

    source: str
    schema: ArrowSchema
    rows: int
    label: str | None = None
    warnings: tuple[str, ...] = ()

    def batches(self, columns: Sequence[str] | None = None, rows: int = BATCH_ROWS) -> Iterator[Batch]:
        """Reads the table from its beginning, in batches of plain types.

        Arguments:
            columns: Names of the columns to read, in the order that batches shall have; all unless given.
            rows: The most rows of a batch. It has fewer where it would have more than `BATCH_CELLS` cells.

        Yields:
            `pyarrow.RecordBatch` of at least one row.

        Raises:
            TableError: A column isn't there or has a type that can't be used, or the file is broken.
        """
        if columns is None:
            columns = self.schema.names
        known = set(self.schema.names)
        for name in columns:
            if name not in known:
                raise UnknownColumn(self.source, "columns", name, self.schema.names)
        rows = max(1, min(rows, BATCH_CELLS // max(1, len(columns))))
        first_row = 0
        for batch in self._read(columns, rows):
            for start in range(0, batch.num_rows, rows):
                part = batch.slice(start, rows)
                yield pa.RecordBatch.from_arrays(
                    [plain(part[i], Place(self.source, name, first_row)) for i, name in enumerate(columns)],
                    names=list(columns),
                )
                first_row += part.num_rows

    @abstractmethod
    def _read(self, columns: Sequence[str], rows: int) -> Iterator[Batch]:
        """Reads columns, in batches of about so many rows and of any type."""


class ArrowTable(Table):
    """A `pyarrow.Table` that lies in memory.

    Arguments:
        table: The table.
        source: Its name in errors.
        fewest: Rows that it has to have, at least.

    Raises:
        TableError: Its columns' names are empty or repeated, or it has too many columns or too few rows.
    """

    def __init__(self, table: pa.Table, source: str = "table", fewest: int = LEAST_ROWS) -> None:
        self.source = source
        self.schema = plain_schema(table.schema, source)
        self.rows = table.num_rows
        self._table = table
        check_rows(self.rows, source, fewest)

    def _read(self, columns: Sequence[str], rows: int) -> Iterator[Batch]:
        yield from self._table.select(list(columns)).to_batches(max_chunksize=rows)


def plain_schema(schema: ArrowSchema, source: str) -> ArrowSchema:
    """Returns a table's columns with their plain types.

    Raises:
        TableError: Names are empty or repeated, or there are too many columns or none.
    """
    check_names(schema.names, source)
    return pa.schema([(field.name, plain_type(field.type)) for field in schema])


def check_width(columns: int, source: str) -> None:
    """Checks the number of columns.

    Raises:
        TableError: There are too many, or none.
    """
    if not columns:
        raise TableError(f"{source}: has no columns")
    if columns > MOST_COLUMNS:
        raise TableError(f"{source}: has {columns} columns, expected at most {MOST_COLUMNS}")


def check_names(names: Sequence[str], source: str) -> None:
    """Checks the columns' names.

    Raises:
        TableError: Names are empty or repeated, or there are too many columns or none.
    """
    check_width(len(names), source)
    for place, name in enumerate(names):
        if not name.strip():
            raise TableError(
                f"{source}: the name of column {place} (counted from 0) is empty, expected a name for every column"
                " (pandas writes its index without a name; index=False leaves it out)"
            )
    if repeated := {name: count for name, count in Counter(names).items() if count > 1}:
        times = max(repeated.values())
        raise TableError(
            f"{source}: {listed(repeated)} stands over up to {times} columns, expected a different name for each"
        )


def check_rows(rows: int, source: str, fewest: int = LEAST_ROWS) -> None:
    """Checks that there are rows.

    Raises:
        TableError: There are none, or fewer than the fewest.
    """
    if not rows:
        raise TableError(f"{source}: has names of columns but no rows")
    if rows < fewest:
        raise TableError(f"{source}: has one row, expected at least {fewest}")


def can_t_be_read(path: Path, kind: str, error: BaseException) -> TableError:
    """Returns an error for a file that a library refuses."""
    text = " ".join(str(error).split())
    return TableError(f"{path}: is no {kind} file that can be read: {text[:300]}")


def names_of(count: int) -> list[str]:
    """Names the columns of a matrix."""
    return [f"x{i}" for i in range(count)]
