"""What can be wrong with a user's table or its schema, each with the sentence that says so. Rows count from 0."""

import json
from collections.abc import Iterable
from difflib import get_close_matches

LONGEST = 60
"""Characters of a value that an error repeats."""

MOST_NAMES = 10
"""Names that an error lists."""


class TableError(ValueError):
    """A table can't be used; the text names the file and what is wrong with it."""


class BadCell(TableError):
    """A cell's value can't be used."""

    def __init__(self, source: str, row: int, column: str, value: object, expected: str) -> None:
        super().__init__(f"{source}: row {row}, column {quote(column)} is {quote(value)}, expected {expected}")


class UnknownColumn(TableError):
    """A column is asked for that the table doesn't have."""

    def __init__(self, source: str, field: str, name: str, known: Iterable[str]) -> None:
        known = list(known)
        close = get_close_matches(name, known, cutoff=0.5)
        hint = f"did you mean {listed(close)}?" if close else f"the table has {listed(known)}"
        super().__init__(f"{source}: {field} names column {quote(name)}, which is not there; {hint}")


def quote(value: object) -> str:
    """Names a value in an error, as JSON where it can be, and not at length."""
    return shorten(json.dumps(value if isinstance(value, str | int | float | None) else str(value), ensure_ascii=False))


def shorten(text: str, longest: int = LONGEST) -> str:
    """Cuts a long text."""
    return text if len(text) <= longest else f"{text[:longest]}..."


def listed(names: Iterable[str]) -> str:
    """Lists names, and not all of very many."""
    names = list(names)
    text = ", ".join(quote(name) for name in names[:MOST_NAMES])
    return text if len(names) <= MOST_NAMES else f"{text} and {len(names) - MOST_NAMES} more"
