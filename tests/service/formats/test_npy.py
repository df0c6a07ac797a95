"""NumPy's own format."""

import io
import pickle
import struct

import numpy as np
import pytest

from service.errors import InvalidField, InvalidValue, MalformedBody, TooManyRows, WrongWidth
from service.formats.npy import MEDIA_TYPE
from tests.service.formats.readings import VALUES, read, read_changed


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


def with_header(header: str, data: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(header) + 1)
    return b"\x93NUMPY" + version + size + header.encode() + b"\n" + data


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numbers_of_any_size_and_order(dtype: str, order: str) -> None:
    sent = np.asarray(VALUES[:, :2], dtype=dtype, order=order)  # type: ignore[call-overload]
    whole = np.asarray(np.hstack([sent, sent[:, :1]]), dtype=dtype, order=order)  # type: ignore[call-overload]
    with np.errstate(over="ignore"):
        expected = whole.astype(np.float32)
    assert read(MEDIA_TYPE, npy(whole)).tobytes() == np.ascontiguousarray(expected).tobytes()


@pytest.mark.parametrize("dtype", ["i1", "u1", ">i2", "i4", "u8"])
def test_integers_are_numbers(dtype: str) -> None:
    whole = np.array([[1, 2, 3]], dtype=dtype)
    assert read(MEDIA_TYPE, npy(whole)).tolist() == [[1.0, 2.0, 3.0]]


NO_MATRIX = [
    (np.zeros(3, np.float32), r"is an array of float32 and shape \(3,\), expected a matrix of real numbers"),
    (np.zeros((1, 1, 3)), "is an array of float64 and shape"),
    (np.zeros((1, 3), bool), "is an array of bool"),
    (np.zeros((1, 3), complex), "is an array of complex128"),
    (np.zeros((1, 3), "S4"), "is an array of"),
    (np.zeros((1, 3), [("a", "f4")]), "is an array of"),
    (np.array([[1, None, "x"]], object), "is an array of object"),
]


@pytest.mark.parametrize(("array", "text"), NO_MATRIX)
def test_arrays_that_are_no_matrix_of_numbers(array: np.ndarray, text: str) -> None:
    with pytest.raises(InvalidField, match=text):
        read(MEDIA_TYPE, npy(array))


def test_no_rows_and_other_widths() -> None:
    with pytest.raises(InvalidField, match="vectors is empty"):
        read(MEDIA_TYPE, npy(np.zeros((0, 3))))
    for width in (0, 2, 4):
        with pytest.raises(WrongWidth, match=rf"vectors\[0\] has {width} values, expected 3"):
            read(MEDIA_TYPE, npy(np.zeros((2, width))))
    with pytest.raises(TooManyRows):
        read(MEDIA_TYPE, npy(VALUES), max_rows=1)


@pytest.mark.parametrize(("value", "named"), [(np.nan, "NaN"), (1e39, "1e\\+39"), (-np.inf, "-Infinity")])
def test_values_a_float32_can_not_hold(value: float, named: str) -> None:
    broken = VALUES.astype(np.float64)
    broken[1, 0] = value
    with pytest.raises(InvalidValue, match=rf"vectors\[1\]\[0\] is {named}, "):
        read(MEDIA_TYPE, npy(broken))


GOOD_HEADER = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"

MALFORMED = [
    b"",
    b"\x93NUMP",
    b"\x93NUMPY\x09\x00",
    b"no magic at all" * 9,
    with_header(GOOD_HEADER)[:20],
    with_header(GOOD_HEADER, VALUES.tobytes()[:-1]),
    with_header(GOOD_HEADER, VALUES.tobytes() + b"\0"),
    with_header(GOOD_HEADER.replace("(2, 3)", "(10**9, 3)"), VALUES.tobytes()),
    with_header(GOOD_HEADER.replace("(2, 3)", "(-2, -3)"), VALUES.tobytes()),
    with_header(GOOD_HEADER.replace("(2, 3)", "(1000000000000, 3)"), VALUES.tobytes()),
    with_header(GOOD_HEADER.replace("<f4", "no type"), VALUES.tobytes()),
    with_header("{'descr': '<f4'}", VALUES.tobytes()),
    with_header("(" * 5000, VALUES.tobytes()),
    with_header("{" + "'a': 1, " * 4000 + "}", VALUES.tobytes(), b"\x02\x00"),
    with_header("__import__('os').abort()", VALUES.tobytes()),
    pickle.dumps(VALUES),
]


@pytest.mark.parametrize("body", MALFORMED, ids=range(len(MALFORMED)))
def test_bodies_that_are_no_npy_file(body: bytes) -> None:
    with pytest.raises(MalformedBody, match="The body (is no .npy file: |has )"):
        read(MEDIA_TYPE, body)


@pytest.mark.parametrize("seed", range(5))
def test_changed_bytes_are_read_or_refused(seed: int) -> None:
    read_changed(MEDIA_TYPE, npy(VALUES), seed)
