"""Parquet and Arrow (Feather) files, which know their columns' types."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from training.tables.base import Table, can_t_be_read, check_rows, plain_schema
from training.tables.errors import TableError
from training.tables.values import Batch

READ_AHEAD, LEAST_READ_AHEAD = 2**16, 2**12
"""Bytes of a Parquet file's column that are read at once, of few columns and of very many."""

READ_AHEAD_IN_ALL = 2**26

PARQUET = b"PAR1"

ARROW_FILE = b"ARROW1"
"""What an Arrow file begins with, and an Arrow stream doesn't."""

FEATHER_1 = b"FEA1"


class ParquetTable(Table):
    """A Parquet file, of which a few pages of each column are in memory at a time.

    Arguments:
        path: The file.

    Raises:
        TableError: The file is broken or is no table.
    """

    def __init__(self, path: Path) -> None:
        self.source = str(path)
        self._path = path
        with readable(path, "Parquet"):
            check_ends(path, PARQUET, "Parquet")
            with pq.ParquetFile(str(path)) as file:
                self.rows = file.metadata.num_rows
                self.schema = plain_schema(file.schema_arrow, self.source)
        check_rows(self.rows, self.source)

    def _read(self, columns: Sequence[str], rows: int) -> Iterator[Batch]:
        share = READ_AHEAD_IN_ALL // max(1, len(columns))
        ahead = min(READ_AHEAD, max(LEAST_READ_AHEAD, share))
        with (
            readable(self._path, "Parquet"),
            pq.ParquetFile(str(self._path), pre_buffer=False, buffer_size=ahead) as file,
        ):
            for batch in file.iter_batches(rows, columns=list(columns), use_threads=True):
                yield batch.select(list(columns))


class ArrowFileTable(Table):
    """An Arrow file (Feather version 2) or stream, of which one of its own batches is in memory at a time.

    Arguments:
        path: The file.

    Raises:
        TableError: The file is broken or is no table.
    """

    def __init__(self, path: Path) -> None:
        self.source = str(path)
        self._path = path
        with readable(path, "Arrow"):
            check_arrow(path)
            with self._open() as reader:
                self.schema = plain_schema(reader.schema, self.source)
                self.rows = sum(batch.num_rows for batch in batches_of(reader))
        check_rows(self.rows, self.source)

    def _open(self, fields: Sequence[int] | None = None) -> Any:  # noqa: ANN401
        source = pa.memory_map(str(self._path))
        is_file = source.read(len(ARROW_FILE)) == ARROW_FILE
        source.seek(0)
        options = pa.ipc.IpcReadOptions(included_fields=fields)
        return (pa.ipc.open_file if is_file else pa.ipc.open_stream)(source, options=options)

    def _read(self, columns: Sequence[str], rows: int) -> Iterator[Batch]:  # noqa: ARG002 - batches are as written
        fields = [self.schema.get_field_index(name) for name in columns]
        with readable(self._path, "Arrow"), self._open(fields) as reader:
            for batch in batches_of(reader):
                chosen = batch.select(list(columns))
                chosen.validate(full=True)
                yield chosen


def batches_of(reader: Any) -> Iterator[Batch]:  # noqa: ANN401
    """Reads the batches of an Arrow file or stream."""
    if hasattr(reader, "num_record_batches"):
        for i in range(reader.num_record_batches):
            yield reader.get_batch(i)
    else:
        yield from reader


def check_arrow(path: Path) -> None:
    """Checks what an Arrow file begins and ends with; streams tell when they are read.

    Raises:
        TableError: The file is empty, cut short or of an older format.
    """
    with path.open("rb") as file:
        head = file.read(len(ARROW_FILE))
    if not head:
        raise TableError(f"{path}: is empty")
    if head.startswith(FEATHER_1):
        raise TableError(f"{path}: is Feather version 1, expected version 2; write it anew with a recent library")
    if head == ARROW_FILE:
        check_ends(path, ARROW_FILE, "Arrow")


def check_ends(path: Path, magic: bytes, kind: str) -> None:
    """Checks what a file begins and ends with.

    Raises:
        TableError: It is empty, is of another kind or is cut short.
    """
    size = path.stat().st_size
    if not size:
        raise TableError(f"{path}: is empty")
    with path.open("rb") as file:
        if file.read(len(magic)) != magic:
            raise TableError(f"{path}: is no {kind} file")
        file.seek(max(len(magic), size - len(magic)))
        if file.read() != magic:
            raise TableError(f"{path}: is cut short: it doesn't end with {magic.decode()}, as {kind} files do")


@contextmanager
def readable(path: Path, kind: str) -> Iterator[None]:
    """Says which file it was that could not be read."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno:
            raise TableError(f"{path}: can't be read ({os.strerror(error.errno)})") from error
        if kind == "Arrow" and "Expected to be able to read" in str(error):
            raise TableError(f"{path}: is cut short: {error}") from error
        raise can_t_be_read(path, kind, error) from error
