"""What is measured and logged about requests, whatever becomes of them."""

import asyncio
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Message

from service.app import create_app
from service.logs import AccessLog
from service.settings import Settings
from tests.server import MODELS
from tests.service.conftest import wait_until_ready

ROW = [0.774193, 0.001132, 0.137571, 0.275701, 0.295775, 0.236066]


def sample(client: TestClient, name: str, **labels: str) -> float:
    """Reads one value from /metrics, 0 if it is not there."""
    for family in text_string_to_metric_families(client.get("/metrics").text):
        for found in family.samples:
            if found.name == name and found.labels == labels:
                return float(found.value)
    return 0.0


def test_a_scored_request_is_counted(client: TestClient, examples: dict[str, Any]) -> None:
    def counted() -> list[float]:
        labels = {"endpoint": "/score", "dataset": "thyroid"}
        return [
            sample(client, "radogaga_request_duration_seconds_count", **labels, status="200"),
            sample(client, "radogaga_rows_total", **labels),
            sample(client, "radogaga_anomalies_total", dataset="thyroid"),
        ]

    before = counted()
    answer = client.post("/score", json={"dataset": "thyroid", "vectors": examples["x"]}).json()
    gained = [after - first for after, first in zip(counted(), before, strict=True)]
    assert gained == [1, 16, sum(answer["anomalies"])]


def test_values_outside_the_training_range_are_counted(client: TestClient) -> None:
    name = "radogaga_values_outside_training_range_total"
    before = sample(client, name, dataset="thyroid")
    client.post("/score", json={"dataset": "thyroid", "vectors": [ROW, [9.0] * 6]})
    assert sample(client, name, dataset="thyroid") - before == 6
    client.post("/score", json={"dataset": "thyroid", "vectors": [[9.0] * 6] * 800})  # too many to be left for later
    assert sample(client, name, dataset="thyroid") - before == 6 + 4800


def test_errors_are_counted_by_kind_and_their_rows_are_not(client: TestClient) -> None:
    labels = {"endpoint": "/score", "dataset": "thyroid"}
    before = sample(client, "radogaga_errors_total", kind="wrong_width")
    rows = sample(client, "radogaga_rows_total", **labels)
    client.post("/score", json={"dataset": "thyroid", "vectors": [[1.0]]})
    assert sample(client, "radogaga_errors_total", kind="wrong_width") == before + 1
    assert sample(client, "radogaga_request_duration_seconds_count", **labels, status="422") >= 1
    assert sample(client, "radogaga_rows_total", **labels) == rows


def test_models_are_described(client: TestClient) -> None:
    labels = {"dataset": "thyroid", "version": "1"}
    more = {"method": "RaDOGAGA", "provider": "CPUExecutionProvider"}
    assert sample(client, "radogaga_model_info", **labels, **more) == 1
    answer = client.get("/datasets/thyroid").json()
    assert sample(client, "radogaga_threshold", **labels) == pytest.approx(answer["versions"][0]["threshold"])
    assert sample(client, "radogaga_ready") == 1
    assert sample(client, "radogaga_requests_in_flight") == 1  # the one that asks


def test_no_label_comes_from_the_client(client: TestClient) -> None:
    for path in ("/made-up", "/datasets/made-up"):
        client.get(path)
    client.post("/score", json={"dataset": "made-up", "vectors": [[1.0]]})
    assert "made-up" not in client.get("/metrics").text


def test_metrics_speak_the_format_that_is_asked_for(client: TestClient) -> None:
    plain = client.get("/metrics", headers={"accept": "text/plain"})
    assert plain.headers["content-type"].startswith("text/plain; version=")
    openmetrics = client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")


def test_two_applications_share_no_metrics() -> None:
    first, second = (create_app(Settings(models=MODELS)).state.service.metrics.registry for _ in range(2))
    assert isinstance(first, CollectorRegistry)
    assert first is not second


def test_a_request_id_is_kept_or_made(client: TestClient) -> None:
    assert client.get("/health/live", headers={"x-request-id": "a-1.b_2"}).headers["x-request-id"] == "a-1.b_2"
    made = {client.get("/health/live").headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3
    for harmful in ("a b", "x" * 129, "é", '"}'):
        headers = {b"x-request-id": harmful.encode("latin-1")}
        assert client.get("/health/live", headers=headers).headers["x-request-id"] != harmful


class Lines(AccessLog):
    """An access log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def write(self, lines: Iterable[dict[str, Any]]) -> None:
        self.lines += lines


def test_requests_are_logged(models: Path) -> None:
    log = Lines()
    with TestClient(create_app(Settings(models=models), access_log=log)) as client:
        wait_until_ready(client)
        log.lines.clear()
        client.post("/score", json={"dataset": "thyroid", "vectors": [ROW]}, headers={"x-request-id": "abc"})
        client.post("/score", json={"dataset": "thyroid", "vectors": []})
    scored, refused = log.lines
    assert scored.pop("milliseconds") > 0
    assert isinstance(scored.pop("time"), datetime)
    assert scored == {
        "level": "info",
        "logger": "service.access",
        "message": "request",
        "request_id": "abc",
        "client": "testclient",
        "method": "POST",
        "path": "/score",
        "status": 200,
        "dataset": "thyroid",
        "rows": 1,
    }
    assert (refused["status"], refused["error"]) == (422, "invalid_field")


def test_the_access_log_can_be_switched_off(models: Path) -> None:
    log = Lines()
    with TestClient(create_app(Settings(models=models, log_level="warning"), access_log=log)) as client:
        client.get("/health/live")
    assert not log.lines


def test_an_unforeseen_error_is_a_logged_500_that_gives_nothing_away(caplog: pytest.LogCaptureFixture) -> None:
    app = create_app(Settings(models=MODELS))

    @app.get("/broken")
    def broken() -> None:
        raise RuntimeError("a secret")

    client = TestClient(app)
    response = client.get("/broken")
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.json()["detail"], response.json()["kind"]) == ("internal error", "internal")
    assert "secret" not in response.text
    (record,) = [record for record in caplog.records if record.message == "unforeseen error"]
    assert record.exc_info is not None
    assert record.fields["request_id"] == response.headers["x-request-id"]  # type: ignore[attr-defined]
    assert sample(client, "radogaga_errors_total", kind="internal") == 1


def test_a_client_that_hangs_up_is_no_error_of_ours(app: FastAPI, client: TestClient) -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/score", "headers": headers, "query_string": b""}
    labels = {"endpoint": "/score", "dataset": "", "status": "499"}
    before = sample(client, "radogaga_request_duration_seconds_count", **labels)
    asyncio.run(app(scope, receive, send))
    assert sample(client, "radogaga_errors_total", kind="client_disconnected") >= 1
    assert sample(client, "radogaga_request_duration_seconds_count", **labels) == before + 1


@pytest.mark.parametrize("kept", [0, 1])
def test_a_client_that_hangs_up_while_it_is_answered_is_no_error_of_ours(
    app: FastAPI, client: TestClient, caplog: pytest.LogCaptureFixture, kept: int
) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if len(sent) == kept:
            raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/datasets", "headers": [], "query_string": b""}
    before = sample(client, "radogaga_errors_total", kind="client_disconnected")
    asyncio.run(app(scope, receive, send))
    assert sample(client, "radogaga_errors_total", kind="client_disconnected") == before + 1
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_another_error_of_the_server_is_logged(app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        raise RuntimeError(f"{message['type']}: Response content longer than Content-Length")

    scope = {"type": "http", "method": "GET", "path": "/datasets", "headers": [], "query_string": b""}
    asyncio.run(app(scope, receive, send))
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == ["unforeseen error"]
