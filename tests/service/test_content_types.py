"""Every format over HTTP: the same scores whatever the body and the answer are written in."""

import csv
import io
import json
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from service.formats import FORMATS
from tests.service.requests import COMPRESS, ROW, check_problem

ARROW, NPY, RAW, CSV = (
    "application/vnd.apache.arrow.stream",
    "application/x-npy",
    "application/octet-stream",
    "text/csv",
)
TARGET = {"dataset": "thyroid", "version": "2"}


def body(media_type: str, x: np.ndarray, names: list[str] | None = None) -> bytes:
    """Writes rows in a format."""
    if media_type == ARROW:
        named = names or [f"c{i}" for i in range(x.shape[1])]
        batch = pa.record_batch({name: pa.array(x[:, i]) for i, name in enumerate(named)})
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        return sink.getvalue()
    if media_type == NPY:
        stream = io.BytesIO()
        np.save(stream, x)
        return stream.getvalue()
    if media_type == RAW:
        return x.astype("<f4").tobytes()
    lines = [",".join(names)] if names else []
    return "\n".join(lines + [",".join(map(repr, row)) for row in x.tolist()]).encode()


def column(response: httpx.Response, name: str) -> list[Any]:
    """Reads the first column of an answer, or the one of a name."""
    assert response.status_code == 200, response.text
    kind = response.headers["content-type"].partition(";")[0]
    if kind == "application/json":
        return list(response.json()[name])
    if kind == ARROW:
        return list(pa.ipc.open_stream(response.content).read_all()[name].to_pylist())
    if kind == NPY:
        return list(np.load(io.BytesIO(response.content)).tolist())
    if kind == RAW:
        return list(np.frombuffer(response.content, "<f4").astype(np.float64).tolist())
    return [float(row[name]) for row in csv.DictReader(io.StringIO(response.text))]


@pytest.fixture(scope="module")
def names(client: TestClient) -> list[str]:
    features = client.get("/datasets/thyroid").json()["versions"][0]["features"]
    return [feature["name"] for feature in features]


@pytest.fixture(scope="module")
def x(examples: dict[str, Any]) -> np.ndarray:
    return np.asarray(examples["x"], dtype=np.float32)


@pytest.mark.parametrize("accept", FORMATS)
@pytest.mark.parametrize("sent", [ARROW, NPY, RAW, CSV])
def test_scores_are_the_same_in_every_format(
    client: TestClient, x: np.ndarray, names: list[str], sent: str, accept: str
) -> None:
    plain = client.post("/score", json={"dataset": "thyroid", "version": 2, "vectors": x.tolist()}).json()
    headers = {"content-type": sent, "accept": accept}
    response = client.post("/score", params=TARGET, content=body(sent, x, names), headers=headers)
    assert column(response, "scores") == plain["scores"]
    assert response.headers["content-type"].partition(";")[0] == accept
    if accept != "application/json":
        assert response.headers["x-radogaga-version"] == "2"
        assert float(response.headers["x-radogaga-threshold"]) == plain["threshold"]


def test_columns_may_come_in_any_order(client: TestClient, x: np.ndarray, names: list[str]) -> None:
    turned = [3, 0, 5, 1, 4, 2]
    expected = client.post("/score", json={"dataset": "thyroid", "vectors": x.tolist()}).json()["scores"]
    for kind in (ARROW, CSV):
        content = body(kind, x[:, turned], [names[i] for i in turned])
        response = client.post("/score?dataset=thyroid", content=content, headers={"content-type": kind})
        assert response.json()["scores"] == expected


@pytest.mark.parametrize("kind", [ARROW, NPY, RAW, CSV])
def test_rows_go_to_latents_and_back_in_every_format(
    client: TestClient, x: np.ndarray, names: list[str], kind: str
) -> None:
    headers = {"content-type": kind, "accept": kind}
    encoded = client.post("/encode?dataset=thyroid", content=body(kind, x, names), headers=headers)
    plain = client.post("/encode", json={"dataset": "thyroid", "vectors": x.tolist()}).json()["latents"]
    decoded = client.post("/decode?dataset=thyroid", content=encoded.content, headers=headers)
    expected = client.post("/decode", json={"dataset": "thyroid", "latents": plain}).json()["vectors"]
    assert decoded.status_code == 200, decoded.text
    assert {ARROW: arrow_matrix, NPY: npy_matrix, RAW: raw_matrix, CSV: csv_matrix}[kind](decoded.content) == expected


def arrow_matrix(content: bytes) -> list[list[float]]:
    table = pa.ipc.open_stream(content).read_all()
    return as_json(np.column_stack([column.to_numpy() for column in table.columns]))


def npy_matrix(content: bytes) -> list[list[float]]:
    return as_json(np.load(io.BytesIO(content)))


def raw_matrix(content: bytes) -> list[list[float]]:
    return as_json(np.frombuffer(content, "<f4").reshape(-1, 6))


def csv_matrix(content: bytes) -> list[list[float]]:
    rows = list(csv.reader(io.StringIO(content.decode())))[1:]
    return as_json(np.array(rows, dtype=np.float64).astype(np.float32))


def as_json(matrix: np.ndarray) -> list[list[float]]:
    """Writes float32 as JSON does: with as many digits as it takes to read the same bits again."""
    return [[float(str(value)) for value in row] for row in matrix]


@pytest.mark.parametrize(
    ("accept", "answered"),
    [
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("text/*", CSV),
        ("text/html, application/xhtml+xml, */*;q=0.8", "application/json"),
        (f"{NPY};q=0.5, {CSV};q=0.9", CSV),
        (f"{NPY};q=0, {CSV};q=0.1", CSV),
        (NPY.upper(), NPY),
        ("application/json; charset=utf-8", "application/json"),
        (f"{'x' * 300}, {CSV}", CSV),
        (f"application/json;q=0, {CSV};q=0.5, */*;q=0.1", CSV),
        ("application/*;q=0, */*", CSV),
        (f"*/*;q=0.1, {NPY};q=0.2", NPY),
        ("text/*;q=0.9, application/json;q=0.9", CSV),
    ],
)
def test_the_format_of_the_answer_is_the_clients_choice(client: TestClient, accept: str, answered: str) -> None:
    response = client.post("/score", json={"dataset": "thyroid", "vectors": [ROW]}, headers={"accept": accept})
    assert response.headers["content-type"].partition(";")[0] == answered


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "", "nonsense"])
def test_a_format_that_no_answer_has(client: TestClient, accept: str) -> None:
    response = client.post("/score", json={"dataset": "thyroid", "vectors": [ROW]}, headers={"accept": accept})
    detail = f"Accept is '{accept}', answers are written as {', '.join(FORMATS)}."
    check_problem(response, 406, "not_acceptable", detail)


@pytest.mark.parametrize("kind", [ARROW, NPY, RAW, CSV])
def test_the_query_has_to_name_the_dataset(client: TestClient, x: np.ndarray, names: list[str], kind: str) -> None:
    headers = {"content-type": kind}
    response = client.post("/score", content=body(kind, x, names), headers=headers)
    detail = "dataset in the query is missing, expected ?dataset=<name>, as the body has no place for it."
    check_problem(response, 422, "invalid_field", detail)
    response = client.post("/score?dataset=thyroid&version=9", content=body(kind, x, names), headers=headers)
    check_problem(response, 404, "version_not_found", 'No version 9 of dataset "thyroid". Known versions: 1, 2.')


@pytest.mark.parametrize("kind", [ARROW, NPY, RAW, CSV])
def test_an_empty_body_is_refused_in_every_format(client: TestClient, kind: str) -> None:
    response = client.post("/score?dataset=thyroid", content=b"", headers={"content-type": kind})
    assert response.status_code in (400, 422)
    assert response.json()["kind"] in ("malformed_body", "invalid_field")


@pytest.mark.parametrize(("encoding", "compress"), COMPRESS)
def test_a_compressed_body_is_inflated(client: TestClient, encoding: str, compress: Any) -> None:  # noqa: ANN401
    plain = json.dumps({"dataset": "thyroid", "vectors": [ROW]}).encode()
    headers = {"content-type": "application/json", "content-encoding": encoding}
    response = client.post("/score", content=compress(plain), headers=headers)
    expected = client.post("/score", json={"dataset": "thyroid", "vectors": [ROW]}).json()
    assert response.json() == expected


@pytest.mark.parametrize(("encoding", "compress"), COMPRESS)
def test_a_bomb_is_refused(client: TestClient, encoding: str, compress: Any) -> None:  # noqa: ANN401
    bomb = compress(b"[" + bytes(300_000_000))
    assert len(bomb) < 1_000_000
    headers = {"content-type": "application/json", "content-encoding": encoding}
    response = client.post("/score", content=bomb, headers=headers)
    detail = "The body has inflated more than 1000000 bytes, at most 1000000 are read. Send fewer rows per request."
    check_problem(response, 413, "body_too_large", detail)
