"""Small tables, written in every format."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from training.tables.base import ArrowTable, Table
from training.tables.errors import TableError
from training.tables.reading import open_table

Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file and returns its path; what ends with .gz is gzipped if it is text."""

    def written(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") and isinstance(content, str) else data)
        return path

    return written


def save(table: pa.Table, path: Path, piece: int = 1000) -> Path:
    """Writes a table in the format of its name."""
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=piece)
    elif path.suffix == ".feather":
        pyarrow.feather.write_feather(table, str(path), chunksize=piece)
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        new = pa.ipc.new_stream if path.suffix == ".arrows" else pa.ipc.new_file
        with new(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=piece)
    return path


def read(table: Table, columns: list[str] | None = None, rows: int = 2**16) -> dict[str, list[object]]:
    """Reads all of a table."""
    found: pa.Table = pa.Table.from_batches(list(table.batches(columns, rows)))
    columns_read: dict[str, list[object]] = found.to_pydict()
    return columns_read


def in_memory(**columns: object) -> ArrowTable:
    """Makes a table of lists or arrays."""
    return ArrowTable(pa.table({name: pa.array(values) for name, values in columns.items()}))


def error_of(path: Path, delimiter: str | None = None) -> str:
    """Opens and reads a table that is broken, and returns what is said of it, without the folder's name."""
    with pytest.raises(TableError) as raised:
        read(open_table(path, delimiter))
    text = str(raised.value)
    assert str(path) in text
    return text.replace(f"{path.parent}/", "")
