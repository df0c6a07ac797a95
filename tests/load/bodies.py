"""What is posted: rows of KDDCup99's shape, as each server takes them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import orjson
from numpy.typing import NDArray

from tests.load.graph import FEATURES

BodyName = Literal["1 row JSON", "256 rows JSON", "4096 rows JSON", "256 rows float32", "4096 rows float32"]

ROW: BodyName = "1 row JSON"
ROWS: BodyName = "256 rows JSON"
MANY_ROWS: BodyName = "4096 rows JSON"
FLOATS: BodyName = "256 rows float32"
MANY_FLOATS: BodyName = "4096 rows float32"

COUNTS: dict[BodyName, int] = {ROW: 1, ROWS: 256, MANY_ROWS: 4096, FLOATS: 256, MANY_FLOATS: 4096}

DECIMALS = 6

JSON = ("content-type: application/json",)
FLOAT32 = ("content-type: application/octet-stream", "accept: application/octet-stream")


def rows_of(count: int) -> NDArray[np.float64]:
    """Makes rows (N, M), uniform on [0, 1) with few decimals, as measurements are written."""
    return np.random.default_rng(0).random((count, FEATURES)).round(DECIMALS)


def document(x: NDArray[np.float64]) -> bytes:
    """Writes rows as this service takes them, and everything that has no format of its own."""
    return orjson.dumps({"dataset": "kddcup99", "version": 1, "vectors": x}, option=orjson.OPT_SERIALIZE_NUMPY)


def v2(x: NDArray[np.float64]) -> bytes:
    """Writes rows as the Open Inference Protocol has them."""
    tensor = {"name": "x", "shape": x.shape, "datatype": "FP32", "data": x.ravel()}
    return orjson.dumps({"inputs": [tensor]}, option=orjson.OPT_SERIALIZE_NUMPY)


def float32(x: NDArray[np.float64]) -> bytes:
    """Writes rows as little-endian float32 values, row after row."""
    return x.astype("<f4").tobytes()


@dataclass(frozen=True)
class Body:
    """A rendered body in a file, for the client to read.

    Attributes:
        file: Where it is.
        headers: The lines that say what it is.
    """

    file: Path
    headers: tuple[str, ...]


def write(folder: Path, name: BodyName, json: Callable[[NDArray[np.float64]], bytes]) -> Body:
    """Renders a body into a folder, JSON by `json`."""
    write_rows, headers = (float32, FLOAT32) if name.endswith("float32") else (json, JSON)
    file = folder / f"{write_rows.__name__} {name}"
    file.write_bytes(write_rows(rows_of(COUNTS[name])))
    return Body(file, headers)
