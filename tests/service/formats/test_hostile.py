"""Bodies that are made to take time or memory: refused before they do, with a reason."""

import re
from types import SimpleNamespace
from typing import cast

import numpy as np
import orjson
import pytest

from service.detector import Detector
from service.errors import InvalidField, MalformedBody, ServiceError, TooManyRows
from service.exchange import SCORE
from service.formats import json as json_format
from service.formats.json import JsonRows
from service.formats.rows import Body, Context
from service.v2 import bodies
from service.v2.models import Model
from tests.bounds import MB, within
from tests.service.formats.readings import COLUMNS, read
from tests.service.formats.test_npy import with_header

JSON, CSV, NPY = "application/json", "text/csv", "application/x-npy"


def vectors(rows: bytes) -> bytes:
    return b'{"dataset": "thyroid", "vectors": [%s]}' % rows


@pytest.mark.parametrize(
    "rows",
    [b"[]," * MB + b"1", b"{}," * MB + b"1", b'"",' * MB + b"1", b"[1,2,3]," * (MB // 2) + b"[1]"],
    ids=["lists", "objects", "texts", "ragged"],
)
def test_rows_without_end_are_counted_and_not_read(rows: bytes) -> None:
    with within(seconds=2, megabytes=32), pytest.raises(TooManyRows, match=r"^vectors has \d{6,} rows, at most 100 "):
        read(JSON, vectors(rows))


@pytest.mark.parametrize("rows", [b"[]," * MB + b"1e999", b"[[1e999]]," * MB + b"1", b"[" * MB, b'{"a":' * MB])
def test_long_bodies_of_brackets_are_not_read(rows: bytes) -> None:
    with (
        within(seconds=2, megabytes=32),
        pytest.raises(InvalidField, match=r"The body has \d{7} opening brackets, expected at most 1100 "),
    ):
        read(JSON, vectors(rows))


def test_short_bodies_of_brackets_are_told_what_is_wrong_with_them() -> None:
    with pytest.raises(MalformedBody, match="nested too deeply"):
        read(JSON, b"[" * 2000)


def test_rows_that_are_read_strictly_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    texts: list[object] = []
    strict = json_format.strict_document

    def counted(body: Body, max_rows: int) -> object:
        texts.append(body)
        return strict(body, max_rows)

    monkeypatch.setattr(json_format, "strict_document", counted)
    assert read(JSON, b'{"dataset": "a", "version": null, "vectors": [[1, 2, 3]]}').shape == (1, 3)
    assert len(texts) == 1


@pytest.mark.parametrize(
    "start", [b"", b"a,b,c\n", b'"a",b,c\n'], ids=["no names", "names", "names in quotation marks"]
)
@pytest.mark.parametrize(
    "row", [b"1,2,3\n", b"1,2,3\r", b"x\n", b"1,2,3\n\n"], ids=["rows", "returns", "texts", "gaps"]
)
def test_csv_is_not_read_beyond_the_rows_there_may_be(start: bytes, row: bytes) -> None:
    with (
        within(seconds=2, megabytes=64),
        pytest.raises(TooManyRows, match="vectors has more than 100 rows, at most 100 "),
    ):
        read(CSV, start + row * MB)


@pytest.mark.parametrize(("rows", "names"), [(100, b"a,b,c\n"), (100, b""), (1, b'"a","b","c"\n')])
def test_csv_is_read_to_the_last_row_there_may_be(rows: int, names: bytes) -> None:
    assert read(CSV, names + b"1,2,3\n" * rows, max_rows=rows).shape == (rows, 3)
    with pytest.raises(TooManyRows, match=f"vectors has more than {rows} rows"):
        read(CSV, names + b"1,2,3\n" * (rows + 1), max_rows=rows)


def test_csv_has_not_more_columns_than_any_model() -> None:
    body = b"," * (4 * MB)
    with (
        within(seconds=1, megabytes=32),
        pytest.raises(InvalidField, match=f"The first line has {4 * MB + 1} cells, expected at most 65536"),
    ):
        read(CSV, body)


@pytest.mark.parametrize("header", ["{'shape': (10**9, 1)}", "-" * 9000 + "1", "[" * 3000, "'" + "x" * 9000 + "'"])
def test_headers_of_npy_are_not_repeated_at_length_nor_with_addresses(header: str) -> None:
    with pytest.raises(MalformedBody) as caught:
        read(NPY, with_header(header, b""))
    assert len(str(caught.value)) < 200
    assert not re.search("0x[0-9a-f]{4}", str(caught.value))


MODEL = Model("thyroid", SCORE, cast(Detector, SimpleNamespace(columns=COLUMNS, p_values=None)))


def infer(rest: bytes, shape: bytes = b"[1, 3]") -> np.ndarray:
    tensor = b'{"name": "vectors", "datatype": "FP32", "shape": %s, "data": [1, 2, 3]}' % shape
    return bodies.read(b'{"inputs": [%s]%s}' % (tensor, rest), None, MODEL, 100).rows


def keys(count: int) -> bytes:
    return b", ".join(b'"%x": 1' % number for number in range(count))


@pytest.mark.parametrize(
    "rest",
    [keys(100_000), b'"parameters": {%s}' % keys(100_000), b'"parameters": {"a": [%s 1]}' % (b"1, " * MB)],
    ids=["fields", "parameters", "a parameter"],
)
def test_the_time_for_fields_that_nobody_knows_is_not_quadratic(rest: bytes) -> None:
    with within(seconds=4, megabytes=64):
        assert infer(b", " + rest).tolist() == [[1, 2, 3]]


def test_a_long_id_is_looked_through_at_once() -> None:
    with within(seconds=1, megabytes=64):
        infer(b', "id": "%s"' % ("é".encode() * 4 * MB))


def test_a_long_shape_is_not_repeated() -> None:
    with pytest.raises(InvalidField, match=r"vectors.shape has 1048577 sizes, expected \[rows, 3\]"):
        infer(b"", b"[%s 1]" % (b"1," * MB))


@pytest.mark.parametrize(
    "rest", [b', "outputs": [%s 1]' % (b"{}," * MB), b', "parameters": {"a": [%s 1]}' % (b"[]," * MB)]
)
def test_long_bodies_of_the_protocol_have_few_brackets(rest: bytes) -> None:
    with (
        within(seconds=2, megabytes=32),
        pytest.raises(ServiceError, match="opening brackets, expected at most 1100 for 100 rows"),
    ):
        infer(rest)


def test_the_bracket_rule_leaves_room_for_all_rows_and_more() -> None:
    rows = [[1, 2, None]] * 16384
    text = orjson.dumps({"dataset": "a", "vectors": rows, "version": None}) + b" " * MB
    request = json_format.read(text, Context(b"", "vectors", 16384))
    assert isinstance(request, JsonRows)
    with pytest.raises(ServiceError, match="is null"):
        request.matrix(("a", "b", "c"))
