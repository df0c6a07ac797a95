"""HTTPS: what it takes to start with it, what it speaks, and certificates that are renewed."""

import shutil
import socket
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.errors import StartError
from service.settings import Settings
from service.tls import SECONDS_BETWEEN_LOOKS, Certificate, https
from tests.server import ROOT, SECONDS, Server, environment, serving
from tests.service.requests import ROW
from tests.service.test_lane import lines_of, read, request

OPENSSL = shutil.which("openssl") or "openssl is not on PATH"


def make(folder: Path, name: str = "service", days: int = 2) -> tuple[Path, Path]:
    """Makes a certificate for this machine, signed by its own key."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    names = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    command: list[str | Path] = [
        OPENSSL,
        "req",
        "-x509",
        *curve,
        "-nodes",
        "-days",
        str(days),
        *names,
        "-keyout",
        key,
        "-out",
        certificate,
    ]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


def connect(server: Server, certificate: Path, **context: object) -> ssl.SSLSocket:
    """Opens a connection to a service that has this certificate and no other."""
    host, port = server.url().removeprefix("https://").split(":")
    trusting = ssl.create_default_context(cafile=certificate)
    for name, value in context.items():
        setattr(trusting, name, value)
    return trusting.wrap_socket(socket.create_connection((host, int(port)), SECONDS), server_hostname=host)


def health(**settings: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.health"]
    return subprocess.run(
        command, cwd=ROOT, env=environment(**settings), capture_output=True, text=True, timeout=SECONDS, check=False
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_all_is_served_by_https_and_renewed(tmp_path: Path, workers: int) -> None:
    certificate, key = make(tmp_path)
    settings: dict[str, Any] = {"tls_certificate": certificate, "tls_key": key, "workers": workers}
    with serving(tmp_path / "log", **settings) as server:
        server.wait(workers)
        url = server.url()
        assert url.startswith("https://")
        verify = ssl.create_default_context(cafile=certificate)
        with httpx.Client(base_url=url, verify=verify, trust_env=False, timeout=SECONDS) as client:
            scored = client.post("/score", json={"dataset": "thyroid", "vectors": [ROW]})
            assert scored.status_code == 200
            assert scored.headers["strict-transport-security"] == "max-age=31536000"
            assert client.get("/datasets").status_code == 200
            rows = [ROW] * 2000  # several TLS records, and more than the lane takes at once
            assert len(client.post("/score", json={"dataset": "thyroid", "vectors": rows}).json()["scores"]) == 2000

        with connect(server, certificate) as connection:  # one row in the lane: piece by piece, and pipelined
            for byte in request():
                connection.sendall(bytes([byte]))
            assert read(connection)[0] == 200
            connection.sendall(request() * 3)
            rest = b""
            for _ in range(3):
                status, headers, answer, rest = read(connection, rest)
                assert (status, len(answer["scores"])) == (200, 1)
                assert "strict-transport-security" in headers
            assert connection.version() == "TLSv1.3"

        done = health(port=url.rpartition(":")[2], tls_certificate=certificate, tls_key=key)
        assert (done.returncode, done.stderr) == (0, "")
        plain = health(port=url.rpartition(":")[2])
        assert plain.returncode == 1
        assert "can't be asked" in plain.stderr

        renewed, new_key = make(tmp_path, "renewed")
        shutil.copy(new_key, key)  # for a moment they don't fit: the old one stays
        time.sleep(SECONDS_BETWEEN_LOOKS)
        for _ in range(8):
            connect(server, certificate).close()
        shutil.copy(renewed, certificate)
        time.sleep(SECONDS_BETWEEN_LOOKS)
        with ThreadPoolExecutor(4) as pool:  # enough for every worker to have some
            for connection in pool.map(lambda _: connect(server, renewed), range(16)):
                with connection:
                    connection.sendall(request(path="/score"))
                    assert read(connection)[0] == 200
        assert any("the certificate of before is used" in str(line["message"]) for line in server.lines())


def test_the_lane_answers_by_https(tmp_path: Path) -> None:
    """It does if it answers although the way through ASGI is blocked."""
    certificate, key = make(tmp_path)
    blocked = "from service import inference, __main__ as program; inference.Service.answer = None; program.main()"
    command = [sys.executable, "-c", blocked]
    with serving(tmp_path / "log", command, tls_certificate=certificate, tls_key=key) as server:
        server.wait(1)
        with connect(server, certificate) as connection:
            connection.sendall(request())
            assert read(connection)[0] == 200
            connection.sendall(request(path="/sc%6fre"))
            assert read(connection)[0] == 500


def test_old_versions_and_plain_http_are_refused(tmp_path: Path) -> None:
    certificate, key = make(tmp_path)
    with serving(tmp_path / "log", tls_certificate=certificate, tls_key=key) as server:
        server.wait(1)
        with connect(server, certificate, maximum_version=ssl.TLSVersion.TLSv1_2) as connection:
            assert connection.version() == "TLSv1.2"
            connection.sendall(request(b"{}", "x-request-id: twelve"))
            assert read(connection)[0] == 422
        assert lines_of(server, "twelve")
        with pytest.warns(DeprecationWarning, match="TLSv1"), pytest.raises(ssl.SSLError):
            connect(server, certificate, minimum_version=ssl.TLSVersion.TLSv1, maximum_version=ssl.TLSVersion.TLSv1_1)
        host, port = server.url().removeprefix("https://").split(":")
        with socket.create_connection((host, int(port)), SECONDS) as connection:
            connection.sendall(request())
            received = connection.recv(100)
            assert not received.startswith(b"HTTP")
        with connect(server, certificate) as connection:  # and goes on
            connection.sendall(request())
            assert read(connection)[0] == 200


def test_one_without_the_other() -> None:
    with pytest.raises(StartError, match="^RADOGAGA_TLS_CERTIFICATE is 'a', and RADOGAGA_TLS_KEY is not set$"):
        https(Settings(tls_certificate=Path("a")))
    with pytest.raises(StartError, match="^RADOGAGA_TLS_KEY is 'a', and RADOGAGA_TLS_CERTIFICATE is not set$"):
        https(Settings(tls_key=Path("a")))
    assert https(Settings()) is None


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    certificate, key = make(tmp_path)
    _, other = make(tmp_path, "other")
    missing, nonsense, encrypted = tmp_path / "missing", tmp_path / "nonsense", tmp_path / "encrypted"
    nonsense.write_text("nonsense")
    subprocess.run([OPENSSL, "ec", "-in", key, "-aes256", "-passout", "pass:x", "-out", encrypted], check=True)
    for pair, message in (
        ((missing, key), f"RADOGAGA_TLS_CERTIFICATE is '{missing}': No such file or directory"),
        ((certificate, missing), f"RADOGAGA_TLS_KEY is '{missing}': No such file or directory"),
        ((certificate, tmp_path), f"RADOGAGA_TLS_KEY is '{tmp_path}': Is a directory"),
        ((certificate, other), "can't be used together: KEY_VALUES_MISMATCH"),
        ((certificate, encrypted), "can't be used together: the key is encrypted"),
        ((nonsense, key), "can't be used together: "),
        ((certificate, nonsense), "can't be used together: "),
    ):
        with pytest.raises(StartError) as caught:
            Certificate(*pair)
        assert message in str(caught.value)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_start_fails_clearly(tmp_path: Path, workers: int) -> None:
    certificate, _ = make(tmp_path)
    with serving(tmp_path / "log", tls_certificate=certificate, workers=workers) as server:
        assert server.process.wait(SECONDS) == 1
        expected = f"RADOGAGA_TLS_CERTIFICATE is '{certificate}', and RADOGAGA_TLS_KEY is not set"
        assert server.log.read_text() == f"the service did not start: {expected}\n"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_client_that_shakes_no_hands_is_hung_up_on(tmp_path: Path, workers: int) -> None:
    certificate, key = make(tmp_path)
    settings: dict[str, Any] = {"tls_certificate": certificate, "tls_key": key, "workers": workers}
    with serving(tmp_path / "log", header_seconds=0.5, **settings) as server:
        server.wait(workers)
        port = int(server.url().rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
            started = time.monotonic()
            assert connection.recv(1) == b""
            assert 0.4 < time.monotonic() - started < 10
