"""Handwritten digits, which come with scikit-learn: an image set that needs no download."""

import gzip
import hashlib
import io
from importlib.resources import files
from pathlib import Path

import numpy as np

from training.datasets.base import Dataset, Feature, Rows
from training.datasets.files import DatasetFileError

FILE = "digits.csv.gz"

SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"

SIDE = 8
"""Height and width of an image."""

ANOMALY = 9
"""The digit that is an anomaly: the tenth. It was chosen by its place, not by how well it is told from others."""


def digits(_: Path | None = None, anomaly: int = ANOMALY) -> Dataset:
    """Loads the digits: 1,797 images of 8 x 8 pixels from 0 to 16, 1,617 of other digits and 180 of the anomalous one.

    A row is an image, pixel by pixel and row by row. The anomalies' ratio is what is flagged.

    Arguments:
        anomaly: The digit that is called an anomaly, from 0 to 9.

    Raises:
        DatasetFileError: scikit-learn has none, or other ones than were published.

    References:
        Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998)
        https://doi.org/10.24432/C50P49
    """
    x, found = read_images()
    y = found == anomaly
    names = tuple(Feature(f"pixel_{row}_{column}") for row in range(SIDE) for column in range(SIDE))
    return Dataset("digits", names, x, y, contamination=0.1, sha256=SHA256, image=(1, SIDE, SIDE))


def read_images(content: bytes | None = None) -> tuple[Rows, Rows]:
    """Returns the images (N, 64) and which digit each shows (N,).

    Arguments:
        content: The bytes of the published file; those that came with scikit-learn unless given.

    Raises:
        DatasetFileError: The bytes are not those that were published.
    """
    path = files("sklearn.datasets.data") / FILE
    try:
        content = path.read_bytes() if content is None else content
    except OSError as error:
        raise DatasetFileError(f"{path} can't be read ({error}). Install scikit-learn again.") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256:
        raise DatasetFileError(
            f"{path} is not the published file: its sha256 is {digest}, expected {SHA256}. Install scikit-learn again."
        )
    table = np.loadtxt(io.BytesIO(gzip.decompress(content)), delimiter=",", dtype=np.float32)
    return np.ascontiguousarray(table[:, :-1]), table[:, -1]
