"""The end: not ready first, then no new connections, then none."""

import signal
import threading
import time
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.settings import Settings
from tests.server import MODELS, SECONDS, SERVICE, Server, serving
from tests.service.conftest import wait_until_ready
from tests.service.test_lane import connect, read, request

DRAIN = 1.2


def status(server: Server, path: str) -> int:
    return httpx.get(f"{server.url()}{path}", trust_env=False).status_code


@pytest.mark.parametrize("workers", [1, 2])
def test_on_sigterm_it_is_unready_first_and_still_answers(tmp_path: Path, workers: int) -> None:
    command = [*SERVICE, "--workers", str(workers)]
    with serving(tmp_path / "log", command, drain_seconds=DRAIN) as server, server.client(), connect(server) as kept:
        kept.sendall(request())
        assert read(kept)[1].get("connection") is None
        time.sleep(0.5 if workers > 1 else 0)  # the other worker, too, has its handler
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        deadline = started + DRAIN / 2
        while status(server, "/health/ready") != 503:
            assert time.monotonic() < deadline
        assert [status(server, path) for path in ("/v2/health/ready", "/health/live")] == [503, 200]
        answer = httpx.get(f"{server.url()}/health/ready", trust_env=False)
        assert (answer.json()["kind"], answer.headers["connection"]) == ("shutting_down", "close")
        kept.sendall(request())
        found, headers, _, _ = read(kept)
        assert (found, headers["connection"], kept.recv(1)) == (200, "close", b"")
        with connect(server) as new:
            new.sendall(request())
            assert read(new)[0] == 200
        assert server.process.wait(SECONDS) == 0
        assert time.monotonic() - started >= DRAIN


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT,)], ids=["twice", "SIGINT"])
def test_asked_twice_or_by_sigint_it_ends_at_once(tmp_path: Path, workers: int, numbers: tuple[int, ...]) -> None:
    command = [*SERVICE, "--workers", str(workers)]
    with serving(tmp_path / "log", command, drain_seconds=30) as server, server.client():
        time.sleep(0.5 if workers > 1 else 0)
        for number in numbers:
            server.process.send_signal(number)
            time.sleep(0.3)
        assert server.process.wait(10) == 0


def test_without_a_drain_it_ends_at_once(tmp_path: Path) -> None:
    with serving(tmp_path / "log", drain_seconds=0) as server, server.client():
        started = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(10) == 0
        assert time.monotonic() - started < 1


def test_idle_connections_are_closed_at_the_end(tmp_path: Path) -> None:
    with serving(tmp_path / "log", drain_seconds=0.1) as server, server.client(), connect(server) as idle:
        idle.sendall(request())
        read(idle)
        server.process.send_signal(signal.SIGTERM)
        assert idle.recv(1) == b""
        assert server.process.wait(10) == 0


def test_an_application_in_another_thread_leaves_signals_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with TestClient(create_app(Settings(models=MODELS))) as client:
        wait_until_ready(client)
        assert threading.current_thread() is threading.main_thread()
        assert signal.getsignal(signal.SIGTERM) is before
