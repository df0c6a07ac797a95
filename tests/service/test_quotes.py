"""A client's values as errors repeat them."""

import pytest

from service.quotes import Unrepresentable, describe


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (3.141592653589793, "3.141592653589793"),
        ("a'b\n", '"a\'b\\n"'),
        ([1, 2], "a list"),
        ({"a": 1}, "an object"),
        ("x" * 100, '"' + "x" * 59 + "..."),
        (Unrepresentable("1e400"), "1e400"),
        (Unrepresentable("9" * 100), "9" * 60 + "..."),
    ],
)
def test_values_are_named_as_json_and_not_at_length(value: object, text: str) -> None:
    assert describe(value) == text
