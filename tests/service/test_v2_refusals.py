"""The Open Inference Protocol: what it refuses, and in which words."""

import json
import random
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service.detector import Detector
from service.v2.tensors import DATATYPES
from tests.service.requests import BAD_VALUE, ROW
from tests.service.v2_requests import (
    INFER,
    JSON_BYTES,
    KNOWN_MODELS,
    binary_tensor,
    check_error,
    outputs_of,
    packed,
    post_binary,
    tensor,
)

X = np.array([ROW, ROW], dtype="<f4")
SIZE = {"binary_data_size": 48}
ANY_NUMBER = ", ".join(DATATYPES)

MALFORMED: list[tuple[object, str]] = [
    ([], "The body is a list, expected an object."),
    ({}, "inputs is missing, expected a list of tensors."),
    ({"inputs": 3}, "inputs is 3, expected a list of tensors."),
    ({"inputs": []}, "Input vectors is missing, expected it once."),
    ({"inputs": [3]}, "inputs[0] is 3, expected an object."),
    ({"inputs": [{}]}, "inputs[0].name is missing, expected a string."),
    ({"inputs": [{"name": 3}]}, "inputs[0].name is 3, expected a string."),
    ({"inputs": [tensor(X, "x")]}, 'inputs[0] is "x", expected vectors, the only input there is.'),
    ({"inputs": [tensor(X), tensor(X)]}, "Input vectors is there 2 times, expected it once."),
    ({"inputs": [tensor(X), tensor(X, "y")]}, 'inputs[1] is "y", expected vectors, the only input there is.'),
    ({"inputs": [tensor(X)], "id": 3}, "id is 3, expected a string."),
    ({"inputs": [tensor(X)], "id": "\ud800"}, 'id is "\\ud800", expected a string that can be written as UTF-8.'),
    ({"inputs": [tensor(X)], "parameters": []}, "parameters is a list, expected an object."),
    (
        {"inputs": [tensor(X)], "parameters": {"binary_data_output": 1}},
        "parameters.binary_data_output is 1, expected true or false.",
    ),
    ({"inputs": [tensor(X, parameters=3)]}, "vectors.parameters is 3, expected an object."),
    ({"inputs": [tensor(X, datatype=None)]}, f"vectors.datatype is missing, expected one of {ANY_NUMBER}."),
    ({"inputs": [tensor(X, datatype="BOOL")]}, f'vectors.datatype is "BOOL", expected one of {ANY_NUMBER}.'),
    ({"inputs": [tensor(X, datatype="BYTES")]}, f'vectors.datatype is "BYTES", expected one of {ANY_NUMBER}.'),
    ({"inputs": [tensor(X, datatype=32)]}, f"vectors.datatype is 32, expected one of {ANY_NUMBER}."),
    ({"inputs": [tensor(X, shape=None)]}, "vectors.shape is missing, expected [rows, 6]."),
    ({"inputs": [tensor(X, shape="2,6")]}, 'vectors.shape is "2,6", expected [rows, 6].'),
    ({"inputs": [tensor(X, shape=[])]}, "vectors.shape is [], expected [rows, 6]."),
    ({"inputs": [tensor(X, shape=[12])]}, "vectors.shape is [12], expected [rows, 6]."),
    ({"inputs": [tensor(X, shape=[6, 2])]}, "vectors.shape is [6, 2], expected [rows, 6]."),
    ({"inputs": [tensor(X, shape=[1, 2, 6])]}, "vectors.shape is [1, 2, 6], expected [rows, 6]."),
    ({"inputs": [tensor(X, shape=[-2, 6])]}, "vectors.shape[0] is -2, expected a number that is not negative."),
    ({"inputs": [tensor(X, shape=[2.0, 6])]}, "vectors.shape[0] is 2.0, expected a number that is not negative."),
    ({"inputs": [tensor(X, shape=[True, 6])]}, "vectors.shape[0] is true, expected a number that is not negative."),
    (
        {"inputs": [tensor(X, shape=[2**63, 6])]},
        "vectors.shape[0] is 9223372036854775808, expected a number that is not negative.",
    ),
    ({"inputs": [tensor(X, shape=[2**62, 6])]}, "413"),
    ({"inputs": [tensor(X, shape=[2, 2**62])]}, f"vectors.shape is [2, {2**62}], expected [rows, 6]."),
    ({"inputs": [tensor(X, shape=[0, 6], data=[])]}, "vectors is empty, expected at least one row."),
    ({"inputs": [tensor(X, shape=[1001, 6])]}, "413"),
    ({"inputs": [tensor(X, shape=[1, 6])]}, "vectors.data has 12 values, expected 6 by its shape [1, 6]."),
    ({"inputs": [tensor(X, data=[])]}, "vectors.data has 0 values, expected 12 by its shape [2, 6]."),
    ({"inputs": [tensor(X, data=[ROW])]}, "vectors.data has 1 rows, expected 2 by its shape [2, 6]."),
    ({"inputs": [tensor(X, data=[[1.0], [2.0]])]}, "vectors[0] has 1 values, expected 6 by its shape [2, 6]."),
    ({"inputs": [tensor(X, data=[ROW, [2.0]])]}, "vectors[1] has 1 values, expected 6 by its shape [2, 6]."),
    ({"inputs": [tensor(X, data=[ROW, 3])]}, "vectors[1] is 3, expected a list of 6 numbers, as the first is."),
    ({"inputs": [tensor(X, data=[[ROW], [ROW]])]}, "vectors[0] has 1 values, expected 6 by its shape [2, 6]."),
    ({"inputs": [tensor(X, data=[*ROW, *ROW[:5], ROW])]}, f"vectors[1][5] is a list, {BAD_VALUE}"),
    ({"inputs": [tensor(X, data=[ROW, [*ROW[:5], [1]]])]}, f"vectors[1][5] is a list, {BAD_VALUE}"),
    ({"inputs": [tensor(X, data=[*ROW, *ROW[:5], None])]}, f"vectors[1][5] is null, {BAD_VALUE}"),
    ({"inputs": [tensor(X, data=[*ROW, *ROW[:5], "1"])]}, f'vectors[1][5] is "1", {BAD_VALUE}'),
    ({"inputs": [tensor(X, data=[ROW, [*ROW[:5], True]])]}, f"vectors[1][5] is true, {BAD_VALUE}"),
    ({"inputs": [tensor(X, data=[ROW, [*ROW[:5], float("nan")]])]}, f"vectors[1][5] is NaN, {BAD_VALUE}"),
    ({"inputs": [tensor(X, data=[ROW, [*ROW[:5], -float("inf")]])]}, f"vectors[1][5] is -Infinity, {BAD_VALUE}"),
    ({"inputs": [tensor(X, data=[ROW, [*ROW[:5], 1e39]])]}, f"vectors[1][5] is 1e+39, {BAD_VALUE}"),
    (
        {"inputs": [tensor(X, datatype="INT32", data=[0] * 7 + [1.5] + [0] * 4)]},
        "vectors[1][1] is 1.5, expected an integer that fits INT32.",
    ),
    (
        {"inputs": [tensor(X, datatype="UINT8", data=[0] * 11 + [256])]},
        "vectors[1][5] is 256.0, expected an integer that fits UINT8.",
    ),
    (
        {"inputs": [tensor(X, datatype="UINT64", data=[[0] * 6, [0] * 5 + [-1]])]},
        "vectors[1][5] is -1.0, expected an integer that fits UINT64.",
    ),
    (
        {"inputs": [tensor(X, data=None)]},
        "vectors.data is missing, expected a list of numbers, or vectors.parameters.binary_data_size.",
    ),
    (
        {"inputs": [tensor(X, data="1")]},
        'vectors.data is "1", expected a list of numbers, or vectors.parameters.binary_data_size.',
    ),
    (
        {"inputs": [tensor(X, parameters=SIZE)]},
        "vectors.data is there, expected none beside vectors.parameters.binary_data_size.",
    ),
    (
        {"inputs": [tensor(X, data=None, parameters={"shared_memory_region": "r"})]},
        'vectors.parameters.shared_memory_region is "r", expected none, as it is not supported.',
    ),
    ({"inputs": [tensor(X)], "outputs": 3}, "outputs is 3, expected a list of tensors."),
    (
        {"inputs": [tensor(X)], "outputs": [{"name": "latents"}]},
        'outputs[0] is "latents", expected one of scores, anomalies.',
    ),
    ({"inputs": [tensor(X)], "outputs": [{"name": "scores"}] * 2}, "Output scores is there twice, expected it once."),
    ({"inputs": [tensor(X)], "outputs": [{}]}, "outputs[0].name is missing, expected a string."),
    (
        {"inputs": [tensor(X)], "outputs": [{"name": "scores", "parameters": {"binary_data": "yes"}}]},
        'outputs[0].parameters.binary_data is "yes", expected true or false.',
    ),
    (
        {"inputs": [tensor(X)], "outputs": [{"name": "scores", "parameters": {"classification": 2}}]},
        "outputs[0].parameters.classification is 2, expected none, as it is not supported.",
    ),
]


@pytest.mark.parametrize(("document", "text"), MALFORMED, ids=[str(i) for i in range(len(MALFORMED))])
def test_malformed_documents(client: TestClient, document: object, text: str) -> None:
    response = client.post(INFER, content=json.dumps(document).encode())
    if text == "413":
        assert isinstance(document, dict)
        rows = document["inputs"][0]["shape"][0]
        check_error(response, 413, f"vectors has {rows} rows, at most 1000 are taken per request.")
    else:
        check_error(response, 400, text)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "The body is not JSON: Expecting value at line 1, column 1."),
        (b"{", "The body is not JSON: Expecting property name enclosed in double quotes at line 1, column 2."),
        (b"\xff", "The body is not UTF-8: byte 0xff at offset 0."),
        (b'{"inputs": [], "inputs": []}', 'The body has the key "inputs" twice.'),
        (b'{"inputs": [{"name": "a", "name": "a"}]}', 'The body has the key "name" twice.'),
        (
            b'{"outputs": [{"name": "a", "name": "a"}], "inputs": [{"name": "vectors"}]}',
            'The body has the key "name" twice.',
        ),
        (b"[" * 100_000, "The body is nested too deeply."),
    ],
)
def test_what_is_not_json(client: TestClient, content: bytes, text: str) -> None:
    check_error(client.post(INFER, content=content), 400, text)


SIZES = "Inference-Header-Content-Length"


@pytest.mark.parametrize(
    ("changed", "content", "json_bytes", "text"),
    [
        ({}, X.tobytes(), "x", f"{SIZES} is 'x', expected a number of bytes."),
        ({}, X.tobytes(), "-1", f"{SIZES} is '-1', expected a number of bytes."),
        ({}, X.tobytes(), "1e2", f"{SIZES} is '1e2', expected a number of bytes."),
        ({}, X.tobytes(), "", f"{SIZES} is '', expected a number of bytes."),
        ({}, X.tobytes(), "0" * 9 + "999", f"{SIZES} is 999, expected at most 158, the bytes of the body."),
        ({}, X.tobytes(), "9" * 999, f"{SIZES} is {'9' * 60}..., expected at most 158, the bytes of the body."),
        ({}, X.tobytes(), "0", "The body is not JSON: Expecting value at line 1, column 1."),
        (
            {},
            X.tobytes()[:-1],
            None,
            f"The body has 47 bytes behind its JSON, expected 48 for vectors, and {SIZES} with the length of the JSON.",
        ),
        (
            {},
            X.tobytes() + b"abc",
            None,
            f"The body has 51 bytes behind its JSON, expected 48 for vectors, and {SIZES} with the length of the JSON.",
        ),
        (
            {},
            b"",
            None,
            f"The body has 0 bytes behind its JSON, expected 48 for vectors, and {SIZES} with the length of the JSON.",
        ),
        (
            {"parameters": {}, "data": X.tolist()},
            b"abc",
            None,
            "The body has 3 bytes behind its JSON, expected none without vectors.parameters.binary_data_size.",
        ),
        (
            {"parameters": {"binary_data_size": 47}},
            X.tobytes(),
            None,
            "vectors.parameters.binary_data_size is 47, expected 48 for FP32 of shape [2, 6].",
        ),
        (
            {"parameters": {"binary_data_size": "48"}},
            X.tobytes(),
            None,
            'vectors.parameters.binary_data_size is "48", expected 48 for FP32 of shape [2, 6].',
        ),
        (
            {"parameters": {"binary_data_size": -48}},
            X.tobytes(),
            None,
            "vectors.parameters.binary_data_size is -48, expected 48 for FP32 of shape [2, 6].",
        ),
        (
            {"datatype": "FP64"},
            X.tobytes(),
            None,
            "vectors.parameters.binary_data_size is 48, expected 96 for FP64 of shape [2, 6].",
        ),
        ({"shape": [1, 12]}, X.tobytes(), None, "vectors.shape is [1, 12], expected [rows, 6]."),
        ({}, np.full((2, 6), np.nan, "<f4").tobytes(), None, f"vectors[0][0] is NaN, {BAD_VALUE}"),
        (
            {"datatype": "FP64", "parameters": {"binary_data_size": 96}},
            np.full((2, 6), 1e39).tobytes(),
            None,
            f"vectors[0][0] is 1e+39, {BAD_VALUE}",
        ),
    ],
)
def test_malformed_bytes(
    client: TestClient, changed: dict[str, object], content: bytes, json_bytes: object, text: str
) -> None:
    response = post_binary(client, {"inputs": [binary_tensor(X, **changed)]}, content, json_bytes=json_bytes)
    check_error(response, 400, text)


@pytest.mark.parametrize("model", ["nope", "thyroid.", "thyroid.scorer", "Thyroid", "thyroid.encoder.decoder", "%2F"])
@pytest.mark.parametrize("rest", ["", "/ready", "/infer", "/versions/1", "/versions/1/ready", "/versions/1/infer"])
def test_unknown_models(client: TestClient, model: str, rest: str) -> None:
    response = client.request("POST" if rest.endswith("infer") else "GET", f"/v2/models/{model}{rest}")
    assert response.status_code == 404
    assert set(response.json()) == {"error"}
    if model.isalpha():
        check_error(response, 404, f'No model "{model}". {KNOWN_MODELS}')


@pytest.mark.parametrize("version", ["3", "0", "01", "-1", "x", "1.0", "9" * 40])
@pytest.mark.parametrize("rest", ["", "/ready", "/infer"])
def test_unknown_versions(client: TestClient, version: str, rest: str) -> None:
    method = "POST" if rest == "/infer" else "GET"
    response = client.request(method, f"/v2/models/thyroid.encoder/versions/{version}{rest}")
    named = version if version == "3" else f'"{version}"'
    check_error(response, 404, f'No version {named} of dataset "thyroid". Known versions: 1, 2.')


@pytest.mark.parametrize(
    "path", ["/v2/", "/v2/models", "/v2/models/thyroid/config", "/v2/models/thyroid/stats", "/v2/logging"]
)
def test_unknown_paths_have_the_protocols_form(client: TestClient, path: str) -> None:
    check_error(client.get(path), 404, f"There is nothing at {path}; /docs lists what there is.")


def test_other_errors_have_the_protocols_form(client: TestClient) -> None:
    check_error(client.get(INFER), 405, f"{INFER} does not take GET.")
    response = client.post(INFER, content=b"", headers={"content-encoding": "br"})
    check_error(response, 415, "Content-Encoding is 'br', expected gzip, deflate, zstd or none.")
    text = "The body has 2000000 bytes, at most 1000000 are read. Send fewer rows per request."
    check_error(client.post(INFER, content=bytes(2_000_000)), 413, text)


def test_elsewhere_errors_are_problems(client: TestClient) -> None:
    for path in ("/v2x", "/v1/models/thyroid", "/datasets/nope"):
        assert client.get(path).headers["content-type"] == "application/problem+json"


def test_unforeseen_errors_give_nothing_away(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("service.v2.routes.read", fail)
    check_error(client.post(INFER, json={"inputs": [tensor(X)]}), 500, "internal error")


def test_results_that_are_not_finite(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def infinite(_: Detector, __: str, rows: np.ndarray) -> np.ndarray:
        return np.array([1.0, np.inf], dtype=np.float32)[: len(rows)]

    monkeypatch.setattr(Detector, "run", infinite)
    text = "vectors[1] has values so large that its result is not a finite number."
    check_error(client.post(INFER, json={"inputs": [tensor(X)]}), 400, text)


def test_more_requests_than_are_taken_at_once(app: FastAPI, client: TestClient) -> None:
    service = app.state.service
    service.gate.under_way += service.settings.max_in_flight
    try:
        response = client.post(INFER, json={"inputs": [tensor(X)]})
    finally:
        service.gate.under_way -= service.settings.max_in_flight
    check_error(response, 503, "64 requests are under way, more are not taken at once. Try again in a second.")
    assert response.headers["retry-after"] == "1"


FUZZ = {
    "inputs": [binary_tensor(X)],
    "id": "a",
    "outputs": [{"name": "scores", "parameters": {"binary_data": True}}, {"name": "anomalies"}],
    "parameters": {"binary_data_output": False},
}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("binary", [True, False])
def test_changed_bytes_are_answered_or_refused(client: TestClient, seed: int, binary: bool) -> None:
    generator = random.Random(seed)
    body, headers = packed(FUZZ, X.tobytes()) if binary else (json.dumps({"inputs": [tensor(X)]}).encode(), {})
    statuses = set()
    for _ in range(60):
        changed, length = bytearray(body), headers.get(JSON_BYTES)
        for _ in range(generator.randint(1, 3)):
            place = generator.randrange(len(changed))
            match generator.randrange(4):
                case 0:
                    changed[place] = generator.randrange(256)
                case 1:
                    changed[place] = generator.choice(b'0123456789-.e[]{}",:tfn \\')
                case 2:
                    del changed[place : place + generator.randint(1, 9)]
                case _:
                    changed[place:place] = changed[place : place + generator.randint(1, 9)]
        if length and generator.random() < 0.2:
            length = str(generator.randrange(2 * len(body)))
        response = client.post(INFER, content=bytes(changed), headers={JSON_BYTES: length} if length else {})
        assert response.status_code in (200, 400, 413), (bytes(changed), response.text)
        if response.status_code == 200:
            assert np.isfinite(outputs_of(response).get("scores", np.zeros(1))).all()
        else:
            assert set(response.json()) == {"error"}
        statuses.add(response.status_code)
    assert 400 in statuses


@pytest.mark.parametrize(
    ("data", "shape"), [(X.tolist(), [2, 6]), (X.ravel().tolist(), [2, 6]), ([ROW, ROW[:5]], [2, 6]), (ROW, [2, 6])]
)
def test_the_fast_and_the_strict_reading_agree(client: TestClient, data: list[Any], shape: list[int]) -> None:
    document = {"inputs": [tensor(X, data=data, shape=shape)]}
    fast = client.post(INFER, json=document)
    strict = client.post(INFER, json={"a bracket [": 1, **document})  # counts as unusual
    assert (fast.status_code, fast.content) == (strict.status_code, strict.content)
