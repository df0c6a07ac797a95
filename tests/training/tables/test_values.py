"""Arrays become numbers, booleans, text and moments, or an error names the cell."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from training.tables.errors import TableError
from training.tables.values import NULLS, Array, Place, booleans_of, clean, moments_of, numbers_of, plain, text_of

PLACE = Place("t.csv", "c", 100)


def test_types_become_plain() -> None:
    cases = [
        (pa.array(["a", None]).dictionary_encode(), pa.string(), ["a", None]),
        (pa.DictionaryArray.from_arrays([0, None], pa.array(["a"], pa.string_view())), pa.string(), ["a", None]),
        (pa.array([3, None]).dictionary_encode(), pa.int64(), [3, None]),
        (pa.array(["a"], pa.large_string()), pa.string(), ["a"]),
        (pa.array(["a"], pa.string_view()), pa.string(), ["a"]),
        (pa.array([Decimal("1.25"), None]), pa.float64(), [1.25, None]),
        (pa.array([np.float16(1.5)]), pa.float32(), [1.5]),
        (pa.array([date(1960, 1, 2)]), pa.timestamp("s"), [datetime(1960, 1, 2)]),
        (pa.array([date(1960, 1, 2)], pa.date64()), pa.timestamp("ms"), [datetime(1960, 1, 2)]),
        (pa.array([None]), pa.null(), [None]),
        (pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0], pa.int8())), pa.int8(), [1, 0]),
    ]
    for array, type_, values in cases:
        found = plain(array, PLACE)
        assert found.type == type_
        assert found.to_pylist() == values


@pytest.mark.parametrize(
    "array",
    [
        pa.array([[1, 2]]),
        pa.array([{"a": 1}]),
        pa.array([b"x"]),
        pa.array([timedelta(seconds=1)]),
        pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())),
    ],
)
def test_types_that_can_t_be_used_are_named(array: Array) -> None:
    with pytest.raises(TableError, match='t.csv: column "c" has the type .*, expected numbers, booleans, text, dates'):
        plain(array, PLACE)


def test_text_that_is_not_utf_8_is_named() -> None:
    broken = pa.array([b"a", None, b"\xff", b"b"]).view(pa.string())
    with pytest.raises(TableError, match="row 102, column .*c.* is .*xff.*, expected UTF-8"):
        plain(broken, PLACE)


def test_nulls_are_spelled_in_several_ways() -> None:
    cells = pa.array([*NULLS, *(f" {null}\t" for null in NULLS), "none", "NaN5", " a b "])
    assert clean(cells).drop_null().to_pylist() == ["none", "NaN5", "a b"]


@pytest.mark.parametrize(
    ("array", "values"),
    [
        (pa.array([1, None, -3]), [1, np.nan, -3]),
        (pa.array([1.5, np.nan, None]), [1.5, np.nan, np.nan]),
        (pa.array([2**63 + 2**40], pa.uint64()), [2.0**63 + 2.0**40]),
        (pa.array([" 12", "+.5", "-1e-3", "?", None, "7."]), [12, 0.5, -1e-3, np.nan, np.nan, 7]),
        (pa.nulls(2), [np.nan, np.nan]),
    ],
)
def test_numbers(array: Array, values: list[float]) -> None:
    assert np.array_equal(numbers_of(array, PLACE), values, equal_nan=True)


def test_floats_stay_as_wide_as_they_are() -> None:
    assert numbers_of(pa.array([1.5], pa.float32()), PLACE).dtype == np.float32
    assert numbers_of(pa.array([1], pa.int8()), PLACE).dtype == np.float64


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (pa.array([1.0, np.inf]), 'row 101, column "c" is Infinity'),
        (pa.array([None, -np.inf], pa.float32()), 'row 101, column "c" is -Infinity'),
        (pa.array([1e38, 3.5e38, 1e300]), 'row 101, column "c" is 3.5e\\+38'),
        (pa.array(["1", None, "2", "1,5", "x"]), 'row 103, column "c" is "1,5"'),
        (pa.array(["1", "inf"]), 'row 101, column "c" is "inf"'),
    ],
)
def test_what_is_no_finite_number_is_named(array: Array, said: str) -> None:
    with pytest.raises(TableError, match=f"t.csv: {said}, expected a finite number that fits a float32"):
        numbers_of(array, PLACE)


def test_the_largest_float32_is_a_number() -> None:
    largest = float(np.finfo(np.float32).max)
    assert numbers_of(pa.array([largest, -largest]), PLACE).tolist() == [largest, -largest]


@pytest.mark.parametrize("array", [pa.array([True]), pa.array([datetime(2026, 1, 1, tzinfo=UTC)])])
def test_types_that_are_no_numbers_are_named(array: Array) -> None:
    with pytest.raises(TableError, match='column "c" has the type .*, expected a finite number'):
        numbers_of(array, PLACE)


@pytest.mark.parametrize(
    "array",
    [
        pa.array([True, None, False]),
        pa.array([1, None, 0]),
        pa.array([1.0, np.nan, 0]),
        pa.array(["True", "-", "FALSE "]),
    ],
)
def test_booleans(array: Array) -> None:
    values, null = booleans_of(array, PLACE)
    assert values.tolist() == [True, False, False]
    assert null.tolist() == [False, True, False]


@pytest.mark.parametrize("array", [pa.array([1, 2]), pa.array(["true", "yes"])])
def test_what_is_no_boolean_is_named(array: Array) -> None:
    with pytest.raises(TableError, match="row 101, .*, expected true or false"):
        booleans_of(array, PLACE)


@pytest.mark.parametrize(
    ("array", "texts"),
    [
        (pa.array(["a", None, "NA"]), ["a", None, "NA"]),
        (pa.array([1, None]), ["1", None]),
        (pa.array([1.0, np.nan, -2]), ["1", None, "-2"]),
        (pa.array([True, None]), ["true", None]),
    ],
)
def test_texts(array: Array, texts: list[str | None]) -> None:
    assert text_of(array, PLACE).to_pylist() == texts


def test_numbers_that_are_not_whole_are_no_categories() -> None:
    with pytest.raises(TableError, match='row 101, column "c" is 0.5, expected a category'):
        text_of(pa.array([1.0, 0.5]), PLACE)
    with pytest.raises(TableError, match="has the type timestamp.*, expected a category"):
        text_of(pa.array([datetime(2026, 1, 1, tzinfo=UTC)]), PLACE)


MICROSECOND = timedelta(microseconds=1)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31",
        "1850-06-30 12:30",
        "0001-01-01",
        "9999-12-31T23:59:59.999999",
        "2026-01-31T12:30:00Z",
        "2026-01-31T12:30:00.25+02:00",
        "1969-12-31 23:59:59.5-05:30",
        "2026-01-31T12:30:00.123456",
    ],
)
@pytest.mark.parametrize("beside", [[], ["2026-01-01"], ["2026-01-01T00:00Z", None]])
def test_moments_in_text(text: str, beside: list[str | None]) -> None:
    """Python's own reader is the second opinion."""
    moment = datetime.fromisoformat(text)
    expected = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    values, null = moments_of(pa.array([text, *beside]), PLACE)
    assert values[0] == expected // MICROSECOND
    assert null.tolist() == [False, *(cell is None for cell in beside)]


def test_digits_behind_microseconds_are_cut_off() -> None:
    (value,), _ = moments_of(pa.array(["1970-01-01T00:00:00.123456789Z"]), PLACE)
    assert value == 123_456


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Zurich"])
def test_moments_of_any_unit(unit: str, zone: str | None) -> None:
    values, null = moments_of(pa.array([-3, None, 86_400], pa.timestamp(unit, zone)), PLACE)
    each = {"s": 10**6, "ms": 10**3, "us": 1, "ns": 1e-3}[unit]
    assert values.tolist() == [int(-3 * each // 1), 0, int(86_400 * each // 1)]
    assert null.tolist() == [False, True, False]


def test_nulls_are_no_moments() -> None:
    values, null = moments_of(pa.nulls(2), PLACE)
    assert (values.tolist(), null.tolist()) == ([0, 0], [True, True])


@pytest.mark.parametrize(
    "array",
    [
        pa.array(["2026-01-01", "2026-02-30"]),
        pa.array(["2026-01-01", "01/02/2026"]),
        pa.array([0, 10**15], pa.timestamp("s")),
        pa.array([0, -(10**18)], pa.timestamp("us", "UTC")),
    ],
)
def test_what_is_no_moment_is_named(array: Array) -> None:
    with pytest.raises(TableError, match='row 101, column "c" is .*, expected a date and time such as'):
        moments_of(array, PLACE)


@pytest.mark.parametrize("array", [pa.array([1]), pa.array([1.5]), pa.array([True])])
def test_numbers_are_no_moments(array: Array) -> None:
    with pytest.raises(TableError, match='column "c" has the type .*, expected a date and time'):
        moments_of(array, PLACE)


@pytest.mark.parametrize("bad", [0, 1, 6, 7])
@pytest.mark.parametrize(("convert", "good", "wrong"), [(numbers_of, "1", "x"), (moments_of, "2026-01-01", "x")])
def test_the_first_bad_cell_is_found(convert: Callable[..., Any], good: str, wrong: str, bad: int) -> None:
    cells = [good] * 8
    cells[bad] = wrong
    cells[7] = wrong
    with pytest.raises(TableError, match=f"row {100 + bad}, "):
        convert(pa.array(cells), PLACE)
