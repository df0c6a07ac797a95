"""NumPy's .npy format, versions 1 to 3, without pickled objects."""

import io
import math
import re
import warnings
from collections.abc import Sequence

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from service.errors import InvalidField, MalformedBody
from service.formats.query import address_of
from service.formats.rows import Address, Answer, Body, Context, as_float32, check_rows, check_width
from service.graphs import Matrix
from service.quotes import shorten

MEDIA_TYPE = "application/x-npy"

LONGEST_HEADER = 10_000
"""Bytes of a header, which is a Python literal: numpy's own bound against deep nesting."""


LONGEST_REASON = 120
"""Characters of what numpy says of a header, which it repeats."""

ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class NpyRows:
    """A body that holds one matrix of numbers.

    Arguments:
        address: Which model the rows are for.
        field: The name of the rows in errors.
        values: The matrix (N, M).
    """

    __slots__ = ("_field", "_values", "address")

    def __init__(self, address: Address, field: str, values: NDArray[np.number]) -> None:
        self.address = address
        self._field = field
        self._values = values

    def matrix(self, columns: Sequence[str]) -> Matrix:
        """Returns the rows as a matrix (N, M); `RowsRequest` has the errors."""
        check_width(self._field, 0, self._values.shape[1], columns)
        return as_float32(self._values, self._field)


def read(body: Body, context: Context) -> NpyRows:
    """Reads a body of one matrix.

    The values are not copied, and the shape is compared with the length before anything is done with it.

    Raises:
        MalformedBody: The body is no .npy file, or has fewer or more bytes than its header says.
        InvalidField: It is no matrix of real numbers, has no rows, or the query doesn't say which model it is for.
        TooManyRows: There are more rows than one request may carry.
    """
    address = address_of(context.query)
    stream = io.BytesIO(memoryview(body)[: 2 * LONGEST_HEADER])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the way old versions of numpy wrote headers
            version = npy.read_magic(stream)
            shape, by_columns, dtype = (
                npy.read_array_header_1_0(stream, max_header_size=LONGEST_HEADER)
                if version == (1, 0)
                else npy.read_array_header_2_0(stream, max_header_size=LONGEST_HEADER)
            )
    except Exception as error:  # noqa: BLE001 - a header is a Python literal, whose parsers raise what they like
        raise MalformedBody(f"The body is no .npy file: {_reason(error)}.") from None
    if dtype.kind not in "fiu" or len(shape) != 2:
        raise InvalidField("The body", f"is an array of {dtype} and shape {shape}", "a matrix of real numbers")
    if min(shape) < 0:
        raise MalformedBody(f"The body is no .npy file: its shape is {shape}.")
    expected, found = math.prod(shape) * dtype.itemsize, len(body) - stream.tell()
    if expected != found:
        raise MalformedBody(f"The body has {found} bytes after its header, which promises {expected}.")
    check_rows(context, shape[0])
    values = np.ndarray(shape, dtype, body, offset=stream.tell(), order="F" if by_columns else "C")
    return NpyRows(address, context.field, values)


def _reason(error: Exception) -> str:
    """Says why a header could not be read, without its length and without where in memory anything was."""
    return shorten(ADDRESS.sub("", str(error).partition("\n")[0]) or type(error).__name__, LONGEST_REASON)


def write(answer: Answer) -> bytes:
    """Writes an answer's first array as it is."""
    stream = io.BytesIO()
    npy.write_array(stream, answer.result(), allow_pickle=False)
    return stream.getvalue()
