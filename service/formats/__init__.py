"""Formats of bodies: each has a name, reads a body into rows and writes an answer.

A format is a module with `MEDIA_TYPE`, `read` and `write`; `read` raises the errors of `service.errors`, naming the
field and the value it had, and `write` can't fail.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from service.errors import NotAcceptable, UnsupportedMediaType
from service.formats import arrow, csv, json, npy, raw
from service.formats.records import RecordsRequest
from service.formats.rows import Address, Answer, Body, Context, RowsRequest

__all__ = [
    "FORMATS",
    "Address",
    "Answer",
    "Body",
    "Context",
    "Format",
    "RecordsRequest",
    "RowsRequest",
    "format_of",
    "wanted_format",
]

CHARSET = re.compile(r'charset\s*=\s*"?([^";\s]+)', re.IGNORECASE)

UTF_8 = ("utf-8", "utf8", "us-ascii")

QUALITY = re.compile(r"q\s*=\s*([01](?:\.\d{0,3})?)\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class Format:
    """A format of bodies.

    Attributes:
        media_type: Its name in Content-Type and Accept.
        read: Reads a body.
        write: Writes an answer.
    """

    media_type: str
    read: Callable[[Body, Context], RowsRequest | RecordsRequest]
    write: Callable[[Answer], bytes]

    @cached_property
    def header(self) -> bytes:
        """Returns what an answer's header says."""
        charset = "; charset=utf-8" if self.media_type.startswith("text/") else ""
        return f"{self.media_type}{charset}".encode()


FORMATS = {
    module.MEDIA_TYPE: Format(module.MEDIA_TYPE, module.read, module.write) for module in (json, arrow, npy, raw, csv)
}
"""The formats by their media types; the first is the one answered unless another is asked for."""

JSON = FORMATS[json.MEDIA_TYPE]


LONGEST_KEPT = 256
"""Bytes of a header whose meaning is remembered; clients send the same ones again and again."""


def format_of(content_type: bytes) -> Format:
    """Returns the format that a Content-Type names.

    Raises:
        UnsupportedMediaType: There is none, or its text is not UTF-8.
    """
    return (_named if len(content_type) <= LONGEST_KEPT else _named.__wrapped__)(content_type)


def wanted_format(accept: bytes) -> Format:
    """Returns the format that an Accept prefers, JSON if it takes anything (RFC 9110, section 12.5.1).

    Raises:
        NotAcceptable: It takes none of the formats.
    """
    return (_preferred if len(accept) <= LONGEST_KEPT else _preferred.__wrapped__)(accept)


@lru_cache(maxsize=256)
def _named(content_type: bytes) -> Format:
    text = content_type.decode("latin-1")
    media_type, _, parameters = text.partition(";")
    charset = CHARSET.search(parameters)
    found = FORMATS.get(media_type.strip().lower())
    if found is None or (charset and charset[1].lower() not in UTF_8):
        raise UnsupportedMediaType(text, FORMATS)
    return found


@lru_cache(maxsize=256)
def _preferred(accept: bytes) -> Format:
    text = accept.decode("latin-1")
    ranges: dict[str, tuple[float, int]] = {}
    for place, part in enumerate(text.split(",")):
        name, *parameters = part.split(";")
        quality = next((float(found[1]) for p in parameters if (found := QUALITY.search(p))), 1.0)
        ranges.setdefault(name.strip().lower(), (quality, -place))
    best, best_rank = None, (0.0, 0)
    for kind, one in FORMATS.items():
        named = next((name for name in (kind, f"{kind.split('/')[0]}/*", "*/*") if name in ranges), None)
        if named and ranges[named][0] and (best is None or ranges[named] > best_rank):  # the narrowest range counts
            best, best_rank = one, ranges[named]
    if best is None:
        raise NotAcceptable(text, FORMATS)
    return best
