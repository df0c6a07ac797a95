"""Thyroid and Arrhythmia, on a small file in the published form, and on the files themselves."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from training.datasets import DATASETS, odds
from training.datasets.files import DatasetFileError, RemoteFile
from training.datasets.odds import arrhythmia, thyroid


def test_a_matlab_file_becomes_a_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "small.mat"
    x = np.arange(12.0).reshape(2, 6)
    scipy.io.savemat(path, {"X": x, "y": np.array([[0.0], [1.0]])})
    content = path.read_bytes()
    file = RemoteFile("small.mat", "https://data.test/s", hashlib.sha256(content).hexdigest(), len(content))
    monkeypatch.setattr(odds, "THYROID", file)
    dataset = thyroid(tmp_path)
    assert dataset.x.dtype == np.float32
    assert np.array_equal(dataset.x, x)
    assert dataset.y.tolist() == [False, True]
    assert [feature.name for feature in dataset.features] == ["age", "TSH", "T3", "TT4", "T4U", "FTI"]
    assert (dataset.contamination, dataset.sha256) == (0.025, file.sha256)
    path.write_bytes(content[:-1])
    with pytest.raises(DatasetFileError, match="is cut short"):
        thyroid(tmp_path)


@pytest.mark.data
def test_the_published_files() -> None:
    first, second = thyroid(), arrhythmia()
    assert (first.x.shape, first.y.sum(), first.contamination) == ((3772, 6), 93, 0.025)
    assert (second.x.shape, second.y.sum(), second.contamination) == ((452, 274), 66, 0.15)
    assert len(second.features) == 274


def test_datasets_are_listed_by_name() -> None:
    assert list(DATASETS) == ["thyroid", "arrhythmia", "kddcup99", "kddcup-rev"]
