"""A schema is written, edited and read back, or an error names line, field and value."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.training.tables.conftest import in_memory
from training.tables.base import ArrowTable
from training.tables.errors import TableError
from training.tables.inference import Overrides, infer_schema
from training.tables.schema import Boolean, Categorical, Dropped, Numeric, Schema, Timestamp
from training.tables.schema_file import check_schema, read_schema, to_toml, write_schema

N = 400

HOSTILE = (
    'a"b',
    "c\\d",
    "e\nf",
    "\t\r\x00\x07\x1b\x7f",
    "[[columns]]",
    "# no comment",
    "'''",
    "ü 日本 🙂",
    "\u2028",
    " ",
)


@pytest.fixture
def table() -> ArrowTable:
    generator = np.random.default_rng(0)
    return in_memory(
        id=range(N),
        amount=pa.array(generator.lognormal(size=N), mask=generator.random(N) < 0.1),
        count=generator.poisson(3, N),
        city=generator.choice(["Bern", "Basel"], N),
        flag=generator.random(N) < 0.5,
        when=np.datetime64("2023-01-01T00", "us") + np.arange(N) * np.timedelta64(50, "h"),
        fraud=np.arange(N) % 40 == 0,
    )


@pytest.fixture
def schema(table: ArrowTable) -> Schema:
    return infer_schema(table, Overrides(label="fraud"))


def read_text(text: str, tmp_path: Path) -> Schema:
    (tmp_path / "schema.toml").write_text(text)
    return read_schema(tmp_path / "schema.toml")


def test_what_is_read_is_what_was_written(schema: Schema, table: ArrowTable, tmp_path: Path) -> None:
    write_schema(schema, tmp_path / "schema.toml")
    again = read_schema(tmp_path / "schema.toml")
    assert again == schema
    assert to_toml(again) == to_toml(schema)
    assert {column.kind for column in again.columns} == {"numeric", "boolean", "categorical", "timestamp", "dropped"}
    check_schema(again, table)


def test_any_text_can_be_a_name_or_a_category(tmp_path: Path) -> None:
    columns = {name: [i / 7 for i in range(20)] for name in HOSTILE if name.strip()}
    schema = infer_schema(in_memory(**columns, c=list(HOSTILE) * 2, y=["0", "1"] * 10), Overrides(label="y"))
    write_schema(replace(schema, source='a"\n'), tmp_path / "schema.toml")
    again = read_schema(tmp_path / "schema.toml")
    assert again == replace(schema, source='a"\n')
    assert isinstance(again.columns[-2], Categorical)
    assert set(again.columns[-2].categories) == set(HOSTILE)


def test_any_number_comes_back(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    values = (generator.normal(size=(50, 4)) * 10.0 ** generator.integers(-300, 38, size=(50, 4))).tolist()
    columns = tuple(
        Numeric(name=f"c{i}", type="double", nulls=i, distinct=9, minimum=a, maximum=b, mean=c, std=d)
        for i, (a, b, c, d) in enumerate(values)
    )
    schema = Schema(source="t", rows=3, columns=columns)
    write_schema(schema, tmp_path / "schema.toml")
    assert read_schema(tmp_path / "schema.toml") == schema


SMALL = """\
format_version = 1
table = "t.csv"
rows = 10

[label]
column = "y"
normal = "0"
anomaly = "1"

[[columns]]
name = "a"
kind = "numeric"

[[columns]]
name = "c"
kind = "categorical"
categories = ["x", "z"]
nulls = 2

[[columns]]
name = "t"
kind = "timestamp"
parts = ["time_of_day", "day_of_year"]

[[columns]]
name = "b"
kind = "boolean"

[[columns]]
name = "y"
kind = "dropped"
"""


def test_what_only_describes_may_be_left_away(tmp_path: Path) -> None:
    schema = read_text(SMALL, tmp_path)
    numeric, categorical, timestamp, boolean, dropped = schema.columns
    assert numeric == Numeric(name="a", type="", nulls=0, distinct=0, minimum=0, maximum=0, mean=0, std=0)
    assert categorical == Categorical(
        name="c", type="", nulls=2, distinct=0, categories=("x", "z"), counts=(0, 0), other=0
    )
    assert timestamp == Timestamp(
        name="t", type="", nulls=0, distinct=0, minimum="", maximum="", parts=("time_of_day", "day_of_year")
    )
    assert boolean == Boolean(name="b", type="", nulls=0, distinct=0, true=0)
    assert dropped == Dropped(name="y", type="", nulls=0, distinct=0, reason="asked for")
    assert schema.ignored == ["y"]


def test_a_kind_may_be_edited_without_taking_other_fields_away(schema: Schema, tmp_path: Path) -> None:
    text = to_toml(schema).replace('kind = "categorical"', 'kind = "dropped"')
    text = text.replace('kind = "dropped"\ntype = "int64"', 'kind = "numeric"\ntype = "int64"')
    again = read_text(text, tmp_path)
    assert [column.kind for column in again.columns if column.name in ("city", "id")] == ["numeric", "dropped"]


def test_the_range_of_a_former_kind_is_left_behind(tmp_path: Path) -> None:
    text = """
        format_version = 1
        table = "t.csv"
        rows = 1
        [[columns]]
        name = "t"
        kind = "timestamp"
        minimum = 20230101.0
        maximum = 20230329.0
        parts = ["day_of_week"]
        [[columns]]
        name = "x"
        kind = "numeric"
        minimum = "2023-01-01T00:00:00Z"
        maximum = "2023-03-29T00:00:00Z"
    """
    moment, number = read_text(text, tmp_path).columns
    assert isinstance(moment, Timestamp)
    assert isinstance(number, Numeric)
    assert (moment.minimum, moment.maximum, number.minimum, number.maximum) == ("", "", 0, 0)


def without(line: str) -> Callable[[str], str]:
    return lambda text: text.replace(f"{line}\n", "")


def instead(line: str, other: str) -> Callable[[str], str]:
    return lambda text: text.replace(f"{line}\n", f"{other}\n", 1)


EDITS = [
    (instead("format_version = 1", "format_version = 2"), "line 1: format_version is 2, expected 1"),
    (instead("format_version = 1", 'format_version = "1"'), 'line 1: format_version is "1", expected an integer'),
    (without("format_version = 1"), "line 1: format_version is missing"),
    (instead("rows = 10", "rows = -1"), "line 3: rows is -1, expected an integer of at least 0"),
    (instead("rows = 10", "rows = true"), "line 3: rows is true, expected an integer of at least 0"),
    (instead("rows = 10", "rows = 10\nrow = 1"), "line 4: row is 1, expected one of the fields format_version, table"),
    (without('normal = "0"'), "line 5: normal is missing in [label]"),
    (instead('anomaly = "1"', "anomaly = 1"), "line 8: anomaly is 1 in [label], expected text"),
    (instead('anomaly = "1"', 'anomaly = "0"'), 'line 8: anomaly is "0" in [label], expected another value than that'),
    (
        instead('column = "y"', 'column = "a"'),
        'line 6: column is "a" in [label], expected a column below whose kind is',
    ),
    (instead('column = "y"', 'column = "y"\nx = 1'), "line 7: x is 1 in [label], expected one of the fields column"),
    (instead('name = "a"', 'name = ""'), 'line 11: name is "" in columns[0], expected text of at least one character'),
    (instead('name = "b"', 'name = "a"'), 'line 26: name is "a" in columns[3], expected a different one for each'),
    (without('name = "b"'), "line 25: name is missing in columns[3]"),
    (without('kind = "boolean"'), "line 25: kind is missing in columns[3]"),
    (
        instead('kind = "boolean"', 'kind = "bool"'),
        'line 27: kind is "bool" in columns[3], expected one of numeric, boolean, categorical, timestamp, dropped',
    ),
    (instead('kind = "boolean"', "kind = 7"), "line 27: kind is 7 in columns[3], expected one of numeric"),
    (instead('kind = "boolean"', 'kind = "categorical"'), "line 25: categories is missing in columns[3]"),
    (instead('kind = "boolean"', 'kind = "timestamp"'), "line 25: parts is missing in columns[3]"),
    (
        instead('kind = "boolean"', 'kind = "boolean"\ntrue = 0.5'),
        "line 28: true is 0.5 in columns[3], expected an int",
    ),
    (
        instead('kind = "boolean"', 'kind = "boolean"\nnull = 1'),
        "line 28: null is 1 in columns[3], expected one of the",
    ),
    (
        instead('kind = "numeric"', 'kind = "numeric"\nmean = "x"'),
        'line 13: mean is "x" in columns[0], expected a number',
    ),
    (
        instead('categories = ["x", "z"]', "categories = []"),
        'line 17: categories is "[]" in columns[1], expected a list',
    ),
    (instead('categories = ["x", "z"]', 'categories = ["x", "x"]'), "line 17: categories is "),
    (instead('categories = ["x", "z"]', 'categories = ["x", 1]'), "line 17: categories is "),
    (instead('categories = ["x", "z"]', 'categories = ["x", "<other>"]'), "line 17: categories is "),
    (
        instead('categories = ["x", "z"]', 'categories = "x"'),
        'line 17: categories is "x" in columns[1], expected a list',
    ),
    (instead("nulls = 2", "nulls = 2\ncounts = [1]"), 'line 19: counts is "[1]" in columns[1], expected 2 numbers as'),
    (instead("nulls = 2", "nulls = 2\ncounts = [1, -1]"), "line 19: counts is "),
    (instead('parts = ["time_of_day", "day_of_year"]', "parts = []"), 'line 23: parts is "[]" in columns[2], expected'),
    (
        instead('parts = ["time_of_day", "day_of_year"]', 'parts = ["day_of_year", "time_of_day"]'),
        "line 23: parts is ",
    ),
    (instead('parts = ["time_of_day", "day_of_year"]', 'parts = ["hour"]'), "line 23: parts is "),
    (instead('kind = "boolean"', "kind = "), "is no TOML: Invalid value (at line 27"),
    (lambda text: text[: text.index("[label]")], "has no [[columns]]"),
    (lambda text: text[: text.index("[label]")] + "columns = 1\n", "has no [[columns]]"),
    (lambda text: text[: text.index("[label]")] + "columns = [{}, 1]\n", "kind is missing in columns[0]"),
    (lambda text: text.replace("[label]", "[labels]"), "line 1: labels is "),
    (
        lambda text: "label = 3\n" + text[: text.index("[label]")] + text[text.index("[[columns]]") :],
        "line 1: label is 3, expected a table [label]",
    ),
]


@pytest.mark.parametrize(("edit", "said"), EDITS)
def test_what_is_wrong_is_named(edit: Callable[[str], str], said: str, tmp_path: Path) -> None:
    with pytest.raises(TableError) as raised:
        read_text(edit(SMALL), tmp_path)
    text = str(raised.value)
    assert text.startswith(f"{tmp_path}/schema.toml")
    assert said in text


def test_all_columns_dropped(tmp_path: Path) -> None:
    text = 'format_version = 1\ntable = "t"\nrows = 2\n[[columns]]\nname = "a"\nkind = "dropped"\n'
    with pytest.raises(TableError, match="schema.toml: all columns are dropped, expected one to fit on"):
        read_text(text, tmp_path)


def test_files_that_can_t_be_read_or_written(schema: Schema, tmp_path: Path) -> None:
    with pytest.raises(TableError, match="none.toml: can't be read .No such file"):
        read_schema(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"a = '\xe9'\n")
    with pytest.raises(TableError, match="latin.toml: is not UTF-8 at offset 5"):
        read_schema(tmp_path / "latin.toml")
    with pytest.raises(TableError, match="none/schema.toml: can't be written .No such file"):
        write_schema(schema, tmp_path / "none" / "schema.toml")


def test_a_schema_has_to_fit_the_table(schema: Schema, table: ArrowTable) -> None:
    check_schema(schema, in_memory(**{n: [1, 2] for n in table.schema.names if n != "id"}))  # a dropped one may be gone
    for gone, name in (("amount", "amount"), ("fraud", "fraud")):
        with pytest.raises(TableError, match=f'table: the schema names column "{name}", which is not there'):
            check_schema(schema, in_memory(**{n: [1, 2] for n in table.schema.names if n != gone}))
    with pytest.raises(TableError, match='table: the schema doesn\'t say what "new" is'):
        check_schema(schema, in_memory(**{n: [1, 2] for n in [*table.schema.names, "new"]}))
