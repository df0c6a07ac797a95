"""Graphs of long bodies run in threads where there is a core to spare, and nobody notices but by the time."""

import asyncio
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient

from service import inference
from service.app import create_app
from service.aside import Aside, Threads, cores
from service.detector import Detector
from service.graphs import Graph, Matrix
from service.inference import ASIDE_BYTES
from service.runtime import Runtime
from service.settings import Settings
from tests.server import MODELS, SECONDS, Server, serving
from tests.service.conftest import wait_until_ready

ROWS = np.random.default_rng(0).random((200, 121)).round(6).tolist()

LONG = json.dumps({"dataset": "kddcup99", "vectors": ROWS}).encode()

JSON = {"content-type": "application/json"}

COMMAND = (
    "from service import inference, __main__ as program; inference.cores = lambda: 3; raise SystemExit(program.main())"
)
"""The service on a machine that has three cores, whatever this one has."""

SLOW = "self._threads.submit(lambda rows: (time.sleep(1.5), self._run(rows))[1], rows, done)"


def run_aside(threads: Threads, *graphs: Callable[[Matrix], Matrix]) -> list[Any]:
    async def run() -> list[Any]:
        row = np.ones((1, 2), np.float32)
        return list(await asyncio.gather(*(Aside(threads, graph)(row) for graph in graphs), return_exceptions=True))

    return asyncio.run(run())


def test_a_graph_runs_in_a_thread_and_is_answered_on_the_event_loop() -> None:
    threads, seen = Threads(1, 4), []

    def graph(rows: Matrix) -> Matrix:
        seen.append(threading.current_thread().name)
        return 2 * rows

    (results,) = run_aside(threads, graph)
    assert results.tolist() == [[2, 2]]
    assert seen[0].startswith("graphs")
    threads.close()


def test_what_a_graph_raises_is_raised_where_it_is_waited_for() -> None:
    def graph(rows: Matrix) -> Matrix:
        raise ValueError(len(rows))

    threads = Threads(1, 4)
    first, second = run_aside(threads, graph, lambda rows: rows)
    assert isinstance(first, ValueError)
    assert second.tolist() == [[1, 1]]
    threads.close()


def test_there_is_room_for_so_many_and_then_for_more_again() -> None:
    threads, gate, room = Threads(1, 2), threading.Event(), []

    async def fill() -> None:
        def graph(rows: Matrix) -> Matrix:
            gate.wait(SECONDS)
            return rows

        row = np.ones((1, 2), np.float32)
        room.append(threads.have_room)
        waiting = [asyncio.ensure_future(Aside(threads, graph)(row)) for _ in range(2)]
        await asyncio.sleep(0)
        room.append(threads.have_room)
        gate.set()
        await asyncio.gather(*waiting)
        room.append(threads.have_room)

    asyncio.run(fill())
    assert room == [True, False, True]
    threads.close()


def test_without_threads_there_is_no_room() -> None:
    assert not Threads(0, 64).have_room


def test_cores_are_those_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores() == os.cpu_count()


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads that graphs have run in."""
    names: list[str] = []
    run = Graph.run

    def noting(self: Graph, rows: Matrix) -> Matrix:
        names.append(threading.current_thread().name)
        return run(self, rows)

    monkeypatch.setattr(Graph, "run", noting)
    return names


@pytest.mark.parametrize(
    ("available", "workers", "aside"), [(1, 1, False), (2, 1, True), (4, 2, True), (3, 2, False), (1, 2, False)]
)
def test_long_bodies_go_aside_if_there_is_a_core_to_spare(
    monkeypatch: pytest.MonkeyPatch, seen: list[str], available: int, workers: int, aside: bool
) -> None:
    monkeypatch.setattr(inference, "cores", lambda: available)
    with TestClient(create_app(Settings(models=MODELS, workers=workers))) as client:
        wait_until_ready(client)
        seen.clear()
        assert client.post("/score", content=LONG, headers=JSON).status_code == 200
        assert [name.startswith("graphs") for name in seen] == [aside]
        seen.clear()
        assert client.post("/score", json={"dataset": "kddcup99", "vectors": ROWS[:20]}).status_code == 200
        assert [name.startswith("graphs") for name in seen] == [False]


def test_a_score_that_is_not_finite_is_refused_from_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "cores", lambda: 2)
    with TestClient(create_app(Settings(models=MODELS))) as client:
        wait_until_ready(client)
        monkeypatch.setattr(Detector, "run", lambda *_: np.array([1, np.nan] * 100, np.float32))
        answer = client.post("/score", content=LONG, headers=JSON)
        assert (answer.status_code, answer.json()["kind"]) == (422, "result_not_finite")
        assert answer.json()["detail"].startswith("vectors[1] has")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("aside") / "log"
    with serving(log, [sys.executable, "-c", COMMAND], max_in_flight=16) as started, started.client():
        yield started


def test_the_lane_answers_the_same_from_there_to_the_last_bit(server: Server) -> None:
    assert len(LONG) > ASIDE_BYTES
    expected = Detector.load(MODELS / "kddcup99" / "2", Runtime("cpu")).score(np.array(ROWS, np.float32))
    with httpx.Client(base_url=server.url(), trust_env=False, timeout=SECONDS) as client:
        for _ in range(3):
            answer = client.post("/score", content=LONG, headers=JSON).json()
            assert answer["scores"] == [float(score) for score in expected.scores.astype(np.float32)]
            assert answer["anomalies"] == expected.anomalies.tolist()


def test_more_than_may_be_under_way_are_not_refused_on_account_of_the_threads(server: Server) -> None:
    with (
        httpx.Client(base_url=server.url(), trust_env=False, timeout=SECONDS) as client,
        ThreadPoolExecutor(16) as pool,
    ):
        answers = list(pool.map(lambda _: client.post("/score", content=LONG, headers=JSON), range(64)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({tuple(answer.json()["scores"]) for answer in answers}) == 1


def test_clients_that_hang_up_meanwhile_leave_nothing_behind(server: Server) -> None:
    host, port = server.url().removeprefix("http://").split(":")
    head = f"POST /score HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(LONG)}\r\n\r\n"
    for _ in range(20):
        with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
            connection.sendall(head.encode() + LONG)
    with httpx.Client(base_url=server.url(), trust_env=False, timeout=SECONDS) as client:
        deadline = time.monotonic() + SECONDS
        while "radogaga_requests_in_flight 1.0" not in client.get("/metrics").text:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_what_is_in_a_thread_at_the_end_is_waited_for(tmp_path: Path) -> None:
    slow = f"import time; from service import aside; aside.Aside.add = lambda self, rows, done, _: {SLOW}; {COMMAND}"
    with serving(tmp_path / "log", [sys.executable, "-c", slow]) as server, server.client() as client:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(client.post, "/score", content=LONG, headers=JSON)
            time.sleep(0.5)
            server.process.send_signal(signal.SIGTERM)
            assert waiting.result().status_code == 200
        assert server.process.wait(SECONDS) == 0
