"""Thyroid and Arrhythmia, from the Outlier Detection DataSets library (ODDS)."""

from pathlib import Path

import numpy as np
import scipy.io

from training.datasets.base import Dataset, Feature
from training.datasets.files import RemoteFile, fetch

THYROID = RemoteFile(
    path="thyroid/thyroid.mat",
    url="https://www.dropbox.com/s/bih0e15a0fukftb/thyroid.mat?dl=1",
    sha256="49155d7861b977e90808faf68343ff67a67f63090c2744d514dbb67ac68e7e33",
    size=39704,
)
ARRHYTHMIA = RemoteFile(
    path="arrhythmia/arrhythmia.mat",
    url="https://www.dropbox.com/s/lmlwuspn1sey48r/arrhythmia.mat?dl=1",
    sha256="e4d47e499591ae31e5d7f0cd983367092353eac240f48e14c9b36457edb3460d",
    size=105540,
)

THYROID_FEATURES = ("age", "TSH", "T3", "TT4", "T4U", "FTI")
"""The six continuous columns of UCI's ann-thyroid, already scaled to [0, 1] in the published file."""


def _read(name: str, file: RemoteFile, features: tuple[str, ...], contamination: float, cache: Path | None) -> Dataset:
    table = scipy.io.loadmat(fetch(file, cache))
    return Dataset(
        name=name,
        features=tuple(Feature(feature) for feature in features),
        x=np.ascontiguousarray(table["X"], dtype=np.float32),
        y=table["y"].ravel().astype(bool),
        contamination=contamination,
        sha256=file.sha256,
    )


def thyroid(cache: Path | None = None) -> Dataset:
    """Loads Thyroid: 3,772 rows of 6 features, 93 anomalies (hyperfunction).

    Raises:
        DatasetFileError: The file can't be had or can't be trusted.
    """
    return _read("thyroid", THYROID, THYROID_FEATURES, 0.025, cache)


def arrhythmia(cache: Path | None = None) -> Dataset:
    """Loads Arrhythmia: 452 rows of 274 features, 66 anomalies (classes 3, 4, 5, 7, 8, 9, 14 and 15).

    The published file does not name its columns, so they are numbered.

    Raises:
        DatasetFileError: The file can't be had or can't be trusted.
    """
    return _read("arrhythmia", ARRHYTHMIA, tuple(f"x{i}" for i in range(274)), 0.15, cache)
