"""The real process: it starts, answers over HTTP, is stopped, and says why it can't start."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.server import MODELS, ROOT, SECONDS, SERVICE, environment, serving


def test_it_scores_real_rows_of_each_model_and_stops_on_sigterm(tmp_path: Path) -> None:
    with serving(tmp_path / "log") as server, server.client() as client:
        scored = 0
        for dataset in client.get("/datasets").json()["datasets"]:
            name = dataset["dataset"]
            examples = json.loads((MODELS / name / str(dataset["newest"]) / "examples.json").read_text())
            answer = client.post("/score", json={"dataset": name, "vectors": examples["x"]}).json()
            assert answer["scores"] == pytest.approx(examples["score"], rel=1e-5, abs=1e-5), name
            assert answer["anomalies"] == [score >= answer["threshold"] for score in answer["scores"]]
            scored += 1
        assert scored == len([path for path in MODELS.iterdir() if path.is_dir()])
        metrics = client.get("/metrics").text
        assert 'radogaga_rows_total{dataset="thyroid",endpoint="/score"} 16.0' in metrics
        assert "radogaga_ready 1.0" in metrics
        assert "process_resident_memory_bytes" in metrics
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=SECONDS) == 0
    assert any(line["logger"] == "service.access" and line.get("dataset") == "thyroid" for line in server.lines())


def test_what_is_far_too_much_is_refused_by_the_default_settings(tmp_path: Path) -> None:
    """200,000 rows, and 100 MB of a body whose length is said, or isn't."""
    headers = {"content-type": "application/json"}
    rows = json.dumps({"dataset": "thyroid", "vectors": [[0.5] * 6] * 200_000}).encode()
    with serving(tmp_path / "log") as server, server.client() as client:
        answer = client.post("/score", content=rows, headers=headers)
        assert (answer.status_code, answer.json()["kind"]) == (413, "too_many_rows")
        assert answer.json()["detail"] == "vectors has 200000 rows, at most 16384 are taken per request."
        megabyte = b" " * 1_000_000
        contents: list[bytes | Iterator[bytes]] = [megabyte * 100, (megabyte for _ in range(100))]
        for content in contents:
            try:
                answer = client.post("/score", content=content, headers=headers)
            except httpx.TransportError:  # the connection was closed while we were still sending
                continue
            assert (answer.status_code, answer.json()["kind"]) == (413, "body_too_large")
        refused = 'radogaga_errors_total{kind="body_too_large"} 2.0'
        assert refused in client.get("/metrics").text


def test_sigterm_lets_requests_under_way_finish(tmp_path: Path) -> None:
    row = json.loads((MODELS / "arrhythmia" / "1" / "examples.json").read_text())["x"][0]
    content = json.dumps({"dataset": "arrhythmia", "vectors": [row] * 10_000}).encode()
    with serving(tmp_path / "log") as server, server.client() as client, ThreadPoolExecutor(1) as pool:
        half = len(content) // 2

        def slowly() -> Iterator[bytes]:
            yield content[:half]
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            yield content[half:]

        headers = {"content-type": "application/json"}
        answer = pool.submit(client.post, "/score", content=slowly(), headers=headers).result()
        assert answer.status_code == 200
        assert len(answer.json()["scores"]) == 10_000
        assert server.process.wait(timeout=SECONDS) == 0


def test_a_request_that_never_ends_does_not_hold_the_end_up_for_ever(tmp_path: Path) -> None:
    with (
        serving(tmp_path / "log", shutdown_seconds=1) as server,
        server.client() as client,
        ThreadPoolExecutor(1) as pool,
    ):

        def never_ending() -> Iterator[bytes]:
            yield b"{"
            server.process.send_signal(signal.SIGTERM)
            server.process.wait(timeout=SECONDS)
            yield b"}"

        headers = {"content-type": "application/json"}
        answer = pool.submit(client.post, "/score", content=never_ending(), headers=headers).result()
        assert (answer.status_code, answer.json()["kind"]) == (503, "shutting_down")
        assert server.process.wait(timeout=SECONDS) == 0


def start_that_fails(**settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        SERVICE,
        cwd=ROOT,
        env=environment(**{"port": 0, **settings}),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def test_a_broken_model_stops_the_start(folder: Path) -> None:
    (folder / "scorer.onnx").write_bytes(b"")
    done = start_that_fails(models=folder.parents[1])
    assert done.returncode == 1
    assert f"the service did not start: {folder}/scorer.onnx: sha256 is e3b0c442" in done.stderr


def test_a_demanded_gpu_that_is_not_there_stops_the_start() -> None:
    done = start_that_fails(models=MODELS, provider="cuda")
    assert done.returncode == 1
    assert "the service did not start: RADOGAGA_PROVIDER is 'cuda'" in done.stderr


def test_a_wrong_setting_is_named_with_its_value() -> None:
    done = start_that_fails(port="eighty")
    assert done.returncode == 1
    assert "RADOGAGA_PORT is 'eighty': Input should be a valid integer" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_taken_port_is_an_error(tmp_path: Path) -> None:
    with serving(tmp_path / "log") as server:
        port = server.url().rpartition(":")[2]
        done = start_that_fails(models=MODELS, port=port)
    assert done.returncode not in (0, None)
    assert "address already in use" in done.stdout


def test_a_misspelt_variable_is_warned_of(tmp_path: Path) -> None:
    with serving(tmp_path / "log", thread=2) as server:
        server.url()
    assert any("RADOGAGA_THREAD is no setting" in str(line["message"]) for line in server.lines())
