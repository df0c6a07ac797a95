"""What can go wrong when tables are scored, each with the sentence that says so."""

from service.quotes import describe


class OfflineError(Exception):
    """A table can't be scored; the text names the file and what is wrong with it."""


class BadRow(OfflineError):
    """A row has a value that the model can't take; rows count from 0."""

    def __init__(self, file: str, row: int, column: str, value: object, expected: str) -> None:
        super().__init__(f"{file}: row {row}, column {describe(column)} is {describe_cell(value)}, expected {expected}")


class ScoreNotFinite(OfflineError):
    """A row of finite values lies so far out that its score is beyond float32; rows count from 0."""

    def __init__(self, file: str, row: int) -> None:
        super().__init__(f"{file}: row {row} has values so large that its score is not a finite number")


def describe_cell(value: object) -> str:
    """Names a cell's value, whatever type the table gave it."""
    return describe(value) if isinstance(value, str | int | float | None) else describe(str(value))
