"""What the query says of bodies without fields of their own."""

import pytest

from service.errors import InvalidField
from service.formats.query import address_of
from service.formats.rows import Address


def test_the_dataset_and_the_version_are_read() -> None:
    assert address_of(b"dataset=thyroid") == Address("thyroid")
    assert address_of(b"version=12&dataset=a%20b%C3%A9") == Address("a bé", 12)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (b"", "dataset in the query is missing"),
        (b"dataset=", "dataset in the query is missing"),
        (b"version=1", "dataset in the query is missing"),
        (b"dataset=a&dataset=b", "dataset in the query is there twice"),
        (b"dataset=a&rows=3", '"rows" in the query is unknown, expected dataset and version'),
        (b"dataset=a&version=1.5", 'version in the query is "1.5", expected an integer'),
        (b"dataset=a&version=-1", 'version in the query is "-1"'),
        (b"dataset=a&version=", 'version in the query is ""'),
        (b"dataset=a&version=" + b"9" * 19, 'version in the query is "9999'),
        (b"dataset=a&version=%D9%A1", "version in the query is"),
        (b"dataset=a&x=" + b"y" * 300, '"x" in the query is unknown'),
    ],
)
def test_queries_that_are_refused(query: bytes, text: str) -> None:
    with pytest.raises(InvalidField) as caught:
        address_of(query)
    assert str(caught.value).startswith(text)
