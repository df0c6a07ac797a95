"""Who is let in: by every way in which a request can come, in every worker, and with keys that change."""

import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import BaseRoute, Mount, Route

from service.access import ANY, BELOW, OPEN, PATHS, SECONDS_BETWEEN_LOOKS, Access, scope_of
from service.errors import Forbidden, Unauthorized
from service.keys import KeysError, add_key, digest_of, revoke_key
from tests.server import SECONDS, Server, serving
from tests.service.requests import ROW
from tests.service.test_lane import BODY, connect, lines_of, read, request

INFER = {"inputs": [{"name": "vectors", "datatype": "FP32", "shape": [1, 6], "data": ROW}]}


class Clock:
    """A clock that a test turns."""

    now = 0.0

    def __call__(self) -> float:
        return self.now

    def turn(self) -> None:
        self.now += SECONDS_BETWEEN_LOOKS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def bearer(key: str) -> dict[bytes, bytes]:
    return {b"authorization": b"Bearer " + key.encode()}


def test_keys_come_in_either_header(path: Path) -> None:
    key = add_key(path, "ci", ["score"])
    access, sent = Access(path), key.encode()
    for headers in (
        {b"authorization": b"Bearer " + sent},
        {b"authorization": b"bearer   " + sent},
        {b"x-api-key": sent},
        {b"authorization": b"Basic eDp5", b"x-api-key": sent},
    ):
        assert access.admit("/score", headers) == "ci"
    for headers in (
        {},
        {b"authorization": sent},
        {b"authorization": b"Bearer"},
        {b"authorization": b"Basic " + sent},
        {b"x-api-key": b"Bearer " + sent},
        {b"x-api-key": b""},
        {b"cookie": sent},
    ):
        with pytest.raises(Unauthorized):
            access.admit("/score", headers)


def test_the_hash_of_nothing_lets_nobody_in(path: Path) -> None:
    path.write_text(f"void score sha256:{digest_of(b'').hex()}\n")
    for headers in ({}, {b"x-api-key": b""}, bearer("")):
        with pytest.raises(Unauthorized):
            Access(path).admit("/score", headers)


def test_the_hash_of_a_key_is_no_key(path: Path) -> None:
    key = add_key(path, "ci", ["score"])
    for guess in (digest_of(key.encode()).hex(), f"sha256:{digest_of(key.encode()).hex()}", "ci", "0" * 64):
        with pytest.raises(Unauthorized):
            Access(path).admit("/score", bearer(guess))
    with pytest.raises(Unauthorized):
        Access(path).admit("/score", {b"x-api-key": digest_of(key.encode())})


def test_scopes(path: Path) -> None:
    keys = {scope: bearer(add_key(path, scope, [scope])) for scope in ("score", "metrics", "admin")}
    access = Access(path)
    for asked, good in (("/score", "score"), ("/v2/models/x/infer", "score"), ("/metrics", "metrics")):
        for name, headers in keys.items():
            if name in (good, "admin"):
                assert access.admit(asked, headers) == name
            else:
                with pytest.raises(Forbidden, match=f"'{name}' has the scope {name}, and this needs {good}") as caught:
                    access.admit(asked, headers)
                assert caught.value.key == name
    for name, headers in keys.items():
        assert access.admit("/unknown", headers) == name
        assert access.admit("/health/live", headers) == ""


def test_a_key_that_expired_is_known_by_name_to_the_log_alone(path: Path) -> None:
    key = add_key(path, "old", ["admin"], datetime.now(UTC).date())
    with pytest.raises(Unauthorized) as caught:
        Access(path).admit("/score", bearer(key))
    assert caught.value.key == "old"
    assert "old" not in str(caught.value)
    with pytest.raises(Unauthorized) as unknown:
        Access(path).admit("/score", {})
    assert str(unknown.value) == str(caught.value)


def routes_of(routes: list[BaseRoute]) -> Iterator[str]:
    for route in routes:
        if router := getattr(route, "original_router", None):
            yield from routes_of(router.routes)
        else:
            assert isinstance(route, Route | Mount), route
            yield route.path + ("/" if isinstance(route, Mount) else "")


def test_what_every_route_needs_is_decided(app: FastAPI) -> None:
    paths = set(routes_of(app.routes))
    assert paths
    assert [path for path in paths if path not in PATHS and scope_of(path) == ANY] == []
    assert set(PATHS) <= paths
    assert {path for path in paths if scope_of(path) == OPEN} == {
        "/health/live",
        "/health/ready",
        "/v2/health/live",
        "/v2/health/ready",
        "/docs",
        "/openapi.json",
        "/static-offline-docs/",
    }
    assert all(beginning.endswith("/") for beginning in BELOW)
    for near in ("/healthx", "/health/livex", "/health/live/", "/health", "//health/live", "/DOCS", "", "/v2x"):
        assert scope_of(near) == ANY


def test_keys_that_are_added_and_revoked_are_seen(path: Path) -> None:
    clock = Clock()
    first = add_key(path, "first", ["score"])
    access = Access(path, clock)
    second = add_key(path, "second", ["score"])
    with pytest.raises(Unauthorized):
        access.admit("/score", bearer(second))
    clock.turn()
    assert access.admit("/score", bearer(second)) == "second"
    revoke_key(path, "first")
    assert access.admit("/score", bearer(first)) == "first"
    clock.turn()
    with pytest.raises(Unauthorized):
        access.admit("/score", bearer(first))
    revoke_key(path, "second")
    clock.turn()
    with pytest.raises(Unauthorized):
        access.admit("/score", bearer(second))
    assert not access.stale


def test_a_file_that_is_changed_twice_in_one_tick_is_read_twice(path: Path) -> None:
    clock = Clock()
    keys = [f"rdg_{number}" for number in range(2)]
    lines = [f"ci score sha256:{digest_of(key.encode()).hex()}\n" for key in keys]
    path.write_text(lines[0])
    access, status = Access(path, clock), path.stat()
    with path.open("r+") as stream:
        stream.write(lines[1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    access._signature = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, path.stat().st_ctime_ns)
    clock.turn()
    assert access.admit("/score", bearer(keys[1])) == "ci"


@pytest.mark.parametrize("harm", ["broken", "gone", "folder"])
def test_a_file_that_breaks_changes_nothing_and_is_logged_once(
    path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    key = add_key(path, "ci", ["score"])
    access = Access(path, clock)
    whole = path.read_text()
    path.unlink()
    if harm == "broken":
        path.write_text(whole + "half a li")
    elif harm == "folder":
        path.mkdir()
    for _ in range(3):
        clock.turn()
        assert access.admit("/score", bearer(key)) == "ci"
    assert access.stale
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.getMessage().startswith(f"{'' if harm == 'gone' else 'RADOGAGA_KEYS: '}")
    assert record.getMessage().endswith("; the keys of before hold")
    if path.is_dir():
        path.rmdir()
    path.write_text(whole)
    clock.turn()
    assert access.admit("/score", bearer(key)) == "ci"
    assert not access.stale


@pytest.mark.parametrize("text", [None, "", "# nothing\n"])
def test_no_start_without_keys(path: Path, text: str | None) -> None:
    if text is not None:
        path.write_text(text)
    with pytest.raises(KeysError, match="No such file" if text is None else "has no keys; `python -m service key add"):
        Access(path)


def test_keys_are_not_shown(path: Path) -> None:
    key = add_key(path, "ci", ["score"])
    access = Access(path)
    assert repr(access) == f"Access('{path}', 1 keys)"
    assert key not in repr(vars(access))
    assert digest_of(key.encode()).hex() not in repr(access)


@dataclass
class Guarded:
    """A service that asks for keys."""

    server: Server
    path: Path
    keys: dict[str, str]

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.server.url(), timeout=SECONDS, trust_env=False)


@pytest.fixture(scope="module", params=[1, 2], ids=["one worker", "two workers"])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("access")
    path = folder / "keys"
    keys = {scope: add_key(path, scope, [scope]) for scope in ("score", "metrics", "admin")}
    keys["expired"] = add_key(path, "expired", ["admin"], datetime.now(UTC).date())
    keys["revoked"] = add_key(path, "revoked", ["admin"])
    revoke_key(path, "revoked")
    keys["wrong"] = keys["score"][:-1] + ("A" if keys["score"][-1] != "A" else "B")
    with serving(folder / "log", keys=path, workers=request.param, log_level="debug") as server:
        server.wait(request.param)
        yield Guarded(server, path, keys)
        text = server.log.read_text()
        assert '"key":"score"' in text
        assert "Traceback" not in text
        for name, key in keys.items():
            assert key not in text, name
            assert digest_of(key.encode()).hex() not in text, name


ASKED = [
    ("GET", "/datasets", "score", 200),
    ("GET", "/datasets/thyroid", "score", 200),
    ("POST", "/score", "score", 200),
    ("POST", "/encode", "score", 200),
    ("POST", "/sc%6fre", "score", 200),
    ("POST", "/decode", "score", 422),
    ("GET", "/v2", "score", 200),
    ("GET", "/v2/models/thyroid", "score", 200),
    ("POST", "/v2/models/thyroid/infer", "score", 200),
    ("POST", "/v2/repository/index", "score", 200),
    ("GET", "/metrics", "metrics", 200),
    ("GET", "/m%65trics", "metrics", 200),
    ("HEAD", "/metrics", "metrics", 405),
    ("GET", "/unknown", "any", 404),
    ("GET", "/score", "score", 405),
    ("OPTIONS", "/score", "score", 405),
]


@pytest.mark.parametrize(("method", "path", "scope", "status"), ASKED, ids=[f"{line[0]} {line[1]}" for line in ASKED])
def test_every_path_with_every_key(guarded: Guarded, method: str, path: str, scope: str, status: int) -> None:
    body = INFER if "infer" in path else {"dataset": "thyroid", "vectors": [ROW]}
    with guarded.client() as client:
        for name in (None, *guarded.keys):
            headers = {"x-api-key": guarded.keys[name]} if name else {}
            answer = client.request(method, path, headers=headers, json=body if method == "POST" else None)
            if name in (None, "wrong", "revoked", "expired"):
                assert answer.status_code == 401, (name, answer.text)
                assert answer.headers["www-authenticate"] == "Bearer"
                expected = "unauthorized"
            elif name not in (scope, "admin") and scope != "any":
                assert answer.status_code == 403, (name, answer.text)
                expected = "forbidden"
            else:
                assert answer.status_code == status, (name, answer.text)
                continue
            assert answer.headers["x-request-id"]
            if method == "HEAD":
                continue
            if path.startswith("/v2"):
                assert list(answer.json()) == ["error"]
            else:
                assert answer.json()["kind"] == expected
                assert answer.headers["content-type"] == "application/problem+json"


def test_what_needs_no_key(guarded: Guarded) -> None:
    with guarded.client() as client:
        page = client.get("/docs").text
        assets = re.findall(r'"(/static-offline-docs/[^"]+)"', page)
        assert assets
        for path in (
            "/health/live",
            "/health/ready",
            "/v2/health/live",
            "/v2/health/ready",
            "/docs",
            "/openapi.json",
            *assets,
        ):
            assert client.get(path).status_code == 200, path
            assert client.get(path, headers={"x-api-key": "wrong"}).status_code == 200, path
        interface = client.get("/openapi.json").json()
        assert interface["security"] == [{"bearer": []}, {"header": []}]
        assert set(interface["components"]["securitySchemes"]) == {"bearer", "header"}


@pytest.mark.parametrize("path", ["/score", "/sc%6fre", "/unknown", "/v2/models/thyroid/infer"])
def test_a_refusal_waits_for_no_body(guarded: Guarded, path: str) -> None:
    with connect(guarded.server) as connection:
        head, _, _ = request(b"x" * 100_000, path=path).partition(b"\r\n\r\n")
        connection.sendall(head + b"\r\n\r\n")
        status, _, answer, _ = read(connection)
        assert status == 401
        assert "error" in answer or answer["kind"] == "unauthorized"


def test_a_connection_goes_on_behind_a_refusal(guarded: Guarded) -> None:
    """In the lane and out of it, and the bytes of a body that was not wanted are no request."""
    good = f"x-api-key: {guarded.keys['score']}"
    smuggled = b"GET /metrics HTTP/1.1\r\nhost: x\r\nx-api-key: " + guarded.keys["metrics"].encode() + b"\r\n\r\n"
    with connect(guarded.server) as connection:
        for _ in range(3):
            connection.sendall(
                request(smuggled) + request(BODY, good) + request(BODY, "x-api-key: no", path="/sc%6fre")
            )
            rest, found = b"", []
            for _ in range(3):
                status, _, _, rest = read(connection, rest)
                found.append(status)
            assert (found, rest) == ([401, 200, 401], b"")


def test_who_expects_to_be_asked_for_the_body_is_hung_up_on(guarded: Guarded) -> None:
    """Its next bytes could be taken for the body that it never sent."""
    for headers, status in ((), 401), (("x-api-key: " + guarded.keys["metrics"],), 403):
        with connect(guarded.server) as connection:
            connection.sendall(request(BODY, "expect: 100-continue", *headers)[: -len(BODY)])
            found, answered, _, rest = read(connection)
            assert (found, answered["connection"], rest) == (status, "close", b"")
            assert connection.recv(1) == b""


def test_a_key_in_a_trailer_lets_nobody_in(guarded: Guarded) -> None:
    with connect(guarded.server) as connection:
        key = guarded.keys["score"].encode()
        for path in (b"/score", b"/sc%6fre"):
            connection.sendall(
                b"POST %b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" % path
                + b"%x\r\n%b\r\n0\r\nx-api-key: %b\r\n\r\n" % (len(BODY), BODY, key)
            )
            assert read(connection)[0] == 401


def test_the_log_and_the_metrics_tell_who_was_refused(guarded: Guarded) -> None:
    with guarded.client() as client:

        def count(kind: str) -> float:
            text = client.get("/metrics", headers={"x-api-key": guarded.keys["metrics"]}).text
            return float(re.findall(rf'^radogaga_errors_total{{kind="{kind}"}} (\S+)', text, re.MULTILINE)[0])

        def settled() -> tuple[float, float]:
            """Returns both once all workers have told theirs, which they do every second."""
            time.sleep(1.5)
            return count("unauthorized"), count("forbidden")

        before = settled()
        for number, (name, status) in enumerate(
            [("score", 200), ("wrong", 401), ("expired", 401), ("metrics", 403), ("admin", 200)]
        ):
            headers = {"x-request-id": f"told-{number}", "authorization": f"Bearer {guarded.keys[name]}"}
            answer = client.post("/score", json={"dataset": "thyroid", "vectors": [ROW]}, headers=headers)
            assert answer.status_code == status
            line = lines_of(guarded.server, f"told-{number}")[0]
            assert line.get("key") == (None if name == "wrong" else name)
            assert line["status"] == status
        assert settled() == (before[0] + 2, before[1] + 1)


def statuses(guarded: Guarded, key: str, number: int = 24) -> set[int]:
    """Returns what requests over as many connections, and so to all workers, are answered with."""

    def ask(_: int) -> int:
        with connect(guarded.server) as connection:
            connection.sendall(request(BODY, f"authorization: Bearer {key}"))
            return read(connection)[0]

    with ThreadPoolExecutor(8) as pool:
        return set(pool.map(ask, range(number)))


def test_keys_change_in_all_workers_within_a_second(guarded: Guarded) -> None:
    for number in range(2):
        key = add_key(guarded.path, f"rotated-{number}", ["score"])
        time.sleep(1)
        assert statuses(guarded, key) == {200}
        with connect(guarded.server) as open_already:
            open_already.sendall(request(BODY, f"x-api-key: {key}"))
            assert read(open_already)[0] == 200
            revoke_key(guarded.path, f"rotated-{number}")
            time.sleep(1)
            open_already.sendall(request(BODY, f"x-api-key: {key}"))
            assert read(open_already)[0] == 401
        assert statuses(guarded, key) == {401}
    assert statuses(guarded, guarded.keys["score"]) == {200}


def test_a_broken_file_is_seen_in_the_metrics(guarded: Guarded) -> None:
    whole = guarded.path.read_text()

    def stale() -> str:
        with guarded.client() as client:
            text = client.get("/metrics", headers={"x-api-key": guarded.keys["metrics"]}).text
            return str(re.findall(r"^radogaga_keys_stale (\S+)", text, re.MULTILINE)[0])

    def wait_for(value: str) -> None:
        deadline = time.monotonic() + SECONDS
        while stale() != value:
            assert time.monotonic() < deadline
            time.sleep(0.1)

    assert stale() == "0.0"
    guarded.path.write_text("nonsense\n")
    try:
        wait_for("1.0")
        assert statuses(guarded, guarded.keys["score"]) == {200}
    finally:
        guarded.path.write_text(whole)
    wait_for("0.0")


@pytest.mark.parametrize(("text", "workers"), [(None, 1), ("", 2), ("nonsense\n", 1)])
def test_a_service_that_should_ask_for_keys_does_not_start_without(
    tmp_path: Path, path: Path, text: str | None, workers: int
) -> None:
    if text is not None:
        path.write_text(text)
    with serving(tmp_path / "log", keys=path, workers=workers) as server:
        assert server.process.wait(SECONDS) == 1
        assert server.log.read_text().startswith(f"the service did not start: RADOGAGA_KEYS: {path}")


def test_without_keys_everything_is_open_and_no_header_is_read(client: httpx.Client) -> None:
    assert "security" not in client.get("/openapi.json").json()
    for headers in ({}, {"authorization": "Bearer nonsense"}):
        assert client.get("/metrics", headers=headers).status_code == 200
        assert client.get("/datasets", headers=headers).status_code == 200


def test_a_service_off_loopback_is_told_apart_from_one_with_keys(guarded: Guarded) -> None:
    """No way around through HTTP/1.0, a proxy's form of the path, or a name that is not ours."""
    for first in (
        b"GET /metrics HTTP/1.0",
        b"GET http://127.0.0.1/metrics HTTP/1.1\r\nhost: x",
        b"GET /health/live/../../metrics HTTP/1.1\r\nhost: x",
        b"GET /health/live%2f..%2f..%2fmetrics HTTP/1.1\r\nhost: x",
        b"GET /metrics?/health/live HTTP/1.1\r\nhost: x",
        b"GET /metrics#/health/live HTTP/1.1\r\nhost: x",
        b"GET /metrics;/health/live HTTP/1.1\r\nhost: x",
    ):
        with socket.create_connection(
            ("127.0.0.1", int(guarded.server.url().rpartition(":")[2])), SECONDS
        ) as connection:
            connection.sendall(first + b"\r\nconnection: close\r\n\r\n")
            received = b""
            while piece := connection.recv(65_536):
                received += piece
            assert received.split()[1] in (b"401", b"400"), first
            assert b"radogaga_ready" not in received
