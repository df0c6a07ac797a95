"""The digits are scikit-learn's, and nothing else is taken for them."""

import sys
from importlib.resources import files

import numpy as np
import pytest
from sklearn.datasets import load_digits

from training.datasets.digits import FILE, digits, read_images
from training.datasets.files import DatasetFileError


def test_images_and_labels_are_those_that_scikit_learn_reads() -> None:
    table, theirs = digits(), load_digits()
    assert np.array_equal(table.x, theirs.data)
    assert np.array_equal(table.y, theirs.target == 9)
    assert table.y.sum() == 180
    assert table.image == (1, 8, 8)


def test_a_row_is_an_image_row_by_row() -> None:
    table, image = digits(), load_digits().images[5]
    names = [feature.name for feature in table.features]
    assert names[:9] == [*(f"pixel_0_{i}" for i in range(8)), "pixel_1_0"]
    assert table.x[5, names.index("pixel_2_3")] == image[2, 3]


def test_another_digit_may_be_the_anomaly() -> None:
    assert np.array_equal(digits(anomaly=0).y, load_digits().target == 0)


def test_other_bytes_are_refused() -> None:
    content = (files("sklearn.datasets.data") / FILE).read_bytes()
    with pytest.raises(DatasetFileError, match=r"digits.csv.gz is not the published file: its sha256 is \w{64}, expec"):
        read_images(content[:-1])


def test_a_missing_file_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["training.datasets.digits"], "FILE", "nowhere.csv.gz")
    with pytest.raises(DatasetFileError, match=r"nowhere.csv.gz can't be read .* Install scikit-learn again"):
        digits()
