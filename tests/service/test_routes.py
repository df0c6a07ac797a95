"""Every route by HTTP, with good input and with every kind of bad input."""

import asyncio
import gzip
import json
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.types import Message

from service import routes
from service.app import create_app
from service.detector import Detector, Matrix
from service.settings import Settings
from tests.server import MODELS
from tests.service.conftest import wait_until_ready

JSON = {"content-type": "application/json"}
ROW = [0.774193, 0.001132, 0.137571, 0.275701, 0.295775, 0.236066]
SCOPE = {"type": "http", "method": "POST", "path": "/score", "query_string": b""}
BAD_VALUE = "expected a finite number that fits a float32."


def post(client: TestClient, content: bytes | str, path: str = "/score") -> httpx.Response:
    response: httpx.Response = client.post(path, content=content, headers=JSON)
    return response


def body(rows: str, dataset: str = '"thyroid"') -> str:
    return f'{{"dataset": {dataset}, "vectors": {rows}}}'


def check_problem(response: httpx.Response, status: int, kind: str, detail: str) -> None:
    assert (response.status_code, response.json()["kind"]) == (status, kind), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"] == detail
    assert response.json()["status"] == status
    assert response.json()["request_id"] == response.headers["x-request-id"]


def test_score_answers_what_the_exporter_saw(client: TestClient, examples: dict[str, Any]) -> None:
    answer = client.post("/score", json={"dataset": "thyroid", "vectors": examples["x"]}).json()
    assert answer["scores"] == pytest.approx(examples["score"], rel=1e-5, abs=1e-5)
    assert answer["anomalies"] == [score >= answer["threshold"] for score in answer["scores"]]
    assert set(answer["anomalies"]) == {True, False}
    assert (answer["dataset"], answer["version"]) == ("thyroid", 1)


@pytest.mark.parametrize("dataset", sorted(path.parent.name for path in MODELS.glob("*/1")))
def test_a_row_scores_the_same_alone_and_in_a_batch(client: TestClient, dataset: str) -> None:
    rows = json.loads((MODELS / dataset / "1" / "examples.json").read_text())["x"]
    together = client.post("/score", json={"dataset": dataset, "vectors": rows}).json()["scores"]
    alone = [client.post("/score", json={"dataset": dataset, "vectors": [x]}).json()["scores"][0] for x in rows]
    assert together == alone


def test_encode_and_decode(client: TestClient, examples: dict[str, Any]) -> None:
    latents = client.post("/encode", json={"dataset": "thyroid", "vectors": examples["x"]}).json()
    assert np.allclose(latents["latents"], examples["z"], rtol=1e-5, atol=1e-5)
    vectors = client.post("/decode", json={"dataset": "thyroid", "latents": latents["latents"], "version": 1}).json()
    assert np.allclose(vectors["vectors"], examples["x_hat"], rtol=1e-5, atol=1e-5)
    assert (vectors["dataset"], vectors["version"]) == ("thyroid", 1)


def test_decode_names_the_row_of_a_latent_that_is_too_wide(client: TestClient) -> None:
    response = client.post("/decode", json={"dataset": "thyroid", "latents": [[0.0] * 6, [0.0] * 7]})
    check_problem(response, 422, "wrong_width", "latents[1] has 7 values, expected 6.")


def test_long_bodies_are_answered_alike_in_a_thread(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []
    respond_json = routes.respond_json

    def noting(*arguments: Any) -> bytes:  # noqa: ANN401 - passed on as they are
        threads.append(threading.current_thread().name)
        return respond_json(*arguments)

    monkeypatch.setattr(routes, "respond_json", noting)
    answer = client.post("/score", json={"dataset": "thyroid", "vectors": [ROW] * 900}).json()
    alone = client.post("/score", json={"dataset": "thyroid", "vectors": [ROW]}).json()
    assert answer["scores"] == alone["scores"] * 900
    in_a_thread, on_the_loop = threads
    assert in_a_thread != on_the_loop


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
    ('{"dataset": "thyroid"}', "vectors is missing, expected a list of rows."),
    (body("[[1]]", "3"), "dataset is 3, expected a string."),
    (body("[[1]]", "null"), "dataset is null, expected a string."),
    (body("[]"), "vectors is empty, expected at least one row."),
    (body("5"), "vectors is 5, expected a list of rows."),
    (body('"0.1,0.2"'), 'vectors is "0.1,0.2", expected a list of rows.'),
    (body("{}"), "vectors is an object, expected a list of rows."),
    (body("null"), "vectors is null, expected a list of rows."),
    (body("[1, 2, 3, 4, 5, 6]"), "vectors[0] is 1, expected a list of 6 numbers."),
    (body(f"[{ROW}, null]"), "vectors[1] is null, expected a list of 6 numbers."),
    (body('[[1]], "rows": 1'), '"rows" is unknown, expected the fields dataset, version and vectors.'),
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
    real = detector._sessions[graph]

    def run(outputs: list[str], inputs: dict[str, Matrix]) -> list[Matrix]:
        (result,) = real.run(outputs, inputs)
        result[1] = np.inf
        return [result]

    monkeypatch.setitem(detector._sessions, graph, SimpleNamespace(run=run))
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


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "application/json; charset=utf-16"],
)
def test_content_types_that_are_not_json(client: TestClient, content_type: str) -> None:
    response = client.post("/score", content=body(f"[{ROW}]"), headers={"content-type": content_type})
    detail = f"Content-Type is '{content_type}', expected application/json in UTF-8."
    check_problem(response, 415, "unsupported_media_type", detail)


def test_a_missing_content_type(client: TestClient) -> None:
    response = client.post("/score", content=body(f"[{ROW}]").encode())
    check_problem(
        response, 415, "unsupported_media_type", "Content-Type is missing, expected application/json in UTF-8."
    )


@pytest.mark.parametrize(
    "content_type", ["Application/JSON", "application/json; charset=utf-8", 'application/json;x=y; charset="UTF-8"']
)
def test_parameters_beside_the_content_type_are_fine(client: TestClient, content_type: str) -> None:
    headers = {"content-type": content_type}
    assert client.post("/score", content=body(f"[{ROW}]"), headers=headers).status_code == 200


def test_a_compressed_body(client: TestClient) -> None:
    response = client.post("/score", content=gzip.compress(b"{}"), headers={**JSON, "content-encoding": "gzip"})
    check_problem(response, 415, "unsupported_encoding", "Content-Encoding is 'gzip', expected none.")


def test_an_unknown_dataset_names_the_known_ones(client: TestClient) -> None:
    response = client.post("/score", json={"dataset": "nope", "vectors": [ROW]})
    known = ", ".join(sorted(path.name for path in MODELS.iterdir() if path.is_dir()))
    check_problem(response, 404, "dataset_not_found", f'No model for dataset "nope". Known datasets: {known}.')
    check_problem(client.get("/datasets/nope"), 404, "dataset_not_found", response.json()["detail"])


def test_a_lone_surrogate_in_a_name_does_not_break_the_answer(client: TestClient) -> None:
    response = post(client, body("[[1]]", '"\\ud800"'))
    assert response.status_code == 404
    assert 'dataset "\\ud800"' in response.json()["detail"]


@pytest.mark.parametrize("version", [0, -1, 2, 10**15, 2**64, 10**30])
def test_an_unknown_version_names_the_known_ones(client: TestClient, version: int) -> None:
    response = client.post("/score", json={"dataset": "thyroid", "vectors": [ROW], "version": version})
    detail = f'No version {version} of dataset "thyroid". Known versions: 1.'
    check_problem(response, 404, "version_not_found", detail)


def test_a_version_can_be_null_or_named(client: TestClient) -> None:
    answers = [
        client.post("/score", json={"dataset": "thyroid", "vectors": [ROW], **version}).json()
        for version in ({}, {"version": None}, {"version": 1})
    ]
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize(("method", "path"), [("GET", "/score"), ("PUT", "/encode"), ("POST", "/datasets")])
def test_wrong_methods(client: TestClient, method: str, path: str) -> None:
    response = client.request(method, path)
    check_problem(response, 405, "method_not_allowed", f"{path} does not take {method}.")
    assert response.headers["allow"]


def test_unknown_paths(client: TestClient) -> None:
    check_problem(client.get("/nope"), 404, "not_found", "There is nothing at /nope; /docs lists what there is.")


def test_datasets_describes_what_is_served(client: TestClient) -> None:
    listed = {entry["dataset"]: entry for entry in client.get("/datasets").json()["datasets"]}
    assert sorted(listed) == sorted(path.name for path in MODELS.iterdir() if path.is_dir())
    assert client.get("/datasets/thyroid").json() == listed["thyroid"]
    (model,) = listed["thyroid"]["versions"]
    manifest = json.loads((MODELS / "thyroid" / "1" / "manifest.json").read_text())
    assert model["threshold"] == manifest["threshold"]
    assert model["features"] == manifest["features"]
    assert model["metrics"] == manifest["provenance"]["metrics"]
    assert (model["columns"], model["latent_features"], model["newest"]) == (6, 6, True)
    assert model["provider"] == "CPUExecutionProvider"


def test_of_two_versions_the_newest_answers(folder: Path) -> None:
    second = folder.parent / "2"
    shutil.copytree(folder, second)
    manifest = json.loads((second / "manifest.json").read_text())
    (second / "manifest.json").write_text(json.dumps({**manifest, "version": 2, "threshold": -99.0}))
    with TestClient(create_app(Settings(models=folder.parents[1]))) as client:
        wait_until_ready(client)
        described = client.get("/datasets/thyroid").json()
        newest, first = (
            client.post("/score", json={"dataset": "thyroid", "vectors": [ROW], **version}).json()
            for version in ({}, {"version": 1})
        )
    assert described["newest"] == 2
    assert [(model["version"], model["newest"]) for model in described["versions"]] == [(1, False), (2, True)]
    assert (newest["version"], newest["threshold"], newest["anomalies"]) == (2, -99.0, [True])
    assert (first["version"], first["threshold"], first["scores"]) == (1, manifest["threshold"], newest["scores"])


def test_a_slash_at_the_end_is_another_path(client: TestClient) -> None:
    assert client.get("/datasets/", follow_redirects=False).status_code == 404


def test_what_a_client_sends_is_not_repeated_at_length(client: TestClient) -> None:
    name = "a" * 5000
    responses = [
        client.post("/score", json={"dataset": name, "vectors": [ROW]}),
        client.get(f"/datasets/{name}"),
        client.get(f"/{name}"),
        client.post("/score", content="{}", headers={"content-type": name}),
        client.post("/score", content="{}", headers={**JSON, "content-encoding": name}),
        post(client, body("[[1]], " + f'"{name}": 1')),
        client.post("/score", json={"dataset": "thyroid", "vectors": [ROW], "version": 10**4000}),
    ]
    for response in responses:
        assert 400 <= response.status_code < 500
        assert len(response.content) < 600, response.text[:1000]


@pytest.mark.parametrize("version", ["a.b", "9.9.9"])
def test_metrics_survive_odd_wishes(client: TestClient, version: str) -> None:
    response = client.get("/metrics", headers={"accept": f"application/openmetrics-text; version={version}"})
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")


def test_health(client: TestClient) -> None:
    assert client.get("/health/live").json() == {"status": "alive"}
    models = len(list(MODELS.glob("*/*/manifest.json")))
    assert client.get("/health/ready").json() == {
        "status": "ready",
        "models": models,
        "providers": ["CPUExecutionProvider"],
    }


@pytest.mark.parametrize("path", ["/health/ready", "/datasets", "/datasets/thyroid"])
def test_nothing_but_liveness_is_answered_before_the_models_are_loaded(path: str) -> None:
    client = TestClient(create_app(Settings(models=MODELS)))  # without its lifespan: nothing is loaded
    response = client.get(path)
    check_problem(response, 503, "not_ready", "The models are being loaded. Try again in a second.")
    assert response.headers["retry-after"] == "1"
    assert client.get("/health/live").status_code == 200
    assert client.post("/score", json={"dataset": "thyroid", "vectors": [ROW]}).status_code == 503


def test_the_docs_page_needs_no_other_host(client: TestClient) -> None:
    page = client.get("/docs").text
    assert "//" not in page.replace("://", "//").partition("<script src=")[0].replace("<!--", "")
    sources = [part.partition('"')[0] for part in page.split('src="')[1:] + page.split('href="')[1:]]
    assert sources
    for source in sources:
        assert source.startswith("/"), source
        assert not source.startswith("//"), source
        assert client.get(source).status_code == 200, source


def test_openapi_describes_requests_answers_and_errors(client: TestClient) -> None:
    openapi = client.get("/openapi.json").json()
    score = openapi["paths"]["/score"]["post"]
    schema = score["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]) == {"dataset", "version", "vectors"}
    assert set(score["responses"]) == {"200", "400", "404", "408", "413", "415", "422", "500", "503"}
    assert "application/problem+json" in score["responses"]["422"]["content"]
    assert set(openapi["paths"]["/datasets/{name}"]["get"]["responses"]) == {"200", "404", "500", "503"}
    assert "HTTPValidationError" not in openapi["components"]["schemas"]


def test_the_documented_example_works(client: TestClient) -> None:
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            if method == "post":
                example = operation["requestBody"]["content"]["application/json"]["example"]
                assert client.post(path, json=example).status_code == 200, path
