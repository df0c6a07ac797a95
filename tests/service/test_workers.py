"""Several processes on one port, as one service."""

import os
import pickle
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from service.workers import Listener
from tests.server import ROOT, SECONDS, SERVICE, Server, environment, serving

CSV = {"content-type": "text/csv"}


def until(true: Callable[[], bool], server: Server) -> None:
    deadline = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.05)


def ready(server: Server) -> set[int]:
    """Returns the workers that said that they have all models."""
    started = [line for line in server.lines() if "Started server process" in str(line["message"])]
    count = sum(line["message"] == "ready" for line in server.lines())
    return {int(str(line["message"]).partition("[")[2].rstrip("]")) for line in started[:count]}


def scored_by(url: str) -> str:
    """Scores a row over a connection of its own, and returns what tells the worker that did it from others."""
    answer = httpx.post(f"{url}/score?dataset=thyroid", content="1,2,3,4,5,6", headers=CSV, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-request-id"][:16]


def scrape(url: str) -> str:
    return httpx.get(f"{url}/metrics", trust_env=False).text


def test_workers_share_a_port_their_metrics_and_the_end(tmp_path: Path) -> None:
    with serving(tmp_path / "log", [*SERVICE, "--workers", "2"]) as server:
        url = server.url()
        until(lambda: len(ready(server)) == 2, server)
        by = [scored_by(url) for _ in range(40)]
        assert len(set(by)) == 2  # in 2 of 2**40 cases not
        until(lambda: 'radogaga_rows_total{dataset="thyroid",endpoint="/score"} 40.0' in scrape(url), server)
        for _ in range(4):
            metrics = scrape(url)
            assert 'radogaga_rows_total{dataset="thyroid",endpoint="/score"} 40.0' in metrics
            assert "radogaga_ready 1.0" in metrics
            assert 'radogaga_model_info{dataset="thyroid",method="RaDOGAGA"' in metrics
            assert "pid=" not in metrics
        victim = min(ready(server))
        os.kill(victim, signal.SIGKILL)
        until(lambda: "died" in server.log.read_text() and len(ready(server)) == 3, server)
        assert len({scored_by(url) for _ in range(40)}) == 2
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=SECONDS) == 0


@pytest.mark.slow
def test_a_worker_that_has_no_processor_for_a_while_is_not_replaced(tmp_path: Path) -> None:
    with serving(tmp_path / "log", [*SERVICE, "--workers", "2"]) as server:
        until(lambda: len(ready(server)) == 2, server)
        held = min(ready(server))
        os.kill(held, signal.SIGSTOP)
        time.sleep(8)  # uvicorn's own patience is 5 seconds
        os.kill(held, signal.SIGCONT)
        until(lambda: len({scored_by(server.url()) for _ in range(20)}) == 2, server)
        assert not [line for line in server.lines() if "died" in str(line["message"])]


def test_workers_end_when_what_started_them_is_killed(tmp_path: Path) -> None:
    with serving(tmp_path / "log", workers=2) as server:
        until(lambda: len(ready(server)) == 2, server)
        workers = ready(server)
        server.process.kill()
        server.process.wait()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), server)


def test_a_start_that_fails_is_not_tried_again(tmp_path: Path) -> None:
    with serving(tmp_path / "log", workers=2, models=tmp_path / "nowhere") as server:
        assert server.process.wait(timeout=SECONDS) == 1
        text = server.log.read_text()
    assert f"the service did not start: {tmp_path}/nowhere: can't be read" in text
    assert "died" not in text


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(
            [*SERVICE, "--workers", "2"], cwd=ROOT, env=environment(port=port), capture_output=True, text=True
        )
    assert done.returncode == 1
    assert f"the service did not start: 127.0.0.1:{port}: Address already in use" in done.stderr


@pytest.mark.parametrize("number", ["0", "x", "1000"])
def test_numbers_of_workers_that_are_none(number: str) -> None:
    done = subprocess.run([*SERVICE, "--workers", number], cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert done.returncode == 1
    assert f"RADOGAGA_WORKERS is '{number}'" in done.stderr


def test_a_listener_is_opened_anew_where_it_is_unpickled() -> None:
    with Listener.hold("127.0.0.1", 0) as held, pickle.loads(pickle.dumps(held)) as opened:  # noqa: S301 - our own
        assert opened.getsockname() == held.getsockname()
        assert opened.fileno() != held.fileno()
        opened.listen()
        with socket.create_connection(held.getsockname()):
            connection, _ = opened.accept()
            connection.close()
