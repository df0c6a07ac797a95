"""A schema is printed as a table and as lines."""

import io

from rich.console import Console

from training.tables.schema import Boolean, Categorical, Dropped, Label, Numeric, Schema, Timestamp, show

SCHEMA = Schema(
    source="t.csv",
    rows=100,
    columns=(
        Dropped(name="id", type="int64", nulls=0, distinct=100, reason="identifier: integers"),
        Numeric(name="a[red]", type="double", nulls=3, distinct=90, minimum=-1.5, maximum=1e6, mean=2, std=0.25),
        Boolean(name="b", type="bool", nulls=0, distinct=2, true=40),
        Categorical(
            name="c",
            type="string",
            nulls=0,
            distinct=70,
            categories=("v", "w", "x", "y", "z"),
            counts=(30, 20, 10, 5, 1),
            other=34,
        ),
        Timestamp(
            name="t", type="timestamp[us]", nulls=0, distinct=9, minimum="M", maximum="N", parts=("day_of_week",)
        ),
        Dropped(name="y", type="string", nulls=0, distinct=2, reason="label"),
    ),
    label=Label(column="y", normal="no", anomaly="yes", normal_rows=90, anomaly_rows=10),
    warnings=("t.csv: something is strange",),
)


def printed(schema: Schema) -> str:
    out = io.StringIO()
    show(schema, Console(file=out, width=160))
    return out.getvalue()


def test_columns_lines_and_warnings_are_printed() -> None:
    text = printed(SCHEMA)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    assert rows == [
        ["id", "dropped", "int64", "0", "100", "identifier: integers"],
        ["a[red]", "numeric", "double", "3", "90", "-1.5 to 1e+06, mean 2, std 0.25"],
        ["b", "boolean", "bool", "0", "2", "true in 40 rows"],
        ["c", "categorical", "string", "0", "70", "v (30), w (20), x (10), y (5), 1 more, <other> (34)"],
        ["t", "timestamp", "timestamp[us]", "0", "9", "M to N: day_of_week"],
        ["y", "dropped", "string", "0", "2", "label"],
    ]
    assert "t.csv: 100 rows" in text
    assert text.splitlines()[-4:] == [
        'dropped "id": identifier: integers',
        'dropped "y": label',
        'label "y": "yes" is the anomaly (10 rows), "no" is normal (90 rows)',
        "warning: t.csv: something is strange",
    ]


def test_very_many_columns_are_not_all_printed() -> None:
    columns = tuple(Dropped(name=f"c{i}", type="null", nulls=9, distinct=0, reason="all null") for i in range(10_000))
    text = printed(Schema(source="t", rows=9, columns=columns))
    assert "and 9900 more columns" in text
    assert text.splitlines()[-1] == "dropped 9900 more columns"
    assert len(text.splitlines()) < 220


def test_used_and_ignored_columns() -> None:
    assert [column.name for column in SCHEMA.used] == ["a[red]", "b", "c", "t"]
    assert SCHEMA.ignored == ["id", "y"]


def test_columns_become_so_many_at_most() -> None:
    assert {column.name: column.width for column in SCHEMA.used} == {"a[red]": 2, "b": 2, "c": 7, "t": 3}
