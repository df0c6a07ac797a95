"""Raw float32: the values of all rows one after the other, little-endian, and nothing else."""

from collections.abc import Sequence

import numpy as np

from service.errors import InvalidField
from service.formats.query import address_of
from service.formats.rows import Address, Answer, Body, Context, as_float32, check_rows
from service.graphs import Matrix

MEDIA_TYPE = "application/octet-stream"

FLOAT32 = np.dtype("<f4")


class RawRows:
    """A body of float32 values, whose width only the model knows.

    Arguments:
        address: Which model the rows are for.
        context: What is known beside the body.
        body: The values.
    """

    __slots__ = ("_body", "_context", "address")

    def __init__(self, address: Address, context: Context, body: Body) -> None:
        self.address = address
        self._context = context
        self._body = body

    def matrix(self, columns: Sequence[str]) -> Matrix:
        """Returns the rows as a matrix (N, M); `RowsRequest` has the errors."""
        size, width = len(self._body), len(columns)
        rows, rest = divmod(size, FLOAT32.itemsize * width)
        if rest:
            expected = f"a multiple of {FLOAT32.itemsize * width}: {width} float32 values per row"
            raise InvalidField("The body", f"has {size} bytes", expected)
        check_rows(self._context, rows)
        return as_float32(np.frombuffer(self._body, dtype=FLOAT32).reshape(rows, width), self._context.field)


def read(body: Body, context: Context) -> RawRows:
    """Reads which model the body is for.

    Raises:
        InvalidField: The query doesn't say it.
    """
    return RawRows(address_of(context.query), context, body)


def write(answer: Answer) -> bytes:
    """Writes an answer's first array as float32."""
    return answer.result().astype(FLOAT32).tobytes()
