"""The application from its start to its readiness, or to its failure."""

import asyncio
import itertools
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service import inference
from service.app import create_app, publish_regularly
from service.catalog import Catalog
from service.detector import Detector
from service.errors import StartError
from service.exchange import Exchange
from service.formats import Body
from service.graphs import Matrix
from service.repository import ModelRepository
from service.settings import Settings
from tests.server import MODELS
from tests.service.conftest import wait_until_ready


def test_it_lives_before_it_is_ready(monkeypatch: pytest.MonkeyPatch, models: Path) -> None:
    may_load = threading.Event()
    load = Catalog.open

    def slow_load(catalog: Catalog, strict: bool = False) -> ModelRepository:
        may_load.wait(timeout=30)
        return load(catalog, strict)

    monkeypatch.setattr(Catalog, "open", slow_load)
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


def test_long_bodies_beyond_their_share_are_asked_to_wait_and_short_ones_are_not(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_answer = threading.Event()
    read_at_once = Exchange.read

    def slowly(exchange: Exchange, body: Body) -> tuple[Detector, Matrix]:
        if len(body) > 10_000:
            may_answer.wait(timeout=30)
        return read_at_once(exchange, body)

    app = create_app(Settings(models=models, max_in_flight=8))
    body = {"dataset": "thyroid", "vectors": [[0.5] * 6] * 1000}  # long enough for a thread
    with TestClient(app) as client, ThreadPoolExecutor(2) as pool:
        wait_until_ready(client)
        monkeypatch.setattr(Exchange, "read", slowly)
        monkeypatch.setattr(inference, "INLINE_BYTES", 10_000)
        first = [pool.submit(client.post, "/score", json=body) for _ in range(2)]
        deadline = time.monotonic() + 30
        while app.state.service.gate.long < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        third = client.post("/score", json=body)
        assert client.get("/health/live").status_code == 200
        short = client.post("/score", json={"dataset": "thyroid", "vectors": [[0.5] * 6]})
        may_answer.set()
        assert [answer.result().status_code for answer in first] == [200, 200]
        assert short.status_code == 200, "long bodies took what is kept for short ones"
        assert (third.status_code, third.json()["kind"], third.headers["retry-after"]) == (503, "overloaded", "1")
        detail = "2 requests with long bodies are under way, more are not taken at once. Try again in a second."
        assert third.json()["detail"] == detail
        assert client.post("/score", json=body).status_code == 200


def test_an_unforeseen_error_while_loading_is_a_failed_start(
    models: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def load(*_: object) -> ModelRepository:
        raise RuntimeError("never seen before")

    errors: list[StartError] = []
    monkeypatch.setattr(Catalog, "open", load)
    with TestClient(create_app(Settings(models=models), errors.append)):
        pass
    assert str(errors[0]) == "unforeseen: RuntimeError('never seen before'); the log has the rest"
    assert "Traceback" in caplog.text


def test_building_reads_no_models(tmp_path: Path) -> None:
    app = create_app(Settings(models=tmp_path / "nowhere"))
    assert app.state.service.repository is None


def test_applications_do_not_share_models(models: Path) -> None:
    with (
        TestClient(create_app(Settings(models=models))) as small,
        TestClient(create_app(Settings(models=MODELS))) as all_,
    ):
        assert wait_until_ready(small).get("/health/ready").json()["models"] == 1
        assert wait_until_ready(all_).get("/health/ready").json()["models"] == len(list(MODELS.glob("*/*")))


def test_a_publication_that_fails_is_logged_and_the_next_one_is_tried(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(Settings(models=MODELS))
    third, tried = asyncio.Event(), itertools.count(1)

    def publish() -> None:
        if next(tried) < 3:
            raise OSError(28, "No space left on device")
        third.set()

    async def wait() -> None:
        task = asyncio.create_task(publish_regularly(app.state.service))
        await asyncio.wait_for(third.wait(), timeout=30)
        task.cancel()

    monkeypatch.setattr("service.app.SECONDS_BETWEEN_PUBLICATIONS", 0.001)
    monkeypatch.setattr(app.state.service, "publish_metrics", publish)
    asyncio.run(wait())
    assert [record.message for record in caplog.records] == ["the metrics could not be published"] * 2
    assert "No space left on device" in caplog.text
