"""The fast reading of a body gives what the strict one gives, and never takes what that one refuses."""

import json
import random

import numpy as np
import pytest

from service.errors import InvalidField, MalformedBody, ServiceError, TooManyRows
from service.formats import json as json_format
from service.formats.json import JsonRows, strict_document, strict_matrix
from service.formats.rows import Context
from service.graphs import Matrix

COLUMNS = ("a", "b", "c")
WIDTH = len(COLUMNS)


def context(max_rows: int = 100) -> Context:
    return Context(b"", "vectors", max_rows)


def read(body: str) -> Matrix:
    request = json_format.read(body.encode(), context())
    assert isinstance(request, JsonRows)
    return request.matrix(COLUMNS)


def read_strictly(body: str) -> Matrix:
    return strict_matrix(strict_document(body.encode(), 100)["vectors"], "vectors", COLUMNS)


def document(rows: str) -> str:
    return f'{{"dataset": "a", "vectors": {rows}}}'


def random_number(draw: random.Random) -> str:
    return draw.choice(
        [
            str(draw.randint(-(2**70), 2**70)),
            repr(draw.uniform(-1, 1) * 10 ** draw.randint(-320, 38)),
            repr(float(np.float32(draw.gauss(0, 1)))),
            "0",
            "-0.0",
            "3.4028234663852886e38",
            "5e-324",
            "1E5",
        ]
    )


@pytest.mark.parametrize("seed", range(50))
def test_both_readings_give_the_same_bits(seed: int) -> None:
    draw = random.Random(seed)
    rows = [f"[{', '.join(random_number(draw) for _ in range(WIDTH))}]" for _ in range(draw.randint(1, 8))]
    body = document(f"[{', '.join(rows)}]")
    fast, strict = read(body), read_strictly(body)
    assert fast.dtype == strict.dtype == np.float32
    assert fast.tobytes() == strict.tobytes()


INTRUDERS = [
    "null",
    "true",
    "false",
    '"1"',
    "NaN",
    "-Infinity",
    "1e400",
    "[1]",
    "{}",
    "3.5e38",
    "[]",
    '"true"',
    "01",
    "+1",
    ".5",
]


@pytest.mark.parametrize("intruder", INTRUDERS)
@pytest.mark.parametrize("place", range(WIDTH))
def test_nothing_but_a_finite_number_gets_through(intruder: str, place: int) -> None:
    values = ["1", "2.5", "-3"]
    values[place] = intruder
    with pytest.raises(ServiceError):
        read(document(f"[[0, 0, 0], [{', '.join(values)}]]"))


def test_a_word_in_the_dataset_name_is_only_a_reason_to_look_closer() -> None:
    body = '{"dataset": "true \\" false", "vectors": [[1, 2, 3]]}'
    assert read(body).tolist() == [[1, 2, 3]]
    assert json_format.read(body.encode(), context(1)).address.dataset == 'true " false'


def test_a_duplicate_key_can_not_hide_behind_an_unusual_spelling() -> None:
    with pytest.raises(MalformedBody, match='the key "vectors" twice'):
        read('{"dataset": "a", "vectors": [[1, 2, 3]], "v\\u0065ctors": [[4, 5, 6]]}')


def test_rows_are_counted_before_they_are_read() -> None:
    with pytest.raises(TooManyRows, match="vectors has 101 rows, at most 100 are taken per request"):
        json_format.read(document(f"[{', '.join(['null'] * 101)}]").encode(), context())


@pytest.mark.parametrize("body", ["[]", "{}", '"a"', "1", "true", "null"])
def test_other_documents_are_no_requests(body: str) -> None:
    with pytest.raises(InvalidField):
        json_format.read(body.encode(), context())


def test_as_many_rows_as_the_limit_are_read() -> None:
    body = json.dumps({"dataset": "a", "vectors": [[0.0] * WIDTH] * 100})
    assert read(body).shape == (100, WIDTH)
