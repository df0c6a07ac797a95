"""The application from its start to its readiness, or to its failure."""

import asyncio
import json
import logging
import threading
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from starlette.types import Message

from service.app import create_app
from service.errors import StartError
from service.repository import ModelRepository
from service.runtime import Runtime
from service.settings import Settings
from tests.service.conftest import MODELS, wait_until_ready


def test_it_lives_before_it_is_ready(monkeypatch: pytest.MonkeyPatch, models: Path) -> None:
    may_load = threading.Event()
    load = ModelRepository.load

    def slow_load(folder: Path, runtime: Runtime) -> ModelRepository:
        may_load.wait(timeout=30)
        return load(folder, runtime)

    monkeypatch.setattr(ModelRepository, "load", slow_load)
    with TestClient(create_app(Settings(models=models))) as client:
        assert client.get("/health/live").status_code == 200
        assert client.get("/health/ready").status_code == 503
        assert "radogaga_ready 0.0" in client.get("/metrics").text
        may_load.set()
        wait_until_ready(client)


def test_a_failed_start_is_reported_and_never_ready(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "scorer.onnx").unlink()
    errors: list[StartError] = []
    reported = threading.Event()

    def report(error: StartError) -> None:
        errors.append(error)
        reported.set()

    settings = Settings(models=folder.parents[1])
    with caplog.at_level(logging.ERROR), TestClient(create_app(settings, report)) as client:
        assert reported.wait(timeout=30)
        assert client.get("/health/ready").status_code == 503
        assert client.get("/health/live").status_code == 200
    assert f"{folder}/scorer.onnx: can't be read" in str(errors[0])
    assert str(errors[0]) in caplog.text


def test_without_a_reporter_a_failed_start_is_still_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with TestClient(create_app(Settings(models=tmp_path))):
        pass
    assert f"the start failed: {tmp_path}: there is no model folder" in caplog.text


def test_more_requests_than_are_taken_at_once_are_asked_to_wait(models: Path) -> None:
    app = create_app(Settings(models=models, max_in_flight=2))
    body = json.dumps({"dataset": "thyroid", "vectors": [[0.5] * 6]}).encode()
    scope = {"type": "http", "method": "POST", "path": "/score", "query_string": b""}

    async def post(may_send: asyncio.Event) -> list[Message]:
        sent: list[Message] = []

        async def receive() -> Message:
            await may_send.wait()
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        await app({**scope, "headers": [(b"content-type", b"application/json")]}, receive, send)
        return sent

    async def three() -> list[list[Message]]:
        may_send = asyncio.Event()
        first = [asyncio.create_task(post(may_send)) for _ in range(2)]
        await asyncio.sleep(0)
        third = await post(may_send)
        may_send.set()
        return [*(await asyncio.gather(*first)), third]

    with TestClient(app) as client:
        wait_until_ready(client)
        *first, third = asyncio.run(three())
        assert [sent[0]["status"] for sent in first] == [200, 200]
        assert third[0]["status"] == 503
        assert dict(third[0]["headers"])[b"retry-after"] == b"1"
        detail = "2 requests are under way, more are not taken at once. Try again in a second."
        assert json.loads(third[1]["body"])["detail"] == detail
        assert client.post("/score", content=body, headers={"content-type": "application/json"}).status_code == 200


def test_importing_and_building_touches_no_models(tmp_path: Path) -> None:
    create_app(Settings(models=tmp_path / "nowhere"))


def test_applications_do_not_share_models(models: Path) -> None:
    with (
        TestClient(create_app(Settings(models=models))) as small,
        TestClient(create_app(Settings(models=MODELS))) as all_,
    ):
        assert wait_until_ready(small).get("/health/ready").json()["models"] == 1
        assert wait_until_ready(all_).get("/health/ready").json()["models"] == len(list(MODELS.glob("*/1")))
