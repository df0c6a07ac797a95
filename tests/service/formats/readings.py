"""A small model's columns, and the reading of a body for it."""

import random
from contextlib import suppress

import numpy as np

from service.errors import ServiceError
from service.formats import FORMATS, Body, RecordsRequest
from service.formats.rows import Context
from service.graphs import Matrix

COLUMNS = ("a", "b", "c")
QUERY = b"dataset=thyroid&version=1"

VALUES = np.array([[1.5, -2.0, 3.0], [0.25, 5e-3, 1e6]], dtype=np.float32)


def read(media_type: str, body: Body, query: bytes = QUERY, max_rows: int = 100) -> Matrix:
    """Reads a body of a format into the matrix for `COLUMNS`."""
    request = FORMATS[media_type].read(body, Context(query, "vectors", max_rows))
    assert not isinstance(request, RecordsRequest)
    return request.matrix(COLUMNS)


def read_changed(media_type: str, whole: bytes, seed: int) -> None:
    """Reads a body with bytes changed at random, many times: it is read or refused, and nothing else happens."""
    draw = random.Random(seed)
    for _ in range(400):
        body = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            body[draw.randrange(len(body))] = draw.randrange(256)
        with suppress(ServiceError):
            read(media_type, bytes(body))
