"""Every kind of bad input by HTTP: each gets a clear error, and nothing breaks."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.types import Message

from service.app import create_app
from service.detector import Detector
from service.formats import FORMATS
from service.graphs import Matrix
from service.settings import Settings
from tests.server import MODELS
from tests.service.conftest import wait_until_ready
from tests.service.requests import BAD_VALUE, JSON, ROW, SCOPE, body, check_problem, post

NOT_JSON = [
    ("", "The body is not JSON: Expecting value at line 1, column 1."),
    ("vectors=1", "The body is not JSON: Expecting value at line 1, column 1."),
    (
        '{"dataset": "thyroid",\n "vectors": [[1, 2}',
        "The body is not JSON: Expecting ',' delimiter at line 2, column 19.",
    ),
    ('{"dataset": "thyroid"} []', "The body is not JSON: Extra data at line 1, column 24."),
    (b'{"dataset": "\xff", "vectors": [[1]]}', "The body is not UTF-8: byte 0xff at offset 13."),
    ("[" * 100_000, "The body is nested too deeply."),
    ("\ufeff{}", "The body begins with a byte order mark."),
    (
        '{"dataset": "thyroid", "vectors": [[1]], "dataset": "arrhythmia"}',
        'The body has the key "dataset" twice.',
    ),
    ('{"vectors": [[1]], "vectors": [[2]], "dataset": "thyroid"}', 'The body has the key "vectors" twice.'),
]


@pytest.mark.parametrize(("content", "detail"), NOT_JSON)
def test_bodies_that_are_not_json(client: TestClient, content: bytes | str, detail: str) -> None:
    check_problem(post(client, content), 400, "malformed_body", detail)


WRONG_FIELDS = [
    ("[[1, 2]]", "The body is a list, expected an object."),
    ("7", "The body is 7, expected an object."),
    ("null", "The body is null, expected an object."),
    ('{"vectors": [[1]]}', "dataset is missing, expected a string."),
    ('{"dataset": "thyroid"}', "vectors is missing, expected a list of rows, or records."),
    (body("[[1]]", "3"), "dataset is 3, expected a string."),
    (body("[[1]]", "null"), "dataset is null, expected a string."),
    (body("[]"), "vectors is empty, expected at least one row."),
    (body("5"), "vectors is 5, expected a list of rows."),
    (body('"0.1,0.2"'), 'vectors is "0.1,0.2", expected a list of rows.'),
    (body("{}"), "vectors is an object, expected a list of rows."),
    (body("null"), "vectors is null, expected a list of rows."),
    (body("[1, 2, 3, 4, 5, 6]"), "vectors[0] is 1, expected a list of 6 numbers."),
    (body(f"[{ROW}, null]"), "vectors[1] is null, expected a list of 6 numbers."),
    (body('[[1]], "rows": 1'), '"rows" is unknown, expected the fields dataset, version, vectors and records.'),
    (body('[[1]], "version": "1"'), 'version is "1", expected an integer.'),
    (body('[[1]], "version": true'), "version is true, expected an integer."),
    (body('[[1]], "version": 1.5'), "version is 1.5, expected an integer."),
]


@pytest.mark.parametrize(("content", "detail"), WRONG_FIELDS)
def test_fields_that_are_wrong(client: TestClient, content: str, detail: str) -> None:
    check_problem(post(client, content), 422, "invalid_field", detail)


WRONG_WIDTHS = [
    ("[[]]", "vectors[0] has 0 values, expected 6."),
    ("[[1, 2, 3]]", "vectors[0] has 3 values, expected 6."),
    (f"[{ROW}, [1, 2, 3, 4, 5, 6, 7]]", "vectors[1] has 7 values, expected 6."),
    (f"[{ROW}, {ROW}, []]", "vectors[2] has 0 values, expected 6."),
    ("[[[[[[[[[[1]]]]]]]]]]", "vectors[0] has 1 values, expected 6."),
]


@pytest.mark.parametrize(("rows", "detail"), WRONG_WIDTHS)
def test_rows_that_are_ragged_or_of_another_width(client: TestClient, rows: str, detail: str) -> None:
    check_problem(post(client, body(rows)), 422, "wrong_width", detail)


WRONG_VALUES = [
    ("NaN", "NaN"),
    ("Infinity", "Infinity"),
    ("-Infinity", "-Infinity"),
    ("1e400", "1e400"),
    ("-1e39", "-1e+39"),
    ("3.5e38", "3.5e+38"),
    ("1" + "0" * 400, "1" + "0" * 59 + "..."),
    ("1" + "0" * 5000, "1" + "0" * 59 + "..."),
    ("null", "null"),
    ("true", "true"),
    ('"0.5"', '"0.5"'),
    ('"\\ud800"', '"\\ud800"'),
    ('"a\\u0000b"', '"a\\u0000b"'),
    ("[[[[[[[1]]]]]]]", "a list"),
    ("{}", "an object"),
]


@pytest.mark.parametrize(("value", "named"), WRONG_VALUES)
def test_values_that_are_no_finite_numbers(client: TestClient, value: str, named: str) -> None:
    content = body(f"[{ROW}, [1, 2, {value}, 4, 5, 6]]")
    check_problem(post(client, content), 422, "invalid_value", f"vectors[1][2] is {named}, {BAD_VALUE}")


def test_what_a_float32_can_hold_is_taken_to_its_last_digit(client: TestClient) -> None:
    assert post(client, body("[[3.4028235e38, -3.4028235677973e38, 0, 0, 0, 0]]")).status_code == 200
    content = body("[[3.4028235677973366e38, 0, 0, 0, 0, 0]]")
    check_problem(post(client, content), 422, "invalid_value", f"vectors[0][0] is 3.4028235677973366e+38, {BAD_VALUE}")


@pytest.mark.parametrize(
    ("path", "graph", "field", "width"),
    [("/score", "scorer", "vectors", 6), ("/encode", "encoder", "vectors", 6), ("/decode", "decoder", "latents", 6)],
)
def test_a_result_that_is_not_finite_is_refused(
    app: FastAPI, client: TestClient, monkeypatch: pytest.MonkeyPatch, path: str, graph: str, field: str, width: int
) -> None:
    detector: Detector = app.state.service.repository.find("thyroid")
    real = detector._graphs[graph]

    def run(rows: Matrix) -> Matrix:
        result = real.run(rows)
        result[1] = np.inf
        return result

    monkeypatch.setitem(detector._graphs, graph, SimpleNamespace(run=run))
    response = client.post(path, json={"dataset": "thyroid", field: [[0.5] * width] * 3})
    detail = f"{field}[1] has values so large that its result is not a finite number."
    check_problem(response, 422, "result_not_finite", detail)


def test_integers_are_numbers(client: TestClient) -> None:
    whole = post(client, body("[[1, 0, 0, 1, 0, 1]]")).json()["scores"]
    assert whole == post(client, body("[[1.0, 0.0, 0e5, 1.0, -0.0, 1.0]]")).json()["scores"]


def test_too_many_rows(client: TestClient) -> None:
    response = client.post("/score", json={"dataset": "thyroid", "vectors": [ROW] * 1001})
    check_problem(response, 413, "too_many_rows", "vectors has 1001 rows, at most 1000 are taken per request.")


def test_a_body_that_says_it_is_too_long_is_not_read(client: TestClient) -> None:
    detail = "The body has 1000001 bytes, at most 1000000 are read. Send fewer rows per request."
    check_problem(post(client, "x" * 1_000_001), 413, "body_too_large", detail)


def test_a_body_of_unsaid_length_is_read_up_to_the_limit(app: FastAPI, client: TestClient) -> None:
    received, sent = 0, []

    async def receive() -> Message:
        nonlocal received
        received += 1
        return {"type": "http.request", "body": b"x" * 300_000, "more_body": True}

    async def send(message: Message) -> None:
        sent.append(message)

    assert client.get("/health/ready").status_code == 200
    asyncio.run(app({**SCOPE, "headers": [(b"content-type", b"application/json")]}, receive, send))
    assert received == 4
    assert sent[0]["status"] == 413
    detail = "The body has more than 1000000 bytes, at most 1000000 are read. Send fewer rows per request."
    assert json.loads(sent[1]["body"])["detail"] == detail


@pytest.mark.parametrize("length", ["9" * 5000, "0" * 5000 + "2000000"])
def test_an_odd_content_length_is_refused(client: TestClient, length: str) -> None:
    assert client.post("/score", content=b"{}", headers={**JSON, "content-length": length}).status_code == 413


def test_a_body_that_does_not_arrive(models: Path) -> None:
    sent = []

    async def receive() -> Message:
        await asyncio.sleep(30)
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    app = create_app(Settings(models=models, body_seconds=0.05))
    with TestClient(app) as client:
        wait_until_ready(client)
        asyncio.run(app({**SCOPE, "headers": [(b"content-type", b"application/json")]}, receive, send))
    assert sent[0]["status"] == 408
    problem = json.loads(sent[1]["body"])
    assert (problem["kind"], problem["detail"]) == ("body_too_slow", "The body did not arrive within 0.05 seconds.")


KNOWN = ", ".join(FORMATS)


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "application/json; charset=utf-16"],
)
def test_content_types_that_are_not_read(client: TestClient, content_type: str) -> None:
    response = client.post("/score", content=body(f"[{ROW}]"), headers={"content-type": content_type})
    detail = f"Content-Type is '{content_type}', expected {KNOWN}; text in UTF-8."
    check_problem(response, 415, "unsupported_media_type", detail)


def test_a_missing_content_type(client: TestClient) -> None:
    response = client.post("/score", content=body(f"[{ROW}]").encode())
    detail = f"Content-Type is missing, expected {KNOWN}; text in UTF-8."
    check_problem(response, 415, "unsupported_media_type", detail)


@pytest.mark.parametrize(
    "content_type", ["Application/JSON", "application/json; charset=utf-8", 'application/json;x=y; charset="UTF-8"']
)
def test_parameters_beside_the_content_type_are_fine(client: TestClient, content_type: str) -> None:
    headers = {"content-type": content_type}
    assert client.post("/score", content=body(f"[{ROW}]"), headers=headers).status_code == 200


@pytest.mark.parametrize("encoding", ["br", "x-deflate", "gzip, gzip", "zip"])
def test_other_compressions(client: TestClient, encoding: str) -> None:
    response = client.post("/score", content=b"{}", headers={**JSON, "content-encoding": encoding})
    detail = f"Content-Encoding is '{encoding}', expected gzip, deflate, zstd or none."
    check_problem(response, 415, "unsupported_encoding", detail)


def test_an_unknown_dataset_names_the_known_ones(client: TestClient) -> None:
    response = client.post("/score", json={"dataset": "nope", "vectors": [ROW]})
    known = ", ".join(sorted(path.name for path in MODELS.iterdir() if path.is_dir()))
    check_problem(response, 404, "dataset_not_found", f'No model for dataset "nope". Known datasets: {known}.')
    check_problem(client.get("/datasets/nope"), 404, "dataset_not_found", response.json()["detail"])


def test_a_lone_surrogate_in_a_name_does_not_break_the_answer(client: TestClient) -> None:
    response = post(client, body("[[1]]", '"\\ud800"'))
    assert response.status_code == 404
    assert 'dataset "\\ud800"' in response.json()["detail"]


@pytest.mark.parametrize("version", [0, -1, 3, 10**15, 2**64, 10**30])
def test_an_unknown_version_names_the_known_ones(client: TestClient, version: int) -> None:
    response = client.post("/score", json={"dataset": "thyroid", "vectors": [ROW], "version": version})
    detail = f'No version {version} of dataset "thyroid". Known versions: 1, 2.'
    check_problem(response, 404, "version_not_found", detail)


def test_a_version_can_be_null_or_named(client: TestClient) -> None:
    answers = [
        client.post("/score", json={"dataset": "thyroid", "vectors": [ROW], **version}).json()
        for version in ({}, {"version": None}, {"version": 2})
    ]
    assert answers[0] == answers[1] == answers[2]
