"""Clients that are too many, too slow to ask, or too slow to take the answer."""

import contextlib
import http.client
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from service.connections import RESERVE
from tests.server import ROOT, SECONDS, SERVICE, Server, serving
from tests.service.test_lane import connect, lines_of, read, request

LIMIT = 0.6
SLACK = 1.5
MOST = 8


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("connections") / "log"
    limits = {"header_seconds": LIMIT, "write_seconds": LIMIT, "body_seconds": LIMIT}
    with serving(log, SERVICE, max_connections=MOST, **limits) as started:
        with started.client():
            pass  # its connection would be one of the few
        yield started


def metric(server: Server, name: str) -> float:
    connection = http.client.HTTPConnection(*address(server), timeout=SECONDS)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    (line,) = [line for line in text.splitlines() if line.startswith(f"radogaga_{name} ")]
    return float(line.split()[-1])


def address(server: Server) -> tuple[str, int]:
    host, port = server.url().removeprefix("http://").split(":")
    return host, int(port)


def seconds_until_closed(connection: socket.socket, trickle: bytes = b"") -> float:
    """Sends what trickles in byte by byte until the other side closes, and returns how long that took."""
    started = time.monotonic()
    connection.settimeout(0.05)
    with contextlib.suppress(ConnectionError):
        while time.monotonic() < started + SECONDS:
            if trickle:
                connection.sendall(trickle[:1])
                trickle = trickle[1:]
            with contextlib.suppress(TimeoutError):
                if not connection.recv(65_536):
                    break
    return time.monotonic() - started


@pytest.mark.parametrize(
    "sent",
    [b"", b"POST /sc", request()[:60], request() + request()[:60]],
    ids=["nothing", "half a line", "half a header", "half a second header"],
)
def test_a_header_that_does_not_come(server: Server, sent: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(sent)
        seconds = seconds_until_closed(connection)
    assert LIMIT * 0.9 <= seconds <= (5 if sent.startswith(request()) else LIMIT) + SLACK


def test_a_header_that_trickles_in(server: Server) -> None:
    before = metric(server, 'connections_cut_off_total{reason="slow_header"}')
    with connect(server) as connection:
        assert LIMIT * 0.9 <= seconds_until_closed(connection, request()[:100] + b"x" * 1000) <= LIMIT + SLACK
    assert metric(server, 'connections_cut_off_total{reason="slow_header"}') == before + 1


def test_a_body_that_trickles_in(server: Server) -> None:
    head, _, body = request(b" " * 500).partition(b"\r\n\r\n")
    with connect(server) as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert seconds_until_closed(connection, body) <= 1 + 2 * LIMIT + SLACK


def test_headers_that_come_slowly_but_in_time_are_answered_as_often_as_they_come(server: Server) -> None:
    with connect(server) as connection:
        for _ in range(3):
            whole = request()
            connection.sendall(whole[:40])
            time.sleep(LIMIT / 2)
            connection.sendall(whole[40:])
            assert read(connection)[0] == 200


def test_a_client_that_never_reads_its_answer(server: Server) -> None:
    rows = orjson.dumps({"dataset": "thyroid", "latents": [[0.0] * 6] * 4000})
    before = metric(server, 'connections_cut_off_total{reason="slow_answer"}')
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(address(server))
        for _ in range(20):  # more than the kernel's buffers hold
            with contextlib.suppress(BlockingIOError):
                connection.settimeout(0.5)
                try:
                    connection.sendall(request(rows, path="/decode"))
                except (TimeoutError, ConnectionError):
                    break
        deadline = time.monotonic() + LIMIT + SLACK + 2
        while metric(server, 'connections_cut_off_total{reason="slow_answer"}') == before:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_beyond_the_most_only_health_and_metrics_are_answered(server: Server) -> None:
    others: list[socket.socket] = []
    try:
        others = [connect(server) for _ in range(MOST)]
        for connection in others:
            connection.sendall(request())
            assert read(connection)[0] == 200
        with connect(server) as surplus:
            surplus.sendall(request(b"{}", "x-request-id: surplus"))
            status, headers, problem, _ = read(surplus)
            assert (status, problem["kind"], headers["retry-after"]) == (503, "overloaded", "1")
            assert problem["detail"].startswith(f"{MOST} connections are open")
            assert (headers["connection"], surplus.recv(1)) == ("close", b"")
        assert lines_of(server, "surplus")[0]["error"] == "overloaded"
        for path, fields in (("/datasets", "kind"), ("/v2/models/thyroid", "error"), ("/nothing", "kind")) * 2:
            with connect(server) as surplus:
                surplus.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                status, _, problem, _ = read(surplus)
                assert (status, fields in problem) == (503, True), "an error has the form of its path"
        for path in ("/health/live", "/health/ready", "/v2/health/ready"):
            with connect(server) as surplus:
                surplus.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                status, headers, _, _ = read(surplus)
                assert (status, headers["connection"]) == (200, "close")
                assert surplus.recv(1) == b""
        assert metric(server, "connections") == MOST + 1
    finally:
        for connection in others:
            connection.close()


def test_beyond_the_reserve_nothing_is_read(server: Server) -> None:
    others: list[socket.socket] = []
    before = metric(server, 'connections_cut_off_total{reason="too_many"}')
    try:
        others = [connect(server) for _ in range(MOST + RESERVE)]
        time.sleep(0.1)
        with connect(server) as surplus:
            status, headers, problem, _ = read(surplus)
            assert (status, problem["kind"], headers["connection"]) == (503, "overloaded", "close")
            assert surplus.recv(1) == b""
    finally:
        for connection in others:
            connection.close()
    deadline = time.monotonic() + SECONDS
    while metric(server, "connections") > 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert metric(server, 'connections_cut_off_total{reason="too_many"}') == before + 1


def test_a_refused_body_is_read_to_its_end_and_the_connection_is_used_again(tmp_path: Path) -> None:
    full = "from service import admission, __main__ as m; admission.Gate.limit = property(lambda _: 0, lambda *_: 0)"
    with serving(tmp_path / "log", [sys.executable, "-c", f"{full}; m.main()"]) as server:
        with server.client():
            pass
        with connect(server) as connection:
            for path in ("/score", "/v2/models/thyroid/infer"):
                whole = request(b" " * 100_000, "x-request-id: abc", path=path)
                connection.sendall(whole[:-10])
                status, headers, problem, _ = read(connection)  # before its body is there
                assert (status, headers["retry-after"], headers["x-request-id"]) == (503, "1", "abc")
                assert ("kind" in problem) == (path == "/score")
                connection.sendall(whole[-10:])
            for _ in range(2):
                connection.sendall(request())
                _, headers, problem, _ = read(connection)
                assert headers["x-request-id"] == problem["request_id"]
            connection.sendall(request(b" " * 100_000, "connection: close")[:-10])
            assert read(connection)[1]["connection"] == "close"
            connection.sendall(b" " * 10)
            assert connection.recv(1) == b""
        with connect(server) as connection:
            connection.sendall(request(b"x", "expect: 100-continue")[:-1])
            status, headers, _, _ = read(connection)
            assert (status, headers["connection"], connection.recv(1)) == (503, "close", b"")


def test_files_are_allowed_as_far_as_may_be() -> None:
    code = "import resource; from service.connections import allow_files; allow_files(int({}));"
    code += " print(*resource.getrlimit(resource.RLIMIT_NOFILE))"

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 600))

    def limits(connections: int) -> tuple[str, str]:
        command = [sys.executable, "-c", code.format(connections)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, preexec_fn=limited, capture_output=True, text=True, env=environment, check=True)
        return done.stdout.strip(), done.stderr

    assert limits(10) == ("256 600", "")
    assert limits(300) == (f"{300 + RESERVE + 128} 600", "")
    found, warning = limits(5000)
    assert found == "600 600"
    assert "600 files may be open, 5000 connections may need 5192" in warning
