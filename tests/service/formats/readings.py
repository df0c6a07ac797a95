"""A small model's columns, and the reading of a body for it."""

import numpy as np

from service.detector import Matrix
from service.formats import FORMATS, Body
from service.formats.rows import Context

COLUMNS = ("a", "b", "c")
QUERY = b"dataset=thyroid&version=1"

VALUES = np.array([[1.5, -2.0, 3.0], [0.25, 5e-3, 1e6]], dtype=np.float32)


def read(media_type: str, body: Body, query: bytes = QUERY, max_rows: int = 100) -> Matrix:
    """Reads a body of a format into the matrix for `COLUMNS`."""
    return FORMATS[media_type].read(body, Context(query, "vectors", max_rows)).matrix(COLUMNS)
