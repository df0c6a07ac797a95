"""The image's health check: 0 if the service is ready, else 1 and one line that says why."""

import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from service.health import EXCERPT, Unhealthy, address, ask
from tests.server import ROOT, SECONDS, environment, serving

Conversation = Callable[[socket.socket], object]


def check(**settings: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service.health"],
        cwd=ROOT,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@contextmanager
def listening(converse: Conversation, host: str = "127.0.0.1") -> Iterator[int]:
    """Yields the port of a server that has one conversation."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET

    def run(server: socket.socket) -> None:
        connection = server.accept()[0]
        with connection:
            converse(connection)

    with closing(socket.create_server((host, 0), family=family)) as server:
        thread = threading.Thread(target=run, args=(server,), daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(SECONDS)


def answering(text: str) -> Conversation:
    """Reads a request and answers it."""

    def converse(connection: socket.socket) -> None:
        assert connection.recv(65536).startswith(b"GET /health/ready HTTP/1.1\r\n")
        connection.sendall(text.encode())

    return converse


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
        return port


def test_the_real_service_is_healthy_once_its_models_are_loaded(tmp_path: Path) -> None:
    port = free_port()
    with serving(tmp_path / "log", host="0.0.0.0", port=port) as server:  # noqa: S104
        deadline = time.monotonic() + SECONDS
        while (done := check(host="0.0.0.0", port=port)).returncode:  # noqa: S104
            assert time.monotonic() < deadline, server.log.read_text()
            assert re.fullmatch(rf"127\.0\.0\.1:{port} (can't be asked: .*refused.*|is not ready.*)\n", done.stderr)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_service_without_models_is_not_ready() -> None:
    answer = '{"kind":"not_ready","detail":"The models are being loaded."}'
    with listening(
        answering(f"HTTP/1.1 503 Service Unavailable\r\ncontent-length: {len(answer)}\r\n\r\n{answer}")
    ) as port:
        done = check(host="127.0.0.1", port=port)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"127.0.0.1:{port} is not ready, status 503: {answer}\n"


def test_nothing_listens() -> None:
    port = free_port()
    done = check(port=port)
    assert done.returncode == 1
    assert re.fullmatch(rf"127\.0\.0\.1:{port} can't be asked: ConnectionRefusedError\(.*\)\n", done.stderr)


def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(Unhealthy, match=r"^no\.such\.host\.invalid:8000 can't be asked: gaierror"):
        ask("no.such.host.invalid", 8000)


def test_it_does_not_wait_for_ever() -> None:
    with (
        listening(lambda connection: connection.recv(65536) and connection.recv(1)) as port,
        pytest.raises(Unhealthy, match=rf"^127\.0\.0\.1:{port} did not answer within 0\.1 s$"),
    ):
        ask("127.0.0.1", port, seconds=0.1)


def test_what_answers_is_no_http() -> None:
    mail = answering("220 mail.example ESMTP\r\n")
    with listening(mail) as port, pytest.raises(Unhealthy, match=r"can't be asked: BadStatusLine"):
        ask("127.0.0.1", port)


def test_it_hangs_up() -> None:
    with listening(answering("")) as port, pytest.raises(Unhealthy, match=r"can't be asked: RemoteDisconnected"):
        ask("127.0.0.1", port)


def test_a_long_answer_is_cut() -> None:
    long = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 9999\r\n\r\n" + "x" * 9999
    with listening(answering(long)) as port, pytest.raises(Unhealthy, match=rf"status 500: x{{{EXCERPT}}}$"):
        ask("127.0.0.1", port)


def test_ipv6() -> None:
    with listening(answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), "::1") as port:
        ask("::1", port)


@pytest.mark.parametrize(
    ("host", "port", "asked"),
    [
        (None, None, ("127.0.0.1", 8000)),
        ("", "", ("127.0.0.1", 8000)),
        ("0.0.0.0", "9000", ("127.0.0.1", 9000)),  # noqa: S104
        ("::", "65535", ("::1", 65535)),
        ("10.1.2.3", "1", ("10.1.2.3", 1)),
    ],
)
def test_it_asks_where_the_service_listens(host: str | None, port: str | None, asked: tuple[str, int]) -> None:
    variables = {"RADOGAGA_HOST": host, "radogaga_port": port}
    assert address({name: value for name, value in variables.items() if value is not None}) == asked


@pytest.mark.parametrize("port", ["0", "65536", "-1", "8000.0", "http", "٨٠٠٠", "1_0"])
def test_a_wrong_port_is_named(port: str) -> None:
    done = check(port=port)
    assert (done.returncode, done.stderr) == (1, f"RADOGAGA_PORT is {port!r}, expected a number from 1 to 65535\n")


def test_it_needs_nothing_but_the_standard_library() -> None:
    program = "import sys, service.health; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-S", "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= sys.stdlib_module_names | {"__main__", "service"}
