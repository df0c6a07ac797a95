"""HTTP as bytes: what comes back is read as it should be, and what doesn't is told."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.chaos.wire import Hang, Malformed, Reply, Wire, request


@contextmanager
def answering(*parts: bytes, hang: bool = False) -> Iterator[Wire]:
    """Yields a connection to a server that answers with these bytes, and then hangs up or does not."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                for part in parts:
                    connection.sendall(part)
                if hang:
                    ended.wait()

        thread = threading.Thread(target=serve)
        thread.start()
        wire = Wire(f"http://127.0.0.1:{listener.getsockname()[1]}", 5)
        yield wire
        ended.set()
        wire.close()
        thread.join()


PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\nok"


def test_answers_are_read_one_after_the_other() -> None:
    with answering(PLAIN[:20], PLAIN[20:] + PLAIN) as wire:
        assert [wire.reply(), wire.reply()] == 2 * [Reply(200, {"content-length": "2", "x-a": "b"}, b"ok")]
        assert wire.reply() is None


@pytest.mark.parametrize(
    ("data", "method", "status", "body"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN, "POST", 200, b"ok"),
        (b"HTTP/1.1 405 No\r\ncontent-length: 70\r\n\r\n", "HEAD", 405, b""),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", "POST", 200, b"abc"),
        (b"HTTP/1.0 200 OK\r\n\r\nto the end", "POST", 200, b"to the end"),
    ],
)
def test_bodies_have_the_length_that_is_said(data: bytes, method: str, status: int, body: bytes) -> None:
    with answering(data) as wire:
        reply = wire.reply(method=method)
        assert reply is not None
        assert (reply.status, reply.body) == (status, body)
        assert wire.reply() is None


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 200 OK\r\nconte", b"SSH-2.0\r\n\r\n", PLAIN[:-1], b"HTTP/1.1 x\r\n\r\n", b"HTTP/2 200\r\n\r\n"]
)
def test_what_is_no_http_is_told(data: bytes) -> None:
    with answering(data) as wire, pytest.raises(Malformed):
        wire.reply()


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\n", PLAIN[:-1]])
def test_an_answer_that_does_not_come_is_a_hang(data: bytes) -> None:
    with answering(data, hang=True) as wire, pytest.raises(Hang, match="no answer"):
        wire.reply(0.05)


def test_a_server_that_hangs_up_early_is_no_error_of_sending() -> None:
    with answering(PLAIN) as wire:
        assert wire.reply() is not None
        for _ in range(20):
            wire.send(bytes(10**6))
        assert wire.reply() is None


def test_a_request_says_its_length_unless_it_says_something_else() -> None:
    assert (
        request("POST", "/a", {"x": "y"}, b"12")
        == b"POST /a HTTP/1.1\r\nhost: localhost\r\nx: y\r\ncontent-length: 2\r\n\r\n12"
    )
    assert b"content-length: 2" not in request("POST", "/a", {"content-length": "9"}, b"12")
    assert b"content-length" not in request("POST", "/a", {"transfer-encoding": "chunked"}, b"12")
    assert request("GET", "/a", {}) == b"GET /a HTTP/1.1\r\nhost: localhost\r\n\r\n"
