"""Opens a table, by its file's name: delimited text, Parquet, Arrow, NumPy or MATLAB.

Whatever the format, a `Table` has typed columns and reads its rows in batches, in bounded memory and as often as
wanted. Rows count from 0 in errors, as they do in the service.
"""

from collections.abc import Callable
from pathlib import Path

from training.tables.arrays import MatTable, NpzTable
from training.tables.base import Observer, Table
from training.tables.columnar import ArrowFileTable, ParquetTable
from training.tables.errors import TableError
from training.tables.text import TextTable

TEXT = {".csv": ",", ".tsv": "\t", ".txt": None}
"""Suffixes of text, and the delimiter each stands for; in a .txt it has to be found."""

GZIP = ".gz"

BINARY: dict[str, Callable[[Path], Table]] = {
    ".parquet": ParquetTable,
    ".arrow": ArrowFileTable,
    ".arrows": ArrowFileTable,
    ".feather": ArrowFileTable,
    ".npz": NpzTable,
    ".mat": MatTable,
}

SUFFIXES = (*TEXT, *(suffix + GZIP for suffix in TEXT), *BINARY)


def open_table(path: str | Path, delimiter: str | None = None, observe: Observer | None = None) -> Table:
    """Opens a table.

    Text is read once from its beginning to its end, to find the columns' types.

    Arguments:
        path: The file; its suffix says the format.
        delimiter: What stands between two cells of a text, if it is not what its suffix says: a comma in .csv, a tab in
            .tsv, and what splits all lines alike in .txt.
        observe: Is told how many rows are read, where they have to be.

    Raises:
        TableError: The file isn't there, is of no known format, is broken or cut short, has no rows or just one, or has
            columns without a name or with the same one; the text says which.
    """
    path = Path(path)
    if path.is_dir():
        raise TableError(f"{path}: is a folder, expected a file")
    if not path.exists():
        raise TableError(f"{path}: there is no such file")
    suffixes = [suffix.lower() for suffix in path.suffixes]
    gzipped = suffixes[-1:] == [GZIP]
    suffix = (suffixes[-2:-1] if gzipped else suffixes[-1:]) or [""]
    try:
        if suffix[0] in TEXT:
            return TextTable(path, delimiter or TEXT[suffix[0]], gzipped, observe)
        if suffix[0] in BINARY and not gzipped:
            return BINARY[suffix[0]](path)
    except OSError as error:
        raise TableError(f"{path}: can't be read ({error.strerror or error})") from error
    raise TableError(f"{path}: the name doesn't say what format it has, expected one of {', '.join(SUFFIXES)}")
