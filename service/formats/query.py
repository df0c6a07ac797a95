"""The query, which says of bodies without fields of their own which model they are for."""

from functools import lru_cache
from urllib.parse import parse_qsl

from service.errors import InvalidField
from service.formats.rows import Address
from service.quotes import describe

LONGEST_KEPT = 256
"""Bytes of a query that is remembered: clients send the same one again and again, and reading it costs more than a
row's score."""

LONGEST_VERSION = 18
"""Digits of a version that is read as a number."""


def address_of(query: bytes) -> Address:
    """Reads ``dataset=...`` and ``version=...``.

    Raises:
        InvalidField: One of them is missing, unknown, there twice or of the wrong type.
    """
    return (_read if len(query) <= LONGEST_KEPT else _read.__wrapped__)(query)


@lru_cache(maxsize=256)
def _read(query: bytes) -> Address:
    found: dict[str, str] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name not in ("dataset", "version"):
            raise InvalidField(f"{describe(name)} in the query", "is unknown", "dataset and version")
        if name in found:
            raise InvalidField(f"{name} in the query", "is there twice", "one")
        found[name] = value
    if not found.get("dataset"):
        raise InvalidField("dataset in the query", "is missing", "?dataset=<name>, as the body has no place for it")
    version = found.get("version")
    if version is None:
        return Address(found["dataset"])
    if not (version.isascii() and version.isdecimal() and len(version) <= LONGEST_VERSION):
        raise InvalidField("version in the query", f"is {describe(version)}", "an integer")
    return Address(found["dataset"], int(version))
