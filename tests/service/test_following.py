"""A service that runs follows its folder of models: with one process and with several, watched or not."""

import asyncio
import logging
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.following import Bell, watch
from service.settings import Settings
from service.thresholds import change_threshold
from tests.server import SECONDS, Server, serving
from tests.service.conftest import wait_until_ready
from tests.service.versions import copy_version

ROW = {"dataset": "thyroid", "vectors": [[0.5] * 6]}


def until(true: Callable[[], bool], text: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, text()
        time.sleep(0.02)


def served(client: httpx.Client, of: str = "version") -> float:
    return float(client.post("/score", json=ROW).json()[of])


def followed(models: Path, **settings: object) -> TestClient:
    return TestClient(create_app(Settings.model_validate({"models": models, **settings})))


def test_versions_come_and_go_without_a_restart(models: Path, folder: Path) -> None:
    with followed(models) as client:
        assert served(wait_until_ready(client)) == 1
        added = copy_version(folder, 2)
        until(lambda: served(client) == 2)
        assert client.post("/score", json=ROW | {"version": 1}).json()["version"] == 1
        assert [each["version"] for each in client.get("/datasets/thyroid").json()["versions"]] == [1, 2]
        assert client.post("/v2/models/thyroid/versions/2/infer", json={}).status_code == 400
        shutil.rmtree(added)
        until(lambda: served(client) == 1)
        assert client.post("/score", json=ROW | {"version": 2}).json()["kind"] == "version_not_found"
        metrics = client.get("/metrics").text
    assert 'radogaga_model_loads_total{result="served"} 2.0' in metrics
    assert (
        'radogaga_model_info{dataset="thyroid",method="RaDOGAGA",provider="CPUExecutionProvider",version="1"}'
        in metrics
    )
    assert 'version="2"' not in metrics


def test_a_bad_version_is_shown_with_its_reason_and_counted(models: Path, folder: Path) -> None:
    with followed(models) as client:
        wait_until_ready(client)
        added = copy_version(folder, 2)
        (added / "scorer.onnx").write_bytes(b"no graph")
        until(lambda: client.get("/health/ready").json()["refused"] == 1)
        assert served(client) == 1
        [refused] = client.get("/datasets").json()["refused"]
        assert refused == client.get("/datasets/thyroid").json()["refused"][0]
        assert refused["entry"] == "thyroid/2"
        assert refused["reason"].startswith("thyroid/2/scorer.onnx: sha256 is ")
        [entry] = [each for each in client.post("/v2/repository/index").json() if each["state"] == "UNAVAILABLE"]
        assert (entry["name"], entry["version"], entry["reason"]) == ("thyroid", "2", refused["reason"])
        metrics = client.get("/metrics").text
        assert 'radogaga_model_loads_total{result="refused"} 1.0' in metrics
        assert "radogaga_models_refused 1.0" in metrics
        shutil.rmtree(added)
        until(lambda: client.get("/datasets").json()["refused"] == [])
        assert "radogaga_models_refused 0.0" in client.get("/metrics").text


def test_a_threshold_is_changed_without_a_restart(models: Path, folder: Path) -> None:
    with followed(models) as client:
        before = served(wait_until_ready(client), "threshold")
        change_threshold(folder.parent, 1, -1000.0, "all of them")
        until(lambda: served(client, "threshold") == -1000.0)
        assert client.post("/score", json=ROW).json()["anomalies"] == [True]
        model = client.get("/datasets/thyroid").json()["versions"][0]
        assert (model["threshold"], model["calibrated_threshold"]) == (-1000.0, before)
        [change] = model["threshold_changes"]
        assert (change["threshold"], change["why"]) == (-1000.0, "all of them")
        assert 'radogaga_threshold{dataset="thyroid",version="1"} -1000.0' in client.get("/metrics").text


def test_where_watching_does_not_work_it_is_looked_at(
    models: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_watches(*_: object, **__: object) -> None:
        raise OSError(28, "no inotify watches left")

    monkeypatch.setattr("service.following.awatch", no_watches)
    with caplog.at_level(logging.WARNING), followed(models, poll_seconds=0.1) as client:
        wait_until_ready(client)
        copy_version(folder, 2)
        until(lambda: served(client) == 2)
    assert "can't be watched, and is looked at now and then only: [Errno 28] no inotify watches left" in caplog.text


def test_watching_sees_a_change_at_once(models: Path, folder: Path) -> None:
    async def ring() -> None:
        bell = Bell()
        watcher = asyncio.create_task(watch(models, bell))
        await asyncio.sleep(0.5)
        copy_version(folder, 2)
        assert await asyncio.wait_for(bell.wait(None), timeout=SECONDS) is False
        watcher.cancel()

    asyncio.run(ring())


def test_a_look_that_fails_is_logged_and_tried_again(
    models: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with followed(models, poll_seconds=0.05) as client:
        wait_until_ready(client)
        with monkeypatch.context() as patch:
            patch.setattr("service.catalog.look_at", lambda *_, **__: 1 / 0)
            until(lambda: "the models could not be looked at" in caplog.text)
        copy_version(folder, 2)
        until(lambda: served(client) == 2)
    assert "ZeroDivisionError" in caplog.text


def test_metrics_that_fail_do_not_keep_new_models_from_being_served(
    models: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with followed(models, poll_seconds=0.05) as client:
        wait_until_ready(client)
        with monkeypatch.context() as patch:
            patch.setattr("service.inference.Service.publish_metrics", lambda _: 1 / 0)
            copy_version(folder, 2)
            until(lambda: served(client) == 2)
        copy_version(folder, 3)
        until(lambda: served(client) == 3)
    assert "the metrics could not be brought up to date" in caplog.text


def test_requests_under_way_are_answered_by_the_version_they_were_read_for(models: Path) -> None:
    app = create_app(Settings(models=models, max_batch_rows=8, poll_seconds=0))
    with TestClient(app) as client:
        wait_until_ready(client)
        service = app.state.service
        gone = service.repository.find("thyroid")
        assert service.elsewhere(gone, "scorer", [[0.5] * 6], 100) is not None
        assert len(service._batchers) == 1
        service.serve(type(service.repository)({"thyroid": {2: gone.changed(None)}}))
        assert service._batchers == {}
        assert service.elsewhere(gone, "scorer", [[0.5] * 6], 100) is None


def test_sighup_looks_and_tries_again(models: Path, folder: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "log", models=models, poll_seconds=0) as server, server.client() as client:
        copy_version(folder, 2)
        time.sleep(1.0)
        assert served(client) == 1
        server.process.send_signal(signal.SIGHUP)
        until(lambda: served(client) == 2, server.log.read_text)
        server.process.terminate()
        assert server.process.wait(timeout=SECONDS) == 0


def each_worker(server: Server, of: str) -> dict[str, float]:
    """Asks over many connections, and returns what each worker answers."""
    found: dict[str, float] = {}
    for _ in range(12):
        answer = httpx.post(f"{server.url()}/score", json=ROW, trust_env=False)
        found[answer.headers["x-request-id"][:16]] = float(answer.json()[of])
    return found


def test_workers_agree_within_a_second(models: Path, folder: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "log", models=models, workers=2) as server:
        until(lambda: sum(line["message"] == "ready" for line in server.lines()) == 2, server.log.read_text)
        seconds = []
        changes: list[tuple[str, float, Callable[[], object]]] = [
            ("version", 2, lambda: copy_version(folder, 2)),
            ("threshold", 5.5, lambda: change_threshold(folder.parent, 2, 5.5, "for a test")),
            ("version", 1, lambda: shutil.rmtree(folder.parent / "2")),
        ]
        for number, (of, value, change) in enumerate(changes, 1):
            change()
            until(
                lambda of=of, value=value: set(each_worker(server, of).values()) == {value},  # type: ignore[misc]
                server.log.read_text,
            )
            lines = [line for line in server.lines() if line["message"] == "serving"]
            assert len(lines) == 2 * number
            first, last = (str(line["time"])[17:26] for line in lines[-2:])
            seconds.append((float(last) - float(first)) % 60)
        assert len(each_worker(server, "version")) == 2
        assert max(seconds) < 1.0
        server.process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert len(re.findall("Started server process", server.log.read_text())) == 2
        server.process.terminate()
        assert server.process.wait(timeout=SECONDS) == 0
