"""Requests of the tests, and the check that an answer is the problem it should be."""

import gzip
import zlib

import httpx
from backports import zstd
from fastapi.testclient import TestClient

COMPRESS = [("gzip", gzip.compress), ("deflate", zlib.compress), ("zstd", zstd.compress)]
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
