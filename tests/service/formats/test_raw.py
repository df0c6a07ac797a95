"""Raw float32."""

import numpy as np
import pytest

from service.errors import InvalidField, InvalidValue, TooManyRows
from service.formats.raw import MEDIA_TYPE
from tests.service.formats.readings import VALUES, read


def test_values_are_read_bit_by_bit() -> None:
    assert read(MEDIA_TYPE, VALUES.astype("<f4").tobytes()).tobytes() == VALUES.tobytes()
    assert read(MEDIA_TYPE, bytearray(VALUES.astype("<f4").tobytes())).tobytes() == VALUES.tobytes()


@pytest.mark.parametrize("size", [1, 4, 11, 13, 23])
def test_a_body_that_is_cut_or_of_another_width(size: int) -> None:
    with pytest.raises(InvalidField, match=rf"^The body has {size} bytes, expected a multiple of 12: 3 float32"):
        read(MEDIA_TYPE, bytes(size))


def test_an_empty_body() -> None:
    with pytest.raises(InvalidField, match=r"^vectors is empty, expected at least one row"):
        read(MEDIA_TYPE, b"")


@pytest.mark.parametrize(("value", "named"), [(np.nan, "NaN"), (np.inf, "Infinity"), (-np.inf, "-Infinity")])
def test_values_that_are_not_finite(value: float, named: str) -> None:
    broken = VALUES.copy()
    broken[1, 2] = value
    with pytest.raises(InvalidValue, match=rf"^vectors\[1\]\[2\] is {named}, expected a finite number"):
        read(MEDIA_TYPE, broken.tobytes())


def test_too_many_rows() -> None:
    with pytest.raises(TooManyRows, match=r"^vectors has 2 rows, at most 1"):
        read(MEDIA_TYPE, VALUES.tobytes(), max_rows=1)
