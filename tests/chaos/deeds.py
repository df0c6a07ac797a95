"""What a soak does to a service, from what clients do all day to what they do by mistake."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import orjson

from tests.chaos.samples import (
    DATASET,
    WAYS,
    WIDTH,
    Rows,
    Sample,
    as_arrow,
    as_csv,
    as_json,
    as_npy,
    as_raw,
    as_v2,
    as_v2_bytes,
    packed,
    rows_of,
)
from tests.chaos.wire import request

DECKS = 20
"""How often a deed of weight 1 is in a deck, so that the rarest is there once."""

SMALL, MANY, LONG = 256, 4096, 16384

EXPECTED = {
    "good": {200},
    "bad": {400, 404, 405, 406, 413, 415, 422},
    "empty": {200, 404},
}
"""The statuses that each sort of request may get; `empty` names a version that comes and goes."""


@dataclass(frozen=True)
class Deed:
    """Something that is done to the service, over and over.

    Attributes:
        weight: How often, beside the others; a multiple of 1 / `DECKS`.
        sort: What may be answered; None if the client hangs up before.
        data: The bytes of it.
        fresh: Whether it takes a connection of its own.
    """

    weight: float
    sort: str | None
    data: bytes
    fresh: bool = False


def dealt(chance: random.Random) -> Iterator[Deed]:
    """Yields deeds without end, shuffled deck by deck, so that every 1,800 or so are the same ones."""
    deck = [deed for deed in deeds() for _ in range(round(deed.weight * DECKS))]
    while True:
        yield from chance.sample(deck, len(deck))


def written(sample: Sample, **headers: str) -> bytes:
    """Writes a request."""
    return request("POST", sample.target, {**sample.headers, **headers}, sample.body)


def long_json() -> bytes:
    """Writes a body of about 2 MB, longer than those that are answered at once."""
    document = {"dataset": DATASET, "vectors": np.random.default_rng(1).random((LONG, WIDTH)).tolist()}
    return request("POST", "/score", {"content-type": "application/json"}, orjson.dumps(document))


def asked(target: str, method: str = "GET", **headers: str) -> bytes:
    """Writes a request without a body."""
    return request(method, target, headers)


def decoded(x: Rows) -> bytes:
    """Writes latents to be decoded."""
    body = orjson.dumps({"dataset": DATASET, "latents": x.tolist()})
    return request("POST", "/decode", {"content-type": "application/json"}, body)


def deeds() -> list[Deed]:
    """Returns what is done, from what clients do all day to what they do by mistake."""
    one, some, many, most = (rows_of(count) for count in (1, SMALL, MANY, LONG))
    row = as_json(one)
    versioned = Sample("json", "/score", row.headers, row.body[:-1] + b', "version": 3}')
    bad = [
        row.body[:-3],
        row.body.replace(b"0.", b"NaN, 0."),
        row.body.replace(b"thyroid", b"nobody"),
        b"[" * 10_000,
        b"\xff\xfe",
        b"",
        b"{}",
        b'{"dataset": "thyroid", "vectors": [[1e999, 0, 0, 0, 0, 0]]}',
    ]
    get = ("/datasets", f"/datasets/{DATASET}", "/health/ready", "/health/live", "/v2", f"/v2/models/{DATASET}")
    return [
        Deed(30, "good", written(row)),
        Deed(10, "good", written(row), fresh=True),
        Deed(4, "good", written(Sample("json", "/encode", row.headers, row.body))),
        Deed(4, "good", decoded(one)),
        *(Deed(2, "good", written(way(some))) for way in WAYS),
        *(Deed(1, "good", written(way(some), accept=media_type(way))) for way in (as_csv, as_npy, as_raw, as_arrow)),
        *(Deed(0.5, "good", written(packed(as_json(some), encoding))) for encoding in ("gzip", "deflate", "zstd")),
        *(Deed(0.3, "good", written(way(many))) for way in (as_json, as_csv, as_v2, as_npy, as_v2_bytes)),
        *(Deed(0.05, "good", written(way(most))) for way in (as_json, as_csv, as_arrow)),
        *(Deed(0.05, "good", data) for data in (long_json(), written(packed(as_json(most), "zstd")))),
        Deed(3, "empty", written(versioned)),
        *(Deed(0.5, "bad", request("POST", "/score", row.headers, body)) for body in bad),
        *(Deed(0.2, "bad", written(row, **{name: "x"})) for name in ("accept", "content-type", "content-encoding")),
        Deed(1, "bad", asked("/nothing/here")),
        Deed(0.5, "bad", asked("/score", "DELETE")),
        *(Deed(0.5, "good", asked(target)) for target in get),
        *(Deed(0.1, "good", asked(target)) for target in ("/openapi.json", "/docs")),
        Deed(1, None, written(row)[:-20], fresh=True),
        Deed(0.5, None, written(as_json(some))[:200], fresh=True),
        Deed(0.3, None, written(as_json(many)), fresh=True),
        Deed(0.5, None, b"\x16\x03\x01\x02\x00\x01\x00", fresh=True),
    ]


def media_type(way: Callable[[Rows], Sample]) -> str:
    """Returns the name of a format."""
    return way(rows_of(1)).headers["content-type"]
