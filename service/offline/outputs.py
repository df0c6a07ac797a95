"""Scored tables as Parquet files that are there whole or not at all, and say what they were made of."""

import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from service.offline.errors import OfflineError
from service.offline.tables import Batch, Schema
from service.quotes import describe, shorten

SCORE, ANOMALY, P_VALUE, FILE, ROW = "score", "anomaly", "p_value", "file", "row"

COUNTS = "counts"
"""What a finished file's metadata calls its counts."""

UNFINISHED = ".unfinished"

UMASK = os.umask(0o077)
"""The rights that this process's files don't have; it can only be read by setting it."""
os.umask(UMASK)

ROWS_TOGETHER, BYTES_TOGETHER = 2**17, 2**26
"""How much is collected before it is written as a row group, whichever comes first."""


@dataclass(frozen=True)
class Counts:
    """What was found in rows.

    Attributes:
        rows: Rows, the bad ones among them.
        anomalies: Rows whose score is the threshold or more.
        bad_rows: Rows without a score, for a value is no finite number.
        values_outside_training_range: Values of scored rows beyond those that the model was fitted on.
        unseen_categories: Categories of scored rows that the model doesn't know.
    """

    rows: int = 0
    anomalies: int = 0
    bad_rows: int = 0
    values_outside_training_range: int = 0
    unseen_categories: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        """Returns the counts of both."""
        return Counts(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))


class Writer:
    """Writes a scored table.

    Arguments:
        path: The file.
        name: What errors call it.
        schema: Its columns.

    Raises:
        OfflineError: The file can't be written, or Parquet has no such columns.
    """

    def __init__(self, path: Path, name: Path, schema: Schema) -> None:
        self._name, self._schema = name, schema
        with writable(name):
            texts = [field.name for field in schema if not pa.types.is_primitive(field.type)]  # numbers rarely repeat
            self._writer = pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=texts)
        self._held: list[Batch] = []
        self._rows = self._bytes = 0

    def write(self, batch: Batch) -> None:
        """Adds rows.

        Raises:
            OfflineError: The file can't be written.
        """
        self._held.append(batch)
        self._rows += batch.num_rows
        self._bytes += batch.nbytes
        if self._rows >= ROWS_TOGETHER or self._bytes >= BYTES_TOGETHER:
            self._flush()

    def close(self, counts: Counts) -> None:
        """Ends the file, and notes what was found in its rows.

        Raises:
            OfflineError: The file can't be written.
        """
        self._flush()
        with writable(self._name):
            self._writer.add_key_value_metadata({COUNTS: json.dumps(asdict(counts))})
            self._writer.close()

    def abandon(self) -> None:
        """Lets go of a file that is not finished, whose content is worth nothing."""
        self._held.clear()
        with suppress(pa.ArrowException, OSError):  # the disk may be full
            self._writer.close()

    def _flush(self) -> None:
        if self._held:
            with writable(self._name):
                self._writer.write_table(pa.Table.from_batches(self._held, self._schema))
        self._held.clear()
        self._rows = self._bytes = 0


@contextmanager
def writing(path: Path, schema: Schema) -> Iterator[Writer]:
    """Opens a file that gets its name once its writer is closed; if anything goes wrong, nothing is left of it.

    Raises:
        OfflineError: The file can't be written.
    """
    with writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(UNFINISHED, f".{path.name}.", path.parent)
        os.close(number)
    unfinished = Path(name)
    try:
        writer = Writer(unfinished, path, schema)
        try:
            yield writer
        except BaseException:
            writer.abandon()
            raise
        with writable(path):
            _store(unfinished)
            unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Says which file it was that could not be written."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        reason = shorten(" ".join(str(error).split()), 200)
        if isinstance(error, OSError) and error.errno:
            reason = os.strerror(error.errno)
        raise OfflineError(f"{path}: can't be written ({reason})") from error


def output_schema(kept: Sequence[Any], metadata: Mapping[str, str], p_values: bool = False) -> Schema:
    """Returns the columns of a scored table: those kept, the score, whether it is an anomaly's, and its p-value."""
    added = [(SCORE, pa.float64()), (ANOMALY, pa.bool_()), *([(P_VALUE, pa.float64())] if p_values else [])]
    return pa.schema([*kept, *added], metadata)


def finished(path: Path, metadata: Mapping[str, str]) -> Counts:
    """Returns the counts of a file that an earlier run has written.

    Raises:
        OfflineError: It can't be read, or was made by another model, of other rows, or with other options.
    """
    try:
        found = pq.read_metadata(path).metadata
        texts = {name.decode(): value.decode() for name, value in found.items() if name != b"ARROW:schema"}
        counts = Counts(**json.loads(texts.pop(COUNTS)))
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise OfflineError(f"{path}: is there already, and was not written by this command") from error
    for name, value in metadata.items():
        if texts.get(name) != value:
            raise OfflineError(
                f"{path}: was written with {name} {describe(texts.get(name))}, expected {describe(value)};"
                " remove it, or choose another --out"
            )
    return counts


def clear_unfinished(paths: Iterable[Path]) -> None:
    """Removes what is left of files whose writer was killed."""
    names: dict[Path, set[str]] = defaultdict(set)
    for path in paths:
        names[path.parent].add(path.name)
    for folder, expected in names.items():
        for entry in folder.glob(f".*{UNFINISHED}"):
            if entry.name[1:].rsplit(".", 2)[0] in expected:
                entry.unlink(missing_ok=True)


def _store(path: Path) -> None:
    """Gives a file the usual rights, and waits until it is on the disk: its name stands for all of it or nothing."""
    path.chmod(0o666 & ~UMASK)
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
