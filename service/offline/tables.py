"""Tables in files: which there are, what columns they have, and their rows in batches of a bounded size."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from glob import glob, has_magic
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from service.offline.errors import OfflineError
from service.quotes import shorten

Batch = Any
"""A `pyarrow.RecordBatch`; pyarrow has no types."""

Schema = Any
"""A `pyarrow.Schema`."""

CSV_BLOCK = 2**22
"""Bytes of CSV that are read at once; no line may be longer."""

READ_AHEAD = 2**16
"""Bytes of a Parquet file's column that are read at once."""

ARROW_FILE = b"ARROW1"
"""What an Arrow file begins with, and an Arrow stream doesn't."""


@dataclass(frozen=True)
class Part:
    """A table, or a run of its rows that can be read alone.

    Attributes:
        file: The table.
        pieces: The first row group or record batch, and the one behind the last; None for the whole table.
        first_row: Where in the table the part begins; rows count from 0.
        rows: The number of its rows, or None if only reading would tell.
    """

    file: str
    pieces: tuple[int, int] | None = None
    first_row: int = 0
    rows: int | None = None


@dataclass(frozen=True)
class Format:
    """A format of tables.

    Attributes:
        name: What errors call it.
        text: Whether every value is text, as it stands in the file.
        schema: Returns the columns of a file.
        batches: Reads some columns of a part, in batches of at most so many rows.
        sizes: Returns the rows of each piece that can be read alone, or None if the table is all one piece.
    """

    name: str
    text: bool
    schema: Callable[[str], Schema]
    batches: Callable[[Part, Sequence[str], int], Iterator[Batch]]
    sizes: Callable[[str], list[int] | None]


def find_tables(inputs: Sequence[str]) -> list[tuple[Path, Path]]:
    """Returns the tables that files, patterns and folders stand for, each with its name relative to the folder given.

    Folders are searched for all formats, by way of links, too; hidden entries and those that begin with ``_`` are no
    tables. What is given twice counts once.

    Raises:
        OfflineError: Something is not there, has no table in it, is of no known format, or leads back to itself.
    """
    found: dict[Path, Path] = {}
    for text in inputs:
        given = Path(text)
        matches = [given]
        if not given.exists() and has_magic(text):
            matches = [Path(match) for match in sorted(glob(text, recursive=True))]  # noqa: PTH207 - of a whole path
            if "**" in text:  # it has found what is in the folders, too
                matches = [path for path in matches if not path.is_dir()]
            if not matches:
                raise OfflineError(f"{text}: no file matches")
        for path, name in (table for match in matches for table in _tables_of(match)):
            format_of(path)
            found.setdefault(path.absolute(), name)
    return list(found.items())


def format_of(path: str | Path) -> Format:
    """Returns the format of a file, by its name.

    Raises:
        OfflineError: There is none of that name.
    """
    name = Path(path).name.lower()
    for suffix, one in FORMATS.items():
        if name.endswith(suffix):
            return one
    raise OfflineError(f"{path}: the name says nothing that is known of its format, expected {', '.join(FORMATS)}")


def stem_of(name: Path) -> Path:
    """Returns a table's name without what says its format."""
    suffix = next(suffix for suffix in FORMATS if name.name.lower().endswith(suffix))
    return name.with_name(name.name[: -len(suffix)])


def schema_of(file: str) -> Schema:
    """Returns the columns of a table; all those of a CSV file are text.

    Raises:
        OfflineError: The file can't be read.
    """
    one = format_of(file)
    with readable(file, one):
        return one.schema(file)


def read(part: Part, columns: Sequence[str], rows: int) -> Iterator[Batch]:
    """Reads some columns of a part, in batches of at most so many rows.

    Raises:
        OfflineError: The file can't be read.
    """
    one = format_of(part.file)
    with readable(part.file, one):
        for batch in one.batches(part, columns, rows):
            for start in range(0, batch.num_rows, rows):
                yield batch.slice(start, rows)


def divide(file: str, rows: int) -> list[Part]:
    """Divides a table into parts of so many rows or a little more, where its format allows for it.

    Raises:
        OfflineError: The file can't be read.
    """
    one = format_of(file)
    with readable(file, one):
        sizes = one.sizes(file)
    if sizes is None:
        return [Part(file)]
    parts: list[Part] = []
    first_piece = first_row = held = 0
    for piece, size in enumerate(sizes):
        held += size
        if held >= rows or piece == len(sizes) - 1:
            parts.append(Part(file, (first_piece, piece + 1), first_row, held))
            first_piece, first_row, held = piece + 1, first_row + held, 0
    return parts or [Part(file)]


def rows_of(part: Part) -> int | None:
    """Returns the number of a part's rows, None if only reading would tell.

    Raises:
        OfflineError: The file can't be read.
    """
    if part.rows is not None:
        return part.rows
    one = format_of(part.file)
    with readable(part.file, one):
        sizes = one.sizes(part.file)
    return None if sizes is None else sum(sizes)


@contextmanager
def readable(file: str, one: Format) -> Iterator[None]:
    """Says which file it was that could not be read."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno:
            raise OfflineError(f"{file}: can't be read ({os.strerror(error.errno)})") from error
        text = shorten(" ".join(str(error).split()), 300)
        raise OfflineError(f"{file}: is no {one.name} file that can be read: {text}") from error


def _tables_of(given: Path) -> list[tuple[Path, Path]]:
    """Returns a file, or the tables in a folder and in all that it leads to, with their names relative to it."""
    if not given.exists():
        raise OfflineError(f"{given}: there is no such file")
    if not given.is_dir():
        return [(given, Path(given.name))]
    tables = sorted(_walk(given, frozenset()))
    if not tables:
        raise OfflineError(f"{given}: there is no table in this folder, expected {', '.join(FORMATS)}")
    return [(path, path.relative_to(given)) for path in tables]


def _walk(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    here = folder.resolve()
    if here in above:
        raise OfflineError(f"{folder}: leads back to {here}, which it lies in")
    for path in folder.iterdir():
        if path.name.startswith((".", "_")):
            continue
        if path.is_dir():
            yield from _walk(path, above | {here})
        elif path.name.lower().endswith(tuple(FORMATS)) and path.is_file():
            yield path


def _open_parquet(file: str) -> Any:  # noqa: ANN401
    return pq.ParquetFile(file, pre_buffer=False, buffer_size=READ_AHEAD)


def _parquet_schema(file: str) -> Schema:
    with _open_parquet(file) as table:
        return table.schema_arrow


def _parquet_batches(part: Part, columns: Sequence[str], rows: int) -> Iterator[Batch]:
    with _open_parquet(part.file) as table:
        groups = None if part.pieces is None else range(*part.pieces)
        yield from table.iter_batches(rows, row_groups=groups, columns=list(columns), use_threads=True)


def _parquet_sizes(file: str) -> list[int]:
    with _open_parquet(file) as table:
        return [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]


def _open_csv(file: str, columns: Sequence[str] | None = None, types: dict[str, Any] | None = None) -> Any:  # noqa: ANN401
    delimiter = "\t" if format_of(file) is TSV else ","
    return pyarrow.csv.open_csv(
        file,
        read_options=pyarrow.csv.ReadOptions(block_size=CSV_BLOCK, use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=columns, column_types=types, strings_can_be_null=False, check_utf8=True
        ),
    )


def _csv_schema(file: str) -> Schema:
    with _open_csv(file) as table:
        names = table.schema.names
    return pa.schema([(name, pa.string()) for name in names])


def _csv_batches(part: Part, columns: Sequence[str], _: int) -> Iterator[Batch]:
    with _open_csv(part.file, list(columns), dict.fromkeys(columns, pa.string())) as table:
        yield from table


def _open_arrow(file: str) -> tuple[Any, bool]:
    source = pa.memory_map(file)
    is_file = source.read(len(ARROW_FILE)) == ARROW_FILE
    source.seek(0)
    return (pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)), is_file


def _arrow_schema(file: str) -> Schema:
    with _open_arrow(file)[0] as table:
        return table.schema


def _arrow_batches(part: Part, columns: Sequence[str], _: int) -> Iterator[Batch]:
    table, is_file = _open_arrow(part.file)
    with table:
        if not is_file:
            yield from (_checked(batch, columns) for batch in table)
            return
        for piece in range(*(part.pieces or (0, table.num_record_batches))):
            yield _checked(table.get_batch(piece), columns)


def _checked(batch: Batch, columns: Sequence[str]) -> Batch:
    selected = batch.select(list(columns))
    selected.validate(full=True)
    return selected


def _arrow_sizes(file: str) -> list[int] | None:
    table, is_file = _open_arrow(file)
    with table:
        return [table.get_batch(piece).num_rows for piece in range(table.num_record_batches)] if is_file else None


PARQUET = Format("Parquet", False, _parquet_schema, _parquet_batches, _parquet_sizes)
CSV = Format("CSV", True, _csv_schema, _csv_batches, lambda _: None)
TSV = replace(CSV, name="TSV")
ARROW = Format("Arrow", False, _arrow_schema, _arrow_batches, _arrow_sizes)

FORMATS = {
    ".parquet": PARQUET,
    ".csv": CSV,
    ".csv.gz": CSV,
    ".tsv": TSV,
    ".tsv.gz": TSV,
    ".arrow": ARROW,
    ".arrows": ARROW,
    ".feather": ARROW,
}
"""The formats by what ends the names of their files."""
