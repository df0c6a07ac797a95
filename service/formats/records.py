"""Records: raw values by the names of their columns, in rows that are objects."""

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any

from service.encoding import Encoder, ValueColumns, expected
from service.errors import InvalidField, InvalidValue
from service.formats.rows import Address
from service.graphs import Matrix
from service.quotes import describe

RECORDS = "records"
"""What a request and an answer call them."""

Record = dict[str, Any]


class RecordsRequest:
    """A body with records.

    Arguments:
        address: Which model they are for.
        records: The records, whatever they are.
    """

    __slots__ = ("_records", "address")

    field = RECORDS

    def __init__(self, address: Address, records: list[Any]) -> None:
        self.address = address
        self._records = records

    def encoded(self, encoder: Encoder) -> Matrix:
        """Returns the records as rows (N, M).

        Raises:
            InvalidField: A record is none, or has a column that the model doesn't know.
            InvalidValue: A value is missing, of the wrong type, or not finite as a float32.
        """
        for i, record in enumerate(self._records):
            if not isinstance(record, dict):
                raise InvalidField(f"{RECORDS}[{i}]", f"is {describe(record)}", "an object")
        rows = encoder.rows(columns_of(self._records, encoder))
        wrong = encoder.first_wrong(rows)
        if wrong is not None:
            row, feature = wrong
            record, name = self._records[row], feature.name
            found = f"is {describe(record[name])}" if name in record else "is missing"
            raise InvalidValue(path_of(row, name), found, expected(feature))
        return rows


def columns_of(records: list[Record], encoder: Encoder) -> ValueColumns:
    """Returns the columns that records make, at least one of them; what a record doesn't have is missing.

    Raises:
        InvalidField: A record has a column that the model doesn't know.
    """
    names = tuple(encoder.features)
    cells: Iterable[Sequence[object]]
    try:
        cells = cells_of(records, names)
        complete = set(map(len, records)) == {len(names)}
    except KeyError:
        complete = False
    if not complete:
        known = encoder.features.keys() | encoder.ignored
        for i, record in enumerate(records):
            if not record.keys() <= known:
                name = next(name for name in record if name not in known)
                raise InvalidField(path_of(i, name), "is unknown", f"the {len(names)} columns of the dataset")
        blank = dict.fromkeys(names)
        cells = cells_of([blank | record for record in records], names)
    return ValueColumns(dict(zip(names, zip(*cells, strict=True), strict=True)), len(records))


def cells_of(records: list[Record], names: Sequence[str]) -> list[Sequence[object]]:
    """Returns the values of records under some names, row by row.

    Raises:
        KeyError: A record has not all of them.
    """
    if len(names) == 1:
        return [(record[names[0]],) for record in records]
    return list(map(itemgetter(*names), records))


def path_of(row: int, name: str) -> str:
    """Names a value of a record."""
    return f"{RECORDS}[{row}].{name}" if name.isidentifier() else f"{RECORDS}[{row}][{describe(name)}]"
