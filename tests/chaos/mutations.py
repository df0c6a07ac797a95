"""Requests that are nearly right: every case is made from a seed and a number, and can be made again."""

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

from tests.chaos.samples import JSON, PACK, RAW, WAYS, Sample, packed, rows_of
from tests.chaos.variants import vary
from tests.chaos.wire import END_OF_HEADER, request

TOKENS = [
    b"1e999", b"-1e999", b"NaN", b"Infinity", b"-0", b"-0.0",
    b"1_0", b"0x10", b"1e-400", b"3.4028235677973366e38",
    b"340282356779733661637539395458142568448", b"9" * 400, b"9" * 5000, b"0." + b"3" * 3000,
    b"1" + b"0" * 39, b"01",
    b".5", b"5.", b"+1", b"null", b"true", b'""', b'"\\ud800"', b'"\\u0000"', b"[", b"]", b"{", b"}", b"[]",
    b"{}", b",",
    b":", b'"', b"\\", b"\n", b"\r", b"\r\n", b"\t", b" ", b"\0", b"\xff", b"\xc0\x80", b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"\xf4\x90\x80\x80", "\u0661".encode(), "\u2028".encode(), b"[" * 2000, b'{"a":' * 2000, b"dataset", b"version",
    b'"version":1,', b'"dataset":"thyroid",', b'"vectors":[[1,2,3,4,5,6]],', b"'", b"=cmd()", b"//", b"/**/",
]  # fmt: skip
"""What parsers stumble over."""

NUMBERS = (0, 1, 6, 7, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
"""Lengths and counts that are off by one, or far."""

MEDIA_TYPES = (
    JSON, RAW, "text/csv", "text/csv; charset=utf-16", "application/x-npy", "application/vnd.apache.arrow.stream",
    "application/json; charset=utf-8", "APPLICATION/JSON", "application/json;", "multipart/form-data", "*/*", "",
    "text/html", "a" * 5000, "application/json, text/csv", "\xff", "application/json; charset=\"",
)  # fmt: skip
ACCEPTS = (
    *MEDIA_TYPES, "text/*", "application/*;q=0", "*/*;q=0.1, text/csv;q=1", "text/csv;q=1.0000", "q=1", ",,,;;;",
    ",".join(["text/csv;q=0.5"] * 500), "application/json;q=", "application/json;q=NaN",
)  # fmt: skip
ENCODINGS = ("gzip", "deflate", "zstd", "br", "identity", "", "gzip, gzip", "GZIP", "x-gzip", "gzip;q=1", "*")
IDS = ("7", "a" * 128, "a" * 129, "", "a b", "\xe9", "../../etc/passwd", '"', "{}", "a\tb", "%0d%0aset-cookie: a=b")
QUERIES = (
    "", "?", "?dataset=thyroid", "?dataset=thyroid&version=2", "?dataset=thyroid&version=1",
    "?dataset=thyroid&version=99",
    "?dataset=thyroid&dataset=thyroid", "?version=1", "?dataset=", "?dataset=%00", "?dataset=%ff%fe",
    "?dataset=thyroid&x=1",
    "?dataset=thyroid&version=-1", "?dataset=thyroid&version=%31", "?dataset=thyroid&version=1.0", "?dataset=thyro%69d",
    "?dataset=thyroid&version=" + "9" * 30, "?dataset=thyroid&version=\xb2", "?dataset=" + "a" * 9000, "?&&&",
    "?%", "?=",
    "?dataset=thyroid;version=1", "?dataset=thyroid#", "?dataset=../thyroid", "?dataset=thyroid&version=+1",
)  # fmt: skip
PATHS = (
    "/score", "/encode", "/decode", "/v2/models/thyroid/infer", "/v2/models/thyroid/versions/1/infer",
    "/v2/models/thyroid.encoder/infer", "/v2/models/thyroid.decoder/infer", "/v2/models/../infer",
    "/v2/models/%00/infer",
    "/v2/models/thyroid/versions/x/infer", "/v2/models/thyroid/versions/%ff/infer", "//score", "/score/", "/SCORE", "/",
    "/v2/repository/index", "/datasets/thyroid", "/datasets/%2e%2e", "/metrics", "/health/ready", "/openapi.json",
)  # fmt: skip
METHODS = ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "BREW", "post")

CHANGES_AT_ONCE = (1, 1, 1, 1, 2, 2, 4)

VARIED = 0.5
"""The share of cases that are made of a seldom way to write rows."""


@dataclass(frozen=True)
class Case:
    """A request as it goes over the wire.

    Attributes:
        name: Its seed and number.
        sample: What it was made of: what its body says is known if only the body was changed.
        data: Its bytes.
        framed: Whether its bytes are one request of HTTP, so that exactly one answer is due.
        method: Its method, for answers without a body.
    """

    name: str
    sample: Sample
    data: bytes
    framed: bool = True
    method: str = "POST"


def case_of(seed: int, number: int) -> Case:
    """Makes a case: its body is changed, or its header, or its framing; or it is no HTTP at all."""
    draw = random.Random(f"{seed}:{number}")
    x = rows_of(draw.choice((1, 1, 2, 3, 17)), draw.randrange(100))
    sample = vary(x, draw) if draw.random() < VARIED else draw.choice(WAYS)(x)
    (kind,) = draw.choices(("variant", "body", "packed", "header", "framing", "garbage"), (20, 50, 7, 15, 7, 1))
    name = f"--seed {seed} --case {number}"
    if kind == "variant":
        sample = vary(x, draw)
    elif kind == "body":
        sample = replace(sample, body=changed(sample.body, draw))
    elif kind == "packed":
        encoding = draw.choice(list(PACK))
        inner = draw.random() < 0.5
        sample = packed(replace(sample, body=changed(sample.body, draw)) if inner else sample, encoding)
        sample = sample if inner else replace(sample, body=changed(sample.body, draw))
    elif kind == "header":
        return with_header(name, sample, draw)
    elif kind == "framing":
        return Case(name, sample, misframed(sample, draw), framed=False)
    else:
        return Case(name, sample, draw.randbytes(draw.randrange(1, 2000)) + b"\r\n\r\n", framed=False)
    return Case(name, sample, request("POST", sample.target, sample.headers, sample.body))


def changed(body: bytes, draw: random.Random) -> bytes:
    """Changes a body in one to a few places."""
    for _ in range(draw.choice(CHANGES_AT_ONCE)):
        body = draw.choice(CHANGES)(body, draw)
    return body


def flip(body: bytes, draw: random.Random) -> bytes:
    """Flips a bit."""
    place = draw.randrange(len(body) or 1)
    return body[:place] + bytes([byte ^ 1 << draw.randrange(8) for byte in body[place : place + 1]]) + body[place + 1 :]


def cut(body: bytes, draw: random.Random) -> bytes:
    """Leaves out the end, the beginning or something between."""
    first, last = sorted(draw.randrange(len(body) + 1) for _ in range(2))
    return draw.choice((body[:last], body[first:], body[:first] + body[last:]))


def insert(body: bytes, draw: random.Random) -> bytes:
    """Puts something in."""
    place = draw.randrange(len(body) + 1)
    return body[:place] + draw.choice((draw.choice(TOKENS), draw.randbytes(draw.randint(1, 16)))) + body[place:]


def replace_some(body: bytes, draw: random.Random) -> bytes:
    """Puts something in place of a few bytes."""
    place = draw.randrange(len(body) + 1)
    return body[:place] + draw.choice(TOKENS) + body[place + draw.randint(1, 8) :]


def duplicate(body: bytes, draw: random.Random) -> bytes:
    """Has a part twice."""
    first, last = sorted(draw.randrange(len(body) + 1) for _ in range(2))
    return body[:last] + body[first:last] + body[last:]


def splice(body: bytes, draw: random.Random) -> bytes:
    """Goes on as another body does."""
    other = draw.choice(WAYS)(rows_of(draw.randint(1, 3))).body
    return body[: draw.randrange(len(body) + 1)] + other[draw.randrange(len(other)) :]


def overwrite_number(body: bytes, draw: random.Random) -> bytes:
    """Writes a number over four or eight bytes, where binary formats have their lengths."""
    word = struct.pack("<Q", draw.choice(NUMBERS))[: draw.choice((1, 2, 4, 8))]
    place = draw.randrange(max(1, len(body) - len(word))) & ~3
    return body[:place] + word + body[place + len(word) :]


def change_digits(body: bytes, draw: random.Random) -> bytes:
    """Writes another digit, where texts have their numbers."""
    digits = [place for place, byte in enumerate(body) if byte in b"0123456789"]
    if not digits:
        return body
    place = draw.choice(digits)
    return body[:place] + draw.choice((b"%d" % draw.randrange(10), b"99", b"-", b"e", b".")) + body[place + 1 :]


CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip,
    flip,
    cut,
    insert,
    replace_some,
    duplicate,
    splice,
    overwrite_number,
    change_digits,
    change_digits,
)


def with_header(name: str, sample: Sample, draw: random.Random) -> Case:
    """Changes one or two lines of a header, the query, the path or the method."""
    headers, path, query = dict(sample.headers), sample.target.partition("?")[0], sample.target.partition("?")[2]
    method, query = "POST", f"?{query}" if query else ""
    for _ in range(draw.randint(1, 2)):
        what = draw.choice(
            ("content-type", "accept", "accept", "content-encoding", "x-request-id", "query", "path", "more")
        )
        if what == "query":
            query = draw.choice(QUERIES)
        elif what == "path":
            path = draw.choice(PATHS)
            method = draw.choice((method, draw.choice(METHODS)))
        elif what == "more":
            headers[draw.choice(("traceparent", "cookie", "x-a", "te", "range", "if-match"))] = "a" * draw.randrange(
                4000
            )
        else:
            values = {
                "content-type": MEDIA_TYPES,
                "accept": ACCEPTS,
                "content-encoding": ENCODINGS,
                "x-request-id": IDS,
            }
            headers[what] = draw.choice(values[what])
    target = (path + query).replace(" ", "%20")
    changed_sample = Sample(
        "unknown" if path != sample.target.partition("?")[0] else sample.kind, target, headers, sample.body
    )
    framed = method not in ("CONNECT", "BREW", "post") and "#" not in target and target.isascii()
    return Case(name, changed_sample, request(method, target, headers, sample.body), framed, method)


def misframed(sample: Sample, draw: random.Random) -> bytes:
    """Writes a request whose length is wrong, whose chunks are broken, that is cut, or that others follow at once."""
    plain = request("POST", sample.target, sample.headers, sample.body)
    lengths = ("0", "1", "-1", "99999999999999999999", "0x10", "1 1", "", "\xb2", str(len(sample.body) + 5), "33554433")
    wrong = {**sample.headers, "content-length": draw.choice(lengths)}
    both = {**sample.headers, "content-length": str(len(sample.body)), "transfer-encoding": "chunked"}
    coding = {
        **sample.headers,
        "transfer-encoding": draw.choice(("chunked", "gzip, chunked", "identity", "chunked, chunked")),
    }
    sizes = (b"%x", b"0%x", b"%X;ext=1", b"-%x", b"%xg", b" %x", b"ffffffff%x", b"%x\n", b"+%x", b"0x%x")
    size = draw.choice((*sizes, sizes[0])) % len(sample.body)
    ending = draw.choice((b"\r\n0\r\n\r\n", b"\r\n0\r\n", b"0\r\n\r\n", b"\r\n0\r\nx: y\r\n\r\n", b"\n0\n\n", b""))
    chunks = size + b"\r\n" + sample.body + ending
    ways: tuple[Callable[[], bytes], ...] = (
        lambda: request("POST", sample.target, wrong, sample.body),
        lambda: request("POST", sample.target, both, draw.choice((sample.body, chunks))),
        lambda: request("POST", sample.target, coding, chunks),
        lambda: plain[: draw.randrange(len(plain))],
        lambda: plain * draw.randint(2, 4),
        lambda: plain + draw.choice((b"\r\n", b"x", b"GET / HTTP/1.1\r\n\r\n", b"GET /", b"\0" * 9)),
        lambda: plain.replace(
            b"HTTP/1.1", draw.choice((b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/1.1 ", b"http/1.1")), 1
        ),
        lambda: plain.replace(b"\r\n", b"\n", draw.choice((1, 2, -1))),
        lambda: plain.replace(END_OF_HEADER, b"\r\nexpect: 100-continue" + END_OF_HEADER, 1),
        lambda: plain.replace(END_OF_HEADER, b"\r\nconnection: upgrade\r\nupgrade: h2c" + END_OF_HEADER, 1),
        lambda: plain.replace(END_OF_HEADER, b"\r\nx: " + b"a" * draw.choice((100, 70_000)) + END_OF_HEADER, 1),
        lambda: plain.replace(END_OF_HEADER, b"\r\nx: y" * draw.choice((100, 3000)) + END_OF_HEADER, 1),
        lambda: changed(plain, draw),
    )
    return draw.choice(ways)()
