"""Delimited text: CSV, TSV and their like, plain or gzipped.

The first line has the columns' names. A column's type is what all its cells agree on: integers, numbers, booleans,
moments, or else text; `training.tables.values` has what counts as which. Digits that no integer would be written with,
such as 00123 or more than 18 of them, are codes, and a column of integers with codes among them is text.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from training.tables.base import BATCH_ROWS, Observer, Table, can_t_be_read, check_names, check_rows, check_width
from training.tables.errors import TableError, quote
from training.tables.values import (
    INTEGER,
    MOMENT,
    NUMBER,
    Array,
    ArrowType,
    Batch,
    as_booleans,
    as_integers,
    as_moments,
    as_numbers,
    clean,
)

DELIMITERS = {",": "a comma", "\t": "a tab", ";": "a semicolon", "|": "a bar", " ": "a space"}

SMALLEST_BLOCK, LARGEST_BLOCK = 2**22, 2**26
"""Bytes that are read at once; no line may be longer than the larger."""

BLOCK_LINES = 512
"""Lines that a block has room for, as long as it isn't the largest."""

HEAD_BYTES = 2**16
HEAD_LINES = 100
"""How much of a file is looked at to find the delimiter."""

LONGEST_INTEGER = 18
"""Digits that 64 bits hold, whichever they are."""

LEAST_SHARE_OF_NUMBERS = 0.05
"""Of the values of a text column, from where on it is mixed; a few codes happen to read like numbers."""

MAGIC = {
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive (as spreadsheets are)",
    b"\x1f\x8b": "gzipped",
    b"\x28\xb5\x2f\xfd": "compressed by Zstandard",
    b"BZh": "compressed by bzip2",
    b"SQLite format 3": "an SQLite database",
    codecs.BOM_UTF16_LE: "UTF-16, expected UTF-8",
    codecs.BOM_UTF16_BE: "UTF-16, expected UTF-8",
}
"""What files begin with that are no text."""


class TextTable(Table):
    """Delimited text.

    All of it is read once to find the types, and again for each iteration. Memory is bounded by a few blocks.

    Arguments:
        path: The file.
        delimiter: What stands between two cells; None if it has to be found.
        gzipped: Whether the file is.
        observe: Is told how many rows are read.

    Raises:
        TableError: The file is no such text, is broken, or is no table.
    """

    def __init__(self, path: Path, delimiter: str | None, gzipped: bool, observe: Observer | None = None) -> None:
        self.source = str(path)
        self._path = path
        self._gzipped = gzipped
        self._invalid: Any = None  # the row that pyarrow stopped at
        head, whole = self._head()
        lines = self._first_lines(head, whole)
        self._delimiter = delimiter or find_delimiter(lines)
        self._block = min(LARGEST_BLOCK, max(SMALLEST_BLOCK, BLOCK_LINES * 2 * longest_line(lines)))
        header = cells_of(lines, self._delimiter)[0]
        check_width(len(header), self.source)
        check_has_names(header, self.source)
        if len(header) == 1:
            check_delimiter(lines, self._delimiter, self.source)
        with self._ended(len(header)) as (stream, _):
            names = self._open(stream).schema.names
        check_names([name.strip() for name in names], self.source)
        self._raw_names = {name.strip(): name for name in names}
        scans = [Scan(name) for name in self._raw_names]
        self.rows = self._scan(scans, observe)
        check_rows(self.rows, self.source)
        self.schema = pa.schema([(scan.name, scan.type) for scan in scans])
        self.warnings = tuple(f"{self.source}: {warning}" for scan in scans if (warning := scan.warning()))

    def _read(self, columns: Sequence[str], rows: int) -> Iterator[Batch]:  # noqa: ARG002 - blocks are short
        types = [self.schema.field(name).type for name in columns]
        raw = [self._raw_names[name] for name in columns]
        with self._errors(), self._open(self._stream(), raw) as reader:
            for batch in reader:
                cells = [typed(clean(batch[i]), found) for i, found in enumerate(types)]
                yield pa.RecordBatch.from_arrays(cells, names=list(columns))

    def _stream(self) -> Any:  # noqa: ANN401
        return pa.input_stream(str(self._path), compression="gzip" if self._gzipped else None)

    def _open(self, stream: Any, columns: Sequence[str] | None = None) -> Any:  # noqa: ANN401
        names = columns if columns is not None else []
        return pyarrow.csv.open_csv(
            stream,
            read_options=pyarrow.csv.ReadOptions(block_size=self._block, use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=self._delimiter, newlines_in_values=True, invalid_row_handler=self._ragged
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=columns,
                column_types=dict.fromkeys(names, pa.string()),
                strings_can_be_null=False,
                check_utf8=True,
            ),
        )

    def _ragged(self, row: Any) -> str:  # noqa: ANN401
        self._invalid = row
        return "error"

    def _head(self) -> tuple[bytes, bool]:
        """Returns the beginning of the file, at least a line if none is too long, and whether that's all of it."""
        with self._errors(), self._stream() as stream:
            head = stream.read(HEAD_BYTES)
            while len(head) < LARGEST_BLOCK and b"\n" not in head.strip() and (more := stream.read(HEAD_BYTES)):
                head += more
            return head, not stream.read(1)

    def _first_lines(self, head: bytes, whole: bool) -> str:
        if not head.removeprefix(codecs.BOM_UTF8).strip():
            raise TableError(f"{self.source}: is empty")
        for magic, kind in MAGIC.items():
            if head.startswith(magic):
                raise TableError(f"{self.source}: is no text but {kind}")
        if b"\0" in head:
            raise TableError(f"{self.source}: is no text, there is a byte 0x00 at offset {head.index(0)}")
        if not whole:
            head = head[: max(head.rfind(b"\n"), head.rfind(b"\r")) + 1]
            if not head:
                raise TableError(f"{self.source}: its first line is longer than {LARGEST_BLOCK} bytes")
        try:
            return head.removeprefix(codecs.BOM_UTF8).decode().lstrip("\r\n")
        except UnicodeDecodeError:
            raise self._not_utf_8() from None

    def _scan(self, scans: Sequence["Scan"], observe: Observer | None) -> int:
        """Reads all rows, and returns their number."""
        raw = list(self._raw_names.values())
        rows, ended = 0, False
        with self._ended(len(raw)) as (stream, end), self._open(stream, raw) as reader:
            for batch in reader:
                if batch.num_rows and batch[0][-1].as_py() == end:
                    batch, ended = batch.slice(0, batch.num_rows - 1), True
                for start in range(0, batch.num_rows, BATCH_ROWS):
                    part = batch.slice(start, BATCH_ROWS)
                    for i, scan in enumerate(scans):
                        scan.add(clean(part[i]), rows)
                    rows += part.num_rows
                    if observe is not None:
                        observe(rows)
        if not ended:
            raise self._open_quote(rows - 1)
        return rows

    @contextmanager
    def _ended(self, columns: int) -> Iterator[tuple[Any, str]]:
        """Opens the file with one more row behind it, whose cells are all one text that is returned, too.

        To pyarrow a quotation mark that is never closed is none, and what follows it is a cell. Then this row doesn't
        come.
        """
        end = uuid4().hex
        stream = Ended(self._stream(), f"\n{self._delimiter.join([end] * columns)}\n".encode())
        with self._errors(end):
            yield pa.PythonFile(stream, mode="r"), end

    @contextmanager
    def _errors(self, end: str | None = None) -> Iterator[None]:
        """Says what is wrong with the file where pyarrow can't read on."""
        try:
            yield
        except UnicodeDecodeError:
            raise self._not_utf_8() from None
        except (pa.ArrowException, OSError) as error:
            text = str(error)
            if isinstance(error, OSError) and error.errno:
                raise TableError(f"{self.source}: can't be read ({error.strerror or text})") from error
            if "Truncated compressed stream" in text:
                raise TableError(f"{self.source}: is cut short: its gzip stream has no end") from error
            if "zlib" in text:
                raise TableError(f"{self.source}: is not gzipped, or broken: {text}") from error
            if "UTF8" in text:
                raise self._not_utf_8() from error
            if "straddling object" in text:
                raise TableError(
                    f"{self.source}: has a line, or a text between quotation marks, that is longer than {self._block}"
                    " bytes; is a quotation mark not closed?"
                ) from error
            if self._invalid is not None and "CSV parse error" in text:
                raise self._ragged_row(end) from error
            raise can_t_be_read(self._path, "text", error) from error

    def _ragged_row(self, end: str | None) -> TableError:
        row = self._invalid
        index = row.number - 2 if row.number is not None else None  # pyarrow counts from 1, and the names as well
        if end is not None and end in row.text:
            return self._open_quote(index)
        which = "a row" if index is None else f"row {index}"
        return TableError(
            f"{self.source}: {which} has {row.actual_columns} cells, expected {row.expected_columns}: {quote(row.text)}"
        )

    def _open_quote(self, row: int | None) -> TableError:
        which = "" if row is None else f" in row {row}"
        return TableError(f"{self.source}: is cut short: a quotation mark{which} is never closed")

    def _not_utf_8(self) -> TableError:
        """Looks for the first byte that is not UTF-8."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        lines = offset = 0
        with self._stream() as stream:
            chunk = b""
            try:
                while chunk := stream.read(2**20):
                    lines += decoder.decode(chunk).count("\n")
                    offset += len(chunk)
                decoder.decode(b"", final=True)
            except UnicodeDecodeError as error:
                kept = offset + len(chunk) - len(error.object)  # the chunk may begin with bytes kept of the last one
                lines += error.object[: error.start].count(b"\n")
                return TableError(
                    f"{self.source}: is not UTF-8: byte 0x{error.object[error.start]:02x} in line {lines + 1},"
                    f" at offset {kept + error.start}"
                )
        return TableError(f"{self.source}: is not UTF-8")


class Ended(io.RawIOBase):
    """A stream with something behind its end."""

    def __init__(self, stream: Any, end: bytes) -> None:  # noqa: ANN401
        self._stream = stream
        self._end = end

    def readable(self) -> bool:
        """Says that it can be read."""
        return True

    def read(self, size: int = 2**16) -> bytes:
        """Reads at most so many bytes, and what stands behind them at the end."""
        data: bytes = self._stream.read(size)
        if len(data) < size:
            room = size - len(data)
            data, self._end = data + self._end[:room], self._end[room:]
        return data


class Scan:
    """Finds the type of a column, from all its cells.

    Arguments:
        name: The column's name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._values = self._numbers = 0
        self._code: str | None = None  # digits that no integer would be written with
        self._other: tuple[int, str] | None = None  # the first cell that is no number
        self._fits = {"integer": self._are_integers, "number": _are_numbers, "boolean": _are(as_booleans)}
        self._fits["moment"] = _are_moments

    def add(self, cells: Array, first_row: int) -> None:
        """Takes clean cells (N,), the first of which stands in `first_row`."""
        present = cells.drop_null()
        if not len(present):
            return
        self._values += len(present)
        if "integer" in self._fits and self._are_integers(present):
            self._fits = {name: fits for name, fits in self._fits.items() if name in ("integer", "number")}
        else:
            self._fits = {name: fits for name, fits in self._fits.items() if name != "integer" and fits(present)}
        if "number" in self._fits:
            self._numbers += len(present)
        elif not self._fits or self._numbers:
            self._count_numbers(cells, first_row)

    def _count_numbers(self, cells: Array, first_row: int) -> None:
        matches = pc.fill_null(pc.match_substring_regex(cells, NUMBER), True)
        found = pc.sum(matches).as_py() - cells.null_count
        self._numbers += found
        if self._other is None and found < len(cells) - cells.null_count:
            position = pc.index(matches, False).as_py()
            self._other = (first_row + position, cells[position].as_py())

    @property
    def type(self) -> ArrowType:
        """The column's type so far."""
        if not self._values:
            return pa.null()
        if "integer" in self._fits:
            return pa.int64() if self._code is None else pa.string()
        if "number" in self._fits:
            return pa.float64()
        if "boolean" in self._fits:
            return pa.bool_()
        return MOMENT if "moment" in self._fits else pa.string()

    def warning(self) -> str | None:
        """Says so if there are numbers among text, or codes among integers."""
        if self.type == pa.string() and "integer" in self._fits:
            return f"column {quote(self.name)} is text: {quote(self._code)} is a code and no integer"
        mixed = self._numbers >= LEAST_SHARE_OF_NUMBERS * self._values
        if self.type != pa.string() or not mixed or self._other is None:
            return None
        row, text = self._other
        return (
            f"column {quote(self.name)} is text: {self._numbers} of its {self._values} values are numbers,"
            f" and {quote(text)} in row {row} is none"
        )

    def _are_integers(self, present: Array) -> bool:
        try:
            as_integers(present)
        except pa.ArrowInvalid:
            if not pc.all(pc.match_substring_regex(present, INTEGER)).as_py():
                return False
            codes = present.filter(pc.greater(pc.binary_length(present), LONGEST_INTEGER))
        else:
            codes = present.filter(pc.starts_with(present, "0"))
            codes = codes.filter(pc.greater(pc.binary_length(codes), 1))
            if pc.any(pc.match_substring_regex(codes, "[xX]")).as_py():
                return False  # to pyarrow hexadecimal digits are an integer
        if self._code is None and len(codes):
            self._code = codes[0].as_py()
        return True


def _are(read: Any) -> Any:  # noqa: ANN401
    def fits(present: Array) -> bool:
        try:
            read(present)
        except pa.ArrowInvalid:
            return False
        return True

    return fits


_are_numbers = _are(as_numbers)


def _are_moments(present: Array) -> bool:
    return len(present[0].as_py()) >= len("2026-01-31") and bool(_are(as_moments)(present))


def typed(cells: Array, found: ArrowType) -> Array:
    """Returns clean text as an array of the type that it was found to have."""
    if pa.types.is_null(found):
        return pa.nulls(len(cells))
    if pa.types.is_integer(found):
        return as_integers(cells)
    if pa.types.is_floating(found):
        return as_numbers(cells)
    if pa.types.is_boolean(found):
        return as_booleans(cells)
    return as_moments(cells) if pa.types.is_timestamp(found) else cells


def cells_of(lines: str, delimiter: str) -> list[list[str]]:
    """Splits the first lines into cells; if a cell is longer than Python's reader takes, into none but a first one."""
    reader = csv.reader(io.StringIO(lines, newline=""), delimiter=delimiter)
    try:
        return [row for row in islice(reader, HEAD_LINES) if row]
    except csv.Error:
        return [[lines]]


def find_delimiter(lines: str) -> str:
    """Returns the delimiter by which every line has the same number of cells, more than one; else a comma."""
    for delimiter in DELIMITERS:
        rows = cells_of(lines, delimiter)
        if len(rows[0]) > 1 and all(len(row) == len(rows[0]) for row in rows):
            return delimiter
    return ","


def check_delimiter(lines: str, delimiter: str, source: str) -> None:
    """Checks that the lines of a single column don't all have another delimiter.

    Raises:
        TableError: They do; it is named.
    """
    other = find_delimiter(lines)
    rows = lines.splitlines()
    if other != delimiter and rows and all(other in row for row in rows[:HEAD_LINES] if row.strip()):
        raise TableError(
            f"{source}: has one column and no {quote(delimiter)} between cells,"
            f" but {DELIMITERS[other]} ({quote(other)}) in every line: is that the delimiter?"
            " Commas are in .csv, tabs in .tsv, and in .txt it is found out"
        )


def check_has_names(header: Sequence[str], source: str) -> None:
    """Checks that the first line has names.

    Raises:
        TableError: It has numbers only, and not such as number the columns.
    """
    cells = [cell.strip() for cell in header]
    if all(re.match(NUMBER, cell) for cell in cells) and not (
        all(re.match(INTEGER, cell) for cell in cells) and len(set(cells)) == len(cells)
    ):
        raise TableError(
            f"{source}: the first line has numbers only ({quote(cells[0])}, ...), expected the columns' names;"
            " put a line with names on top"
        )


def longest_line(lines: str) -> int:
    """Returns the length of the longest line, in characters."""
    return max(map(len, lines.splitlines()))
