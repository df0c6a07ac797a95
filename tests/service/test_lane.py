"""The fast lane answers what ASGI would, for every way in which bytes can arrive."""

import json
import signal
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.lane import HELD_SECONDS
from tests.server import SECONDS, SERVICE, Server, serving
from tests.service.requests import ROW

BODY = json.dumps({"dataset": "thyroid", "vectors": [ROW]}).encode()


WAITING = "from service import admission, __main__ as program; from service.admission import Gate;"
WAITING += " Gate.busy = property(lambda _: True, lambda *_: None); program.main()"
"""A service in which every request waits for its turn."""


@pytest.fixture(
    scope="module",
    params=[(SERVICE, 1), (SERVICE, 16), ((sys.executable, "-c", WAITING), 16)],
    ids=["alone", "batching", "waiting"],
)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("lane") / "log"
    command, rows = request.param
    with serving(log, command, max_batch_rows=rows, max_wait_us=2000, max_body_bytes=2_000_000) as started:
        with started.client():
            pass
        yield started


def connect(server: Server) -> socket.socket:
    host, port = server.url().removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=SECONDS)


def request(body: bytes = BODY, *headers: str, path: str = "/score", version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "host: x", f"content-length: {len(body)}", *headers]
    if not any(header.startswith("content-type") for header in headers):
        lines.append("content-type: application/json")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def read(connection: socket.socket, rest: bytes = b"") -> tuple[int, dict[str, str], Any, bytes]:
    """Reads one answer: its status, its header, its body, and what came behind it."""
    while b"\r\n\r\n" not in rest:
        received = connection.recv(65_536)
        assert received, rest
        rest += received
    head, _, rest = rest.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    while len(rest) < int(headers["content-length"]):
        rest += connection.recv(65_536)
    length = int(headers["content-length"])
    return int(first.split()[1]), headers, json.loads(rest[:length]), rest[length:]


@pytest.fixture(scope="module")
def expected(server: Server) -> Any:  # noqa: ANN401 - JSON
    """The answer that ASGI gives, for a body that the lane doesn't wait for."""
    with connect(server) as connection:
        send_slowly(connection, request(), HELD_SECONDS + 0.3)
        status, _, answer, _ = read(connection)
    assert status == 200
    return answer


def send_slowly(connection: socket.socket, whole: bytes, pause: float) -> None:
    connection.sendall(whole[:-10])
    time.sleep(pause)
    connection.sendall(whole[-10:])


def lines_of(server: Server, request_id: str, count: int = 1) -> list[dict[str, Any]]:
    """Waits for the access log's lines about a request's id."""
    deadline = time.monotonic() + SECONDS
    while len(lines := [line for line in server.lines() if line.get("request_id") == request_id]) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return lines


def test_a_request_in_one_piece(server: Server, expected: object) -> None:
    with connect(server) as connection:
        for _ in range(3):
            connection.sendall(request(BODY, "x-request-id: abc"))
            status, headers, answer, rest = read(connection)
            assert (status, answer, rest) == (200, expected, b"")
            assert headers["x-request-id"] == "abc"
            assert headers["content-type"] == "application/json"
            assert headers["date"]
    lines = lines_of(server, "abc", 3)
    assert [line["status"] for line in lines] == [200] * 3
    assert lines[-1]["rows"] == 1


def test_bytes_one_by_one(server: Server, expected: object) -> None:
    with connect(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request():
            connection.sendall(bytes([byte]))
        assert read(connection)[2] == expected


def test_a_body_in_two_parts(server: Server, expected: object) -> None:
    with connect(server) as connection:
        for _ in range(2):
            send_slowly(connection, request(), 0.1)
            assert read(connection)[2] == expected


def test_a_body_without_a_length_leaves_the_lane_unless_it_is_there_at_once(server: Server, expected: object) -> None:
    head, _, body = request().partition(b"\r\n\r\n")
    chunked = head.replace(b"content-length: %d" % len(body), b"transfer-encoding: chunked") + b"\r\n\r\n"
    chunked += b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (20, body[:20], len(body) - 20, body[20:])
    with connect(server) as connection:
        for pause in (0.0, 0.1):
            send_slowly(connection, chunked, pause)
            assert read(connection)[2] == expected


def test_what_leaves_the_lane_has_its_query_and_its_id(server: Server) -> None:
    rows = np.asarray([ROW], "<f4").tobytes()
    kind = ("content-type: application/octet-stream", "x-request-id: slow", "connection: close")
    with connect(server) as connection:
        send_slowly(connection, request(rows, *kind, path="/score?dataset=thyroid&version=1"), HELD_SECONDS + 0.3)
        status, headers, answer, _ = read(connection)
        assert (status, answer["version"], headers["x-request-id"]) == (200, 1, "slow")
        assert connection.recv(1) == b""
    assert lines_of(server, "slow")[0]["path"] == "/score"


def test_a_client_that_hangs_up_within_a_body_is_logged(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(request(BODY, "x-request-id: gone")[:-10])
        time.sleep(0.1)
    (line,) = lines_of(server, "gone")
    assert (line["status"], line["error"]) == (499, "client_disconnected")


def test_pipelined_requests_are_answered_in_their_order(server: Server, expected: dict[str, Any]) -> None:
    with connect(server) as connection:
        live = b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"
        wrong = request(b"{}")
        connection.sendall(request() + live + request() + wrong + request()[:-5])
        answers, rest = [], b""
        for _ in range(4):
            status, _, answer, rest = read(connection, rest)
            answers.append((status, answer if status == 200 else answer["detail"]))
        connection.sendall(request()[-5:])
        answers.append((read(connection, rest)[0], None))
    missing = (422, "dataset is missing, expected a string.")
    assert answers == [(200, expected), (200, {"status": "alive"}), (200, expected), missing, (200, None)]


REFUSED = [
    (request(b"{"), 400, "malformed_body"),
    (request(BODY.replace(b"thyroid", b"unknown")), 404, "dataset_not_found"),
    (request(b'{"dataset": "thyroid", "vectors": [[1]]}'), 422, "wrong_width"),
    (request(BODY, "content-type: text/plain"), 415, "unsupported_media_type"),
    (request(BODY, "accept: text/html"), 406, "not_acceptable"),
    (request(BODY, "content-encoding: gzip"), 400, "malformed_body"),
    (request(b" " * 2_000_001), 413, "body_too_large"),
]


def test_what_is_no_request_behind_others_that_wait_ends_the_connection_and_nothing_else(
    server: Server, expected: object
) -> None:
    """Nor is it answered in the place of the first."""
    many = json.dumps({"dataset": "thyroid", "vectors": [ROW] * 1500}).encode()
    busy, broken = [connect(server) for _ in range(8)], [connect(server) for _ in range(8)]
    for connection in busy:
        connection.sendall(request(many))
    for connection in broken:
        connection.sendall(request() * 2 + b"garbage\r\n\r\n")
    for connection in broken:
        with connection, suppress(ConnectionError):
            assert b" 400 " not in connection.recv(65_536)[:20]
    for connection in busy:
        with connection:
            assert read(connection)[0] == 200
    with connect(server) as connection:
        connection.sendall(request())
        assert read(connection)[2] == expected
    assert not any("traceback" in line for line in server.lines())


@pytest.mark.parametrize(("sent", "status", "kind"), REFUSED, ids=[kind for _, _, kind in REFUSED])
def test_what_is_refused(server: Server, sent: bytes, status: int, kind: str) -> None:
    with connect(server) as connection:
        connection.sendall(sent)
        found, headers, problem, _ = read(connection)
        assert (found, problem["kind"]) == (status, kind)
        assert headers["content-type"] == "application/problem+json"
        assert headers["x-request-id"] == problem["request_id"]


def test_connections_are_closed_when_they_are_asked_to_be(server: Server) -> None:
    for sent in (request(BODY, "connection: close"), request(version="1.0")):
        with connect(server) as connection:
            connection.sendall(sent)
            status, headers, _, _ = read(connection)
            assert (status, headers["connection"]) == (200, "close")
            assert connection.recv(1) == b""


def test_a_client_that_expects_to_be_asked_for_its_body(server: Server, expected: object) -> None:
    with connect(server) as connection:
        whole = request(BODY, "expect: 100-continue")
        connection.sendall(whole[: -len(BODY)])
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY)
        assert read(connection)[2] == expected


def test_clients_that_hang_up_leave_nothing_behind(server: Server) -> None:
    for _ in range(20):
        connection = connect(server)
        connection.sendall(request() * 3)
        connection.close()
    with server.client() as client:
        deadline = time.monotonic() + SECONDS
        while "radogaga_requests_in_flight 1.0" not in client.get("/metrics").text:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_many_at_once(server: Server, expected: object) -> None:
    def ask(_: int) -> list[object]:
        with connect(server) as connection:
            answers = []
            for _ in range(20):
                connection.sendall(request())
                answers.append(read(connection)[2])
            return answers

    with ThreadPoolExecutor(8) as pool:
        assert [answer for answers in pool.map(ask, range(8)) for answer in answers] == [expected] * 160


def test_a_start_in_the_lane_is_answered_while_models_load(tmp_path: Path) -> None:
    with serving(tmp_path / "log") as starting, connect(starting) as connection:
        connection.sendall(request())
        status, headers, answer, _ = read(connection)
        assert status in (200, 503)
        if status == 503:
            assert (answer["kind"], headers["retry-after"]) == ("not_ready", "1")


def test_a_body_that_is_still_coming_at_the_end_is_waited_for(tmp_path: Path) -> None:
    with serving(tmp_path / "log") as server, server.client(), connect(server) as connection:
        whole = request()
        connection.sendall(whole[:-10])
        time.sleep(0.1)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        connection.sendall(whole[-10:])
        status, headers, _, _ = read(connection)
        assert (status, headers["connection"]) == (200, "close")
        assert connection.recv(1) == b""
        assert server.process.wait(SECONDS) == 0


def test_a_row_is_not_batched_if_no_other_can_come(tmp_path: Path) -> None:
    main = "from service import batching, __main__ as program; batching.Batcher.add = None; program.main()"
    with serving(tmp_path / "log", [sys.executable, "-c", main], max_batch_rows=16) as server:
        with server.client():
            pass
        with connect(server) as only:
            only.sendall(request())
            assert read(only)[0] == 200
            with connect(server) as other:
                other.sendall(request())
                assert read(other)[0] == 500
