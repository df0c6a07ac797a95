"""A client's values as errors repeat them: as JSON, and not at length."""

import json
from dataclasses import dataclass

LONGEST = 60
"""Characters of a value that an error repeats."""


@dataclass(frozen=True, slots=True)
class Unrepresentable:
    """A number of a body that Python's floats have no value for, as it was written."""

    text: str


def describe(value: object) -> str:
    """Names a JSON value in an error."""
    if isinstance(value, Unrepresentable):
        return shorten(value.text)
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    return shorten(json.dumps(value, ensure_ascii=False))


def shorten(text: str, longest: int = LONGEST) -> str:
    """Cuts a long text."""
    return text if len(text) <= longest else f"{text[:longest]}..."
