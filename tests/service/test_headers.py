"""Headers: those that every answer has, and how many of a request's are read."""

import base64
import hashlib
import re
import socket
import time
from collections.abc import Iterator

import pytest

from service.protocol import MOST_HEADER_BYTES, MOST_HEADERS
from tests.load.processes import pss_megabytes
from tests.server import SECONDS, Server, serving
from tests.service.test_lane import BODY, connect, lines_of, read, request

SECURE = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
}
GET = b"GET /datasets HTTP/1.1\r\nhost: x\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("headers") / "log"
    with serving(log) as started, started.client():
        yield started
        assert "Traceback" not in log.read_text()


def received(connection: socket.socket) -> bytes:
    """Returns all that comes until the service hangs up."""
    whole = b""
    try:
        while piece := connection.recv(65_536):
            whole += piece
    except ConnectionResetError:
        return whole
    return whole


def test_every_answer_has_them_once(server: Server) -> None:
    with connect(server) as connection:
        for sent in (request(), request(b"{"), request(BODY, "content-encoding: identity"), GET + b"\r\n"):
            connection.sendall(sent)
            headers = read(connection)[1]
            assert SECURE.items() <= headers.items()
            assert not {"server", "strict-transport-security", "x-powered-by"} & set(headers)
    with server.client() as client:
        for path in ("/", "/docs", "/openapi.json", "/health/live", "/metrics", "/v2", "/unknown", "/score"):
            answer = client.get(path)
            for name, value in SECURE.items():
                assert answer.headers.get_list(name) == [value], path
    with connect(server) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        head = received(connection).decode().lower()
        assert head.startswith("http/1.1 400")
        for name, value in SECURE.items():
            assert f"\r\n{name}: {value.lower()}\r\n" in head


def test_the_page_runs_no_script_but_its_own(server: Server) -> None:
    with server.client() as client:
        page = client.get("/docs")
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        (script,) = re.findall(r"<script>(.*?)</script>", page.text, re.DOTALL)
        assert f"'{hash_of(script)}'" in policy
        scripts = policy.partition("script-src ")[2].partition(";")[0]
        assert "unsafe" not in scripts
        assert "content-security-policy" not in client.get("/openapi.json").headers


def hash_of(script: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def test_other_origins_are_told_nothing(server: Server) -> None:
    origin = {"origin": "https://elsewhere.example"}
    asked = {**origin, "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    with server.client() as client:
        preflight = client.options("/score", headers=asked)
        assert (preflight.status_code, preflight.json()["kind"]) == (405, "method_not_allowed")
        answers = [preflight, client.get("/datasets", headers=origin)]
    with connect(server) as connection:
        connection.sendall(request(BODY, "origin: https://elsewhere.example"))
        names = set(read(connection)[1])
    for answer in answers:
        names |= set(answer.headers)
    assert not [name for name in names if name.startswith("access-control")]


def headers(number: int) -> bytes:
    return b"".join(b"x-%d: y\r\n" % count for count in range(number))


def long(size: int) -> bytes:
    return b"x-long: " + b"y" * size + b"\r\n"


@pytest.mark.parametrize(
    "first", [GET, b"POST /score HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n"], ids=["asgi", "lane"]
)
@pytest.mark.parametrize(
    ("taken", "refused"),
    [
        (headers(MOST_HEADERS - 2), headers(MOST_HEADERS)),
        (headers(0), headers(10_000)),
        (long(MOST_HEADER_BYTES - 100), long(MOST_HEADER_BYTES)),
        (long(0), long(1_000_000)),
    ],
    ids=["one header too many", "10,000 headers", "one byte too many", "1 MB"],
)
def test_how_much_is_read(server: Server, first: bytes, taken: bytes, refused: bytes) -> None:
    with connect(server) as connection:
        connection.sendall(first + taken + b"\r\n")
        assert read(connection)[0] in (200, 415)
    for pause in (0.0, 0.05):
        with connect(server) as connection:
            try:
                connection.sendall(first)
                time.sleep(pause)
                connection.sendall(refused + b"\r\n")
            except (ConnectionResetError, BrokenPipeError):
                continue  # it was hung up on within a megabyte
            answer = received(connection)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 431 "), answer


def test_what_a_refusal_says(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"GET /datasets?secret HTTP/1.1\r\nhost: x\r\n" + headers(200) + b"\r\n")
        status, answered, problem, rest = read(connection)
        assert (status, problem["kind"], rest) == (431, "header_too_large", b"")
        assert problem["detail"] == f"At most {MOST_HEADERS} headers with {MOST_HEADER_BYTES} bytes together are read."
        assert answered["connection"] == "close"
        assert SECURE.items() <= answered.items()
        assert connection.recv(1) == b""
    (line,) = lines_of(server, problem["request_id"])
    assert (line["path"], line["method"], line["status"], line["error"]) == (
        "/datasets",
        "GET",
        431,
        "header_too_large",
    )


def test_a_url_that_is_too_long(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(b"GET /" + b"x" * MOST_HEADER_BYTES + b" HTTP/1.1\r\nhost: x\r\n\r\n")
        status, _, problem, _ = read(connection)
    assert (status, problem["kind"]) == (431, "header_too_large")
    assert len(lines_of(server, problem["request_id"])[0]["path"]) == 256


CHUNKED = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
ENDLESS = {
    "a header": (GET + b"x-long: ", b"y" * 1000),
    "headers": (GET, b"x: y\r\n" * 100),
    "a url": (b"GET /", b"y" * 1000),
    "a trailer": (CHUNKED % b"/score" + b"2\r\n{}\r\n0\r\nx-long: ", b"y" * 1000),
    "trailers": (CHUNKED % b"/score" + b"2\r\n{}\r\n0\r\n", b"x: y\r\n" * 100),
    "trailers beside asgi": (CHUNKED % b"/sc%6fre" + b"2\r\n{}\r\n0\r\n", b"x: y\r\n" * 100),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_what_never_ends_is_hung_up_on(server: Server, what: str) -> None:
    first, more = ENDLESS[what]
    before = pss_megabytes(server.process.pid)
    with connect(server) as connection:
        connection.sendall(first)
        sent = 0
        deadline = time.monotonic() + SECONDS
        try:
            while sent < 50_000_000:
                assert time.monotonic() < deadline
                connection.sendall(more)
                sent += len(more)
        except (ConnectionResetError, BrokenPipeError):
            pass
        else:
            pytest.fail("all of it was read")
    assert pss_megabytes(server.process.pid) - before < 8
    with connect(server) as connection:
        connection.sendall(request())
        assert read(connection)[0] == 200


def test_a_short_trailer_is_read_and_ignored(server: Server) -> None:
    with connect(server) as connection:
        for path in (b"/score", b"/sc%6fre"):
            body = b"%x\r\n%b\r\n0\r\ncontent-type: text/csv\r\nx-request-id: trailer\r\n\r\n" % (len(BODY), BODY)
            connection.sendall(CHUNKED % path + body)
            status, answered, _, _ = read(connection)
            assert (status, answered["x-request-id"] == "trailer") == (200, False)


def test_long_bodies_in_small_chunks_are_no_header(server: Server) -> None:
    chunk = b"400\r\n" + b" " * 1024 + b"\r\n"
    with connect(server) as connection:
        for path in (b"/score", b"/sc%6fre"):
            whole = CHUNKED % path + chunk * 300 + b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)
            for start in range(0, len(whole), 997):
                connection.sendall(whole[start : start + 997])
            assert read(connection)[0] == 200


def test_long_pipelined_requests_are_no_header(server: Server) -> None:
    padded = BODY + b" " * 30_000
    with connect(server) as connection:
        connection.sendall(request(padded) * 20 + request(padded)[:50])
        time.sleep(0.1)
        connection.sendall(request(padded)[50:])
        rest = b""
        for _ in range(21):
            status, _, _, rest = read(connection, rest)
            assert status == 200


SMUGGLED = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n"
AMBIGUOUS = {
    "length and chunks": b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": b"content-length: 2\r\ncontent-length: 40\r\n\r\n{}",
    "the same length twice": b"content-length: 2\r\ncontent-length: 2\r\n\r\n{}",
    "two lengths in one": b"content-length: 2, 40\r\n\r\n{}",
    "a length with a sign": b"content-length: +2\r\n\r\n{}",
    "a negative length": b"content-length: -2\r\n\r\n{}",
    "a hexadecimal length": b"content-length: 0x2\r\n\r\n{}",
    "an enormous length": b"content-length: 18446744073709551617\r\n\r\n{}",
    "chunked twice": b"transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "not chunked at last": b"transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "another coding": b"transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded line": b"x: y\r\n transfer-encoding: chunked\r\n\r\n",
    "a bare line feed": b"x: y\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bare carriage return": b"x: y\rtransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "a zero byte": b"x: \x00\r\ncontent-length: 2\r\n\r\n{}",
    "a wrong chunk length": b"transfer-encoding: chunked\r\n\r\n0x2\r\n{}\r\n0\r\n\r\n",
    "a huge chunk length": b"transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "a chunk without its end": b"transfer-encoding: chunked\r\n\r\n2\r\n{}xx0\r\n\r\n",
    "a header without a name": b": chunked\r\n\r\n",
}


@pytest.mark.parametrize("path", [b"/score", b"/sc%6fre"], ids=["lane", "asgi"])
@pytest.mark.parametrize("what", AMBIGUOUS)
def test_a_request_that_two_readers_could_cut_differently_ends_the_connection(
    server: Server, what: str, path: bytes
) -> None:
    with connect(server) as connection:
        connection.sendall(b"POST " + path + b" HTTP/1.1\r\nhost: x\r\n" + AMBIGUOUS[what] + SMUGGLED)
        answer = received(connection)
    assert answer.count(b"HTTP/1.1 ") == 1, answer
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"radogaga_ready" not in answer


def test_the_log_is_not_deceived(server: Server) -> None:
    with connect(server) as connection:
        connection.sendall(request(BODY, 'x-request-id: a"}\\n{"level":"x'))
        _, answered, _, _ = read(connection)
    assert re.fullmatch(r"[0-9a-f]{32}", answered["x-request-id"])
    assert lines_of(server, answered["x-request-id"])


@pytest.mark.parametrize("path", ["/score", "/encode", "/v2/models/thyroid/infer", "/unknown"])
@pytest.mark.parametrize("pieces", [1, 3, 1000])
def test_an_offer_to_speak_another_protocol_costs_no_body(server: Server, path: str, pieces: int) -> None:
    offer = request(BODY, "connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AAMAAABk")
    offer = offer.replace(b"POST /score", b"POST " + path.encode())
    plain = request(BODY).replace(b"POST /score", b"POST " + path.encode())
    with connect(server) as connection:
        connection.sendall(plain)
        status, headers, body, rest = read(connection)
        whole = offer + offer + plain
        length = -(-len(whole) // pieces)
        for start in range(0, len(whole), length):
            connection.sendall(whole[start : start + length])
        for _ in range(3):
            got, others, found, rest = read(connection, rest)
            assert (got, others["content-type"]) == (status, headers["content-type"])
            assert found == body or found.keys() == body.keys() >= {"request_id"}


def test_an_offer_to_speak_websocket_is_ignored(server: Server) -> None:
    key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="
    with connect(server) as connection:
        lines = ("connection: Upgrade", "upgrade: websocket", "sec-websocket-version: 13", key)
        connection.sendall(GET + "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n" + GET + b"\r\n")
        first = read(connection)
        assert first[0] == read(connection, first[3])[0] == 200


def test_thousands_of_offers_at_once(server: Server) -> None:
    offer = b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
    with connect(server) as connection:
        connection.sendall(offer * 3000)
        rest = b""
        for _ in range(3000):
            status, _, _, rest = read(connection, rest)
            assert status == 200
