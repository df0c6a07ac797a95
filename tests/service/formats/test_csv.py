"""CSV, with names and without."""

import random

import numpy as np
import pytest

from service.errors import InvalidField, InvalidValue, MalformedBody, ServiceError, TooManyRows, WrongWidth
from service.formats import csv as csv_format
from service.formats.csv import MEDIA_TYPE
from tests.service.formats.readings import VALUES, read

USUAL = "1.5,-2.0,3\n0.25,5e-3,1E6\n"
SAME = [
    USUAL,
    USUAL.strip(),
    USUAL.replace("\n", "\r\n"),
    USUAL.replace(",", " , "),
    "\ufeff" + USUAL,
    "a,b,c\n" + USUAL,
    "\n\r\na,b,c\n" + USUAL,
    " a , b,c \r\n" + USUAL,
    "c,a,b\n3,1.5,-2\n1e6,.25,0.005\n",
    '"a","b","c"\n' + USUAL,
    '"1.5","-2.0","3"\n0.25,5e-3,1E6\n',
    "1.5,-2.0,3\n\n0.25,5e-3,1E6\n\n",
    "+1.5,-2.,3\n.25,5e-3,1E6",
]


@pytest.mark.parametrize("text", SAME)
def test_spellings_of_the_same_rows(text: str) -> None:
    assert read(MEDIA_TYPE, text.encode()).tobytes() == VALUES.tobytes()


@pytest.mark.parametrize("seed", range(20))
def test_both_readings_give_the_same_bits(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(seed)
    rows = [[repr(draw.uniform(-1, 1) * 10 ** draw.randint(-300, 37)) for _ in range(3)] for _ in range(9)]
    body = "\n".join(",".join(row) for row in rows).encode()
    fast = read(MEDIA_TYPE, body)
    monkeypatch.setattr(csv_format, "_read_fast", lambda *_: None)
    assert fast.tobytes() == read(MEDIA_TYPE, body).tobytes()


@pytest.mark.parametrize("start", ["", "a,b,c\n", "a,b,c\r\n", '"a",b,c\n', "9,9,9\n"])
def test_a_return_alone_ends_a_line(start: str) -> None:
    with pytest.raises(ServiceError, match=r"vectors\[\d\]"):
        read(MEDIA_TYPE, f"{start}1,\r2,3\n4,5,6\n".encode())
    rows = [[9, 9, 9]] if start.startswith("9") else []
    assert read(MEDIA_TYPE, f"{start}1,2,3\r4,5,6\n7,8,9\r\n".encode()).tolist() == [
        *rows,
        [1, 2, 3],
        [4, 5, 6],
        [7, 8, 9],
    ]


REFUSED = [
    ("", InvalidField, "vectors is empty"),
    ("a,b,c\n", InvalidField, "vectors is empty"),
    ("a,b\n1,2\n", InvalidField, 'Column "c" is missing, expected all columns of the dataset'),
    ("a,b,c,d\n1,2,3,4\n", InvalidField, 'Column "d" is unknown, expected the 3 columns of the dataset'),
    ("a,b,a\n1,2,3\n", InvalidField, 'Column "a" is there twice'),
    ("a,b,c\n1,2\n", WrongWidth, "vectors[0] has 2 values, expected 3"),
    ("1,2\n", WrongWidth, "vectors[0] has 2 values, expected 3"),
    ("1,2,3\n4,5\n", WrongWidth, "vectors[1] has 2 values, expected 3"),
    ("1,2,3\n4,,6\n", InvalidValue, 'vectors[1][1] is "", expected a finite number'),
    ("1,2,3\n4,x,6\n", InvalidValue, 'vectors[1][1] is "x"'),
    ("a,b,c\n4,x,6\n", InvalidValue, 'vectors[0]["b"] is "x"'),
    ("1,2,3\n4,true,6\n", InvalidValue, 'vectors[1][1] is "true"'),
    ("1,2,3\n4,null,6\n", InvalidValue, 'vectors[1][1] is "null"'),
    ("1,2,3\n4,nan,6\n", InvalidValue, 'vectors[1][1] is "nan"'),
    ("1,2,3\n4,inf,6\n", InvalidValue, 'vectors[1][1] is "inf"'),
    ("1,2,3\n4,1e39,6\n", InvalidValue, "vectors[1][1] is 1e+39"),
    ("1,2,3\n4,1e999,6\n", InvalidValue, 'vectors[1][1] is "1e999"'),
    ("1,2,3\n4,1_0,6\n", InvalidValue, 'vectors[1][1] is "1_0"'),
    ("1,2,3\n4,5],[1,6\n", WrongWidth, "vectors[1] has 4 values"),
    ('1,2,3\n4,"5,6\n', MalformedBody, "The body is no CSV: unexpected end of data"),
    (b"1,2,3\n4,\xff,6\n", MalformedBody, "The body is not UTF-8: byte 0xff at offset 8"),
    (b"a,\xff,c\n", MalformedBody, "The body is not UTF-8: byte 0xff at offset 2"),
]


@pytest.mark.parametrize(("body", "error", "text"), REFUSED)
def test_bodies_that_are_refused(body: str | bytes, error: type[ServiceError], text: str) -> None:
    with pytest.raises(error) as caught:
        read(MEDIA_TYPE, body.encode() if isinstance(body, str) else body)
    assert str(caught.value).startswith(text)
    assert type(caught.value) is error


def test_too_many_rows() -> None:
    with pytest.raises(TooManyRows):
        read(MEDIA_TYPE, b"1,2,3\n" * 101)
    assert read(MEDIA_TYPE, b"1,2,3\n" * 100).shape == (100, 3)
    assert np.isfinite(read(MEDIA_TYPE, b"1,2,3")).all()
