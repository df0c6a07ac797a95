"""NumPy's archives (.npz) and MATLAB's files (.mat) with a matrix X and, if they like, labels y.

Columns are called x0, x1 and so on, and y.
"""

import lzma
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.lib import format as npy

from training.tables.base import Table, can_t_be_read, check_rows, check_width, names_of
from training.tables.errors import TableError, listed
from training.tables.matlab import MatlabError, read_matlab
from training.tables.values import Batch

Matrix = np.ndarray[Any, Any]

LABEL = "y"

MEMBER_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


BROKEN_ARCHIVE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, ValueError, EOFError, OSError, RuntimeError, KeyError)
"""What reading an archive raises if it is broken; the last but one if it is encrypted or of a version to come."""


class MatrixTable(Table):
    """A matrix X (N, M) and labels y (N,), read in pieces of some rows.

    Arguments:
        path: The file.
        shape: The shape of X.
        dtype: The type of X's values.
        labels: y, or None if there are none.

    Raises:
        TableError: X or y has another shape or type than can be used.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any], labels: Matrix | None) -> None:
        self.source = str(path)
        self._path = path
        check_numbers("X", dtype, self.source)
        if len(shape) != 2:
            raise TableError(f"{path}: X has the shape {shape}, expected (rows, columns)")
        self.rows = shape[0]
        check_width(shape[1], self.source)
        names = names_of(shape[1])
        self._labels: Matrix | None = None
        if labels is not None:
            self._labels = flat_labels(labels, self.rows, self.source)
            self.label = LABEL
        check_rows(self.rows, self.source)
        self._positions = {name: i for i, name in enumerate(names)}
        types = [(name, arrow_type(dtype)) for name in names]
        if self._labels is not None:
            types.append((LABEL, arrow_type(self._labels.dtype)))
        self.schema = pa.schema(types)

    def _read(self, columns: Sequence[str], rows: int) -> Iterator[Batch]:
        chosen = [self._positions[name] for name in columns if name in self._positions]
        first = 0
        for piece in self._pieces(rows):
            by_column = iter(np.ascontiguousarray(native(piece[:, chosen]).T))
            arrays = []
            for name in columns:
                if name in self._positions:
                    values = next(by_column)
                else:
                    assert self._labels is not None  # noqa: S101 - only then it is in the schema
                    values = self._labels[first : first + len(piece)]
                arrays.append(pa.array(values))
            yield pa.RecordBatch.from_arrays(arrays, names=list(columns))
            first += len(piece)

    def _pieces(self, rows: int) -> Iterator[Matrix]:
        """Reads X in pieces of at most so many rows."""
        raise NotImplementedError


class NpzTable(MatrixTable):
    """An .npz archive. X is read in pieces, or at once if its columns lie behind one another (Fortran's order).

    Nothing is unpickled: arrays of objects are refused.

    Arguments:
        path: The file.

    Raises:
        TableError: The file is broken, or X or y can't be used.
    """

    def __init__(self, path: Path) -> None:
        try:
            with zipfile.ZipFile(path) as archive:
                names = [Path(name).stem for name in archive.namelist()]
                if "X" not in names:
                    raise TableError(f"{path}: has no array X, it has {listed(names) or 'none'}")
                with archive.open("X.npy") as member:
                    shape, self._fortran, dtype = read_header(member, path)
                labels = None
                if LABEL in names:
                    with archive.open("y.npy") as member:
                        check_numbers(LABEL, read_header(member, path)[2], str(path))
                    labels = np.load(path, allow_pickle=False)[LABEL]
        except TableError:
            raise
        except BROKEN_ARCHIVE as error:
            raise broken_archive(path, error) from error
        super().__init__(path, shape, dtype, labels)
        self._shape, self._dtype = shape, dtype

    def _pieces(self, rows: int) -> Iterator[Matrix]:
        try:
            if self._fortran:
                x = np.load(self._path, allow_pickle=False)["X"]
                yield from (x[start : start + rows] for start in range(0, len(x), rows))
                return
            with zipfile.ZipFile(self._path) as archive, archive.open("X.npy") as member:
                read_header(member, self._path)
                for start in range(0, self._shape[0], rows):
                    count = min(rows, self._shape[0] - start)
                    data = read_exactly(member, count * self._shape[1] * self._dtype.itemsize)
                    yield np.frombuffer(data, dtype=self._dtype).reshape(count, -1)
        except TableError:
            raise
        except BROKEN_ARCHIVE as error:
            raise broken_archive(self._path, error) from error


class MatTable(MatrixTable):
    """A MATLAB file up to version 7. X is read at once.

    Arguments:
        path: The file.

    Raises:
        TableError: The file is broken, is of version 7.3, or X or y can't be used.
    """

    def __init__(self, path: Path) -> None:
        try:
            found, names = read_matlab(path, ("X", LABEL))
        except MatlabError as error:
            raise TableError(f"{path}: {error}") from error
        if "X" not in found:
            raise TableError(f"{path}: has no matrix X, it has {listed(names) or 'none'}")
        self._x = found["X"]
        super().__init__(path, self._x.shape, self._x.dtype, found.get(LABEL))

    def _pieces(self, rows: int) -> Iterator[Matrix]:
        yield from (self._x[start : start + rows] for start in range(0, len(self._x), rows))


def read_header(member: Any, path: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:  # noqa: ANN401
    """Reads the header of a .npy, and returns shape, whether columns lie behind one another, and type.

    Raises:
        TableError: It is of a version that only arrays of records need.
        ValueError: It is broken.
    """
    version = npy.read_magic(member)
    if version not in MEMBER_HEADERS:
        raise TableError(f"{path}: has an array of the .npy version {version}, expected (1, 0) or (2, 0)")
    shape, fortran, dtype = MEMBER_HEADERS[version](member)
    return shape, fortran, dtype


def read_exactly(member: Any, size: int) -> bytes:  # noqa: ANN401
    """Reads so many bytes.

    Raises:
        EOFError: There are fewer.
    """
    data: bytes = member.read(size)
    if len(data) < size:
        raise EOFError(f"X ends {size - len(data)} bytes too early")
    return data


def broken_archive(path: Path, error: Exception) -> TableError:
    """Returns an error for an archive that can't be read, or is none."""
    if not path.stat().st_size:
        return TableError(f"{path}: is empty")
    return can_t_be_read(path, "NPZ", error)


def check_numbers(name: str, dtype: np.dtype[Any], source: str) -> None:
    """Checks that an array has numbers or booleans.

    Raises:
        TableError: It has others, such as objects, text or complex numbers.
    """
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise TableError(f"{source}: {name} has values of type {dtype}, expected integers, booleans or floats")


def flat_labels(labels: Matrix, rows: int, source: str) -> Matrix:
    """Returns labels as (N,).

    Raises:
        TableError: They are of another shape, or have values that can't be labels.
    """
    check_numbers(LABEL, labels.dtype, source)
    if labels.size != rows or max(labels.shape, default=0) != rows:
        raise TableError(f"{source}: y has the shape {labels.shape}, expected ({rows},), a label for each row of X")
    return native(labels.ravel())


def native(values: Matrix) -> Matrix:
    """Returns an array in this machine's byte order, and float16 as float32, which Arrow knows more of."""
    if values.dtype == np.float16:
        return values.astype(np.float32)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def arrow_type(dtype: np.dtype[Any]) -> Any:  # noqa: ANN401
    """Returns the Arrow type of an array's values."""
    return pa.from_numpy_dtype(native(np.zeros(0, dtype)).dtype)
