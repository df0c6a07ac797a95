"""Rows of float32, beside an encoder that takes one value at a time."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.training.tables.conftest import in_memory, save
from training.tables.base import ArrowTable
from training.tables.encoding import Encoder, columns_of, fit_encoder, width_of
from training.tables.errors import TableError
from training.tables.inference import Overrides, infer_schema
from training.tables.reading import open_table
from training.tables.schema import Boolean, Label, Numeric, Schema

N = 300


def mixed(seed: int = 0, rows: int = N) -> pa.Table:
    """Makes a table of all kinds, with nulls in about half of the columns."""
    generator = np.random.default_rng(seed)

    def gaps() -> Any:  # noqa: ANN401
        return generator.random(rows) < (0.2 if generator.random() < 0.5 else 0)

    first = np.datetime64("1969-06-01", "us")
    seconds = generator.integers(0, 900 * 86_400, rows).astype("timedelta64[s]")
    return pa.table(
        {
            "f8": pa.array(generator.lognormal(size=rows) * 10.0 ** generator.integers(-20, 20, rows), mask=gaps()),
            "f4": pa.array(generator.normal(size=rows).astype(np.float32), mask=gaps()),
            "i8": pa.array(generator.integers(-(2**62), 2**62, rows), mask=gaps()),
            "u1": pa.array(generator.integers(0, 9, rows).astype(np.uint8), mask=gaps()),
            "flag": pa.array(generator.random(rows) < 0.4, mask=gaps()),
            "city": pa.array(generator.choice(["Bern", "Zürich", "", "<other>"], rows), mask=gaps()),
            "many": pa.array([f"m{int(i)}" for i in generator.exponential(10, rows)], mask=gaps()),
            "when": pa.array(first + seconds, pa.timestamp("us"), mask=gaps()),
            "y": pa.array(generator.random(rows) < 0.1),
        }
    )


def one_value(feature: Mapping[str, Any], value: Any) -> list[float]:  # noqa: ANN401
    """Encodes a value by the contract, word for word."""
    kind, missing = feature["kind"], feature.get("missing")
    null = value is None or value != value
    if kind == "numeric":
        indicator = [float(null)] if missing and missing["indicator"] else []
        return [missing["fill"] if null else float(value), *indicator]  # type: ignore[index]
    if kind == "boolean":
        return [0.0 if null else float(value)] + ([float(null)] if missing else [])
    if kind == "categorical":
        known = [float(not null and value == category) for category in feature["categories"]]
        other = [float(not null and value not in feature["categories"])] if feature["other"] else []
        return known + other + ([float(null)] if missing else [])
    row: list[float] = []
    for part in feature["parts"]:
        if null:
            row += [0.0, 0.0]
            continue
        passed = value - value.replace(hour=0, minute=0, second=0, microsecond=0)
        if part == "day_of_week":
            passed += timedelta(days=value.weekday())
        elif part == "day_of_year":
            passed += timedelta(days=value.timetuple().tm_yday - 1)
        share = passed / timedelta(days={"time_of_day": 1, "day_of_week": 7, "day_of_year": 366}[part])
        row += [math.sin(2 * math.pi * share), math.cos(2 * math.pi * share)]
    return row + ([float(null)] if missing else [])


@pytest.mark.parametrize("seed", range(10))
def test_rows_are_those_of_the_contract(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.tables.base.BATCH_CELLS", 9 * 77)
    data = mixed(seed)
    table = ArrowTable(data)
    encoder = fit_encoder(infer_schema(table, Overrides(label="y")), table)
    parts = list(encoder.batches(table))
    assert len(parts) > 1
    x = np.concatenate([x for x, _ in parts])
    expected = [
        [value for feature in encoder.features for value in one_value(feature, row[feature["name"]])]
        for row in data.to_pylist()
    ]
    assert x.dtype == np.float32
    assert x.flags.c_contiguous
    assert np.array_equal(x, np.array(expected, dtype=np.float32))
    assert x.shape == (N, len(encoder.columns))
    assert np.concatenate([y for _, y in parts if y is not None]).tolist() == data["y"].to_pylist()


def test_features_are_those_of_the_contract() -> None:
    table = in_memory(
        a=[1.5, None, 2.5, 9.0] * 3,
        b=[7, 8, 9, 9] * 3,
        flag=[True, None, False, False] * 3,
        city=["x", "y", "x", None] * 3,
        plain=["u", "u", "v", "v"] * 3,
        on=[True, False, False, False] * 3,
        when=pa.array(np.datetime64("2024-01-01T01", "us") + np.arange(12) * np.timedelta64(100, "D")),
    )
    encoder = fit_encoder(infer_schema(table), table)
    assert encoder.features == [
        {"kind": "numeric", "name": "a", "minimum": 1.5, "maximum": 9.0, "missing": {"fill": 2.5, "indicator": True}},
        {"kind": "numeric", "name": "b", "minimum": 7.0, "maximum": 9.0},
        {"kind": "boolean", "name": "flag", "missing": True},
        {"kind": "categorical", "name": "city", "categories": ["x", "y"], "other": True, "missing": True},
        {"kind": "categorical", "name": "plain", "categories": ["u", "v"], "other": True, "missing": False},
        {"kind": "boolean", "name": "on", "missing": False},
        {"kind": "timestamp", "name": "when", "parts": ["day_of_week", "day_of_year"], "missing": False},
    ]
    assert encoder.columns == [
        *("a", "a=<missing>", "b", "flag", "flag=<missing>"),
        *("city=x", "city=y", "city=<other>", "city=<missing>", "plain=u", "plain=v", "plain=<other>", "on"),
        *("when=sin(day_of_week)", "when=cos(day_of_week)", "when=sin(day_of_year)", "when=cos(day_of_year)"),
    ]
    assert [width_of(feature) for feature in encoder.features] == [len(columns_of(f)) for f in encoder.features]
    assert encoder.inputs == table.schema.names


def test_ranges_and_medians_are_those_of_the_chosen_rows() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=N)
    null = generator.random(N) < 0.2
    chosen = generator.random(N) < 0.5
    table = in_memory(a=pa.array(values, mask=null), b=values)
    first, second = fit_encoder(infer_schema(table), table, chosen).features
    kept = values[chosen & ~null].astype(np.float32)
    assert (first["minimum"], first["maximum"]) == (kept.min(), kept.max())
    assert first["missing"]["fill"] == np.float32(np.median(kept.astype(np.float64)))
    assert (second["minimum"], second["maximum"]) == (
        np.float32(values[chosen].min()),
        np.float32(values[chosen].max()),
    )


def test_an_indicator_is_there_if_the_table_has_nulls_even_where_it_isn_t_fitted() -> None:
    table = in_memory(a=[1.0, 2.0, None], b=[1.0, 2.0, 4.0])
    (first, second) = fit_encoder(infer_schema(table), table, np.array([True, True, False])).features
    assert first["missing"] == {"fill": 1.5, "indicator": True}
    assert "missing" not in second


@pytest.mark.parametrize("suffix", ["csv", "parquet", "feather"])
def test_the_format_makes_no_difference(suffix: str, tmp_path: Path) -> None:
    data = mixed().drop_columns(["city"])  # CSV can't tell an empty text from none
    found = []
    for table in (ArrowTable(data), open_table(save(data, tmp_path / f"t.{suffix}"))):
        encoder = fit_encoder(infer_schema(table, Overrides(label="y")), table)
        found.append((encoder.columns, np.concatenate([x for x, _ in encoder.batches(table)])))
    assert found[0][0] == found[1][0]
    assert np.array_equal(found[0][1], found[1][1])


def test_text_and_integers_as_they_are_asked_for() -> None:
    table = in_memory(
        number=["1", " 2.5 ", "?", "-4"],
        code=[3, 4, 3, None],
        when=["2026-01-01T06:00Z", "2026-01-01", None, "2026-01-01T12:00+12:00"],
    )
    encoder = fit_encoder(
        infer_schema(table, Overrides(numeric=["number"], categorical=["code"], timestamp=["when"])), table
    )
    (batch,) = table.batches()
    assert encoder.columns[-3:] == ["when=sin(time_of_day)", "when=cos(time_of_day)", "when=<missing>"]
    assert np.round(encoder.encode(batch), 6).tolist() == [
        [1, 0, 1, 0, 0, 0, 1, 0, 0],
        [2.5, 0, 0, 1, 0, 0, 0, 1, 0],
        [1, 1, 1, 0, 0, 0, 0, 0, 1],
        [-4, 0, 0, 0, 0, 1, 0, 1, 0],
    ]


def schema_with(column: Any) -> Schema:  # noqa: ANN401
    return Schema(source="s", rows=2, columns=(column,))


def test_booleans_out_of_numbers_and_text() -> None:
    column = Boolean(name="b", type="", nulls=1, distinct=2, true=1)
    for values in ([1, 0, None], [1.0, 0.0, np.nan], ["TRUE", "false", "NA"]):
        table = in_memory(b=values)
        (batch,) = table.batches()
        assert fit_encoder(schema_with(column), table).encode(batch).tolist() == [[1, 0], [0, 0], [0, 1]]


FEATURES: dict[str, dict[str, Any]] = {
    "numeric": {"kind": "numeric", "name": "c", "minimum": 0.0, "maximum": 1.0},
    "boolean": {"kind": "boolean", "name": "c"},
    "categorical": {"kind": "categorical", "name": "c", "categories": ["a", "b"]},
    "timestamp": {"kind": "timestamp", "name": "c", "parts": ["time_of_day"]},
}

NOON = datetime(1969, 7, 20, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("numeric", [1.0, None], "row 51, .* is null, expected a finite number .*, for the schema says that it has no"),
        ("numeric", [1.0, np.nan], "row 51, .* is NaN, expected a finite number .*, for the schema says"),
        ("numeric", [1.0, np.inf], "row 51, .* is Infinity, expected a finite number that fits a float32"),
        ("numeric", [1.0, -1e39], "row 51, .* is -1e\\+39, expected a finite number that fits a float32"),
        ("numeric", ["1", "x"], 'row 51, .* is "x", expected a finite number that fits a float32'),
        ("numeric", [True, False], "has the type bool, expected a finite number"),
        (
            "boolean",
            [True, None],
            "row 51, .* is null, expected true or false, for the schema says that it has no nulls",
        ),
        ("boolean", [1, 2], "row 51, .* is 2, expected true or false"),
        (
            "categorical",
            ["a", None],
            "row 51, .* is null, expected a category, for the schema says that it has no nulls",
        ),
        ("categorical", [1.0, 0.5], "row 51, .* is 0.5, expected a category"),
        ("timestamp", [NOON, None], "row 51, .* is null, expected a date and time .*, for the schema says"),
        ("timestamp", ["1969-07-20", "x"], 'row 51, .* is "x", expected a date and time'),
        ("timestamp", [1, 2], "has the type int64, expected a date and time"),
    ],
)
def test_values_that_can_t_be_used_are_named(kind: str, values: list[Any], said: str) -> None:
    encoder = Encoder("t.csv", [FEATURES[kind]])
    batch = pa.RecordBatch.from_pydict({"c": values})
    if kind == "numeric" and "NaN" in said:
        batch = pa.RecordBatch.from_pydict({"c": pa.array(values, from_pandas=False)})
    with pytest.raises(TableError, match=f"t.csv: .*{said}"):
        encoder.encode(batch, first_row=50)


def test_rows_are_counted_over_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.tables.base.BATCH_CELLS", 10)
    table = in_memory(c=[1.0] * 55 + [np.inf])
    with pytest.raises(TableError, match='table: row 55, column "c" is Infinity'):
        list(Encoder("table", [FEATURES["numeric"]]).batches(table))
    column = Numeric(name="c", type="", nulls=0, distinct=0, minimum=0, maximum=0, mean=0, std=0)
    with pytest.raises(TableError, match='table: row 55, column "c" is Infinity'):
        fit_encoder(schema_with(column), table)


def test_features_that_have_nowhere_to_put_new_categories_and_gaps() -> None:
    encoder = Encoder("t", [FEATURES["categorical"], {**FEATURES["numeric"], "name": "n", "missing": FILL}])
    batch = pa.RecordBatch.from_pydict({"n": [None, 2.0], "c": ["z", "b"]})
    assert encoder.encode(batch).tolist() == [[0, 0, 0.5], [0, 1, 2]]
    assert encoder.columns == ["c=a", "c=b", "n"]


FILL = {"fill": 0.5, "indicator": False}


def test_no_rows() -> None:
    batch = pa.RecordBatch.from_pydict({"c": pa.array([], pa.float64())})
    assert Encoder("t", [FEATURES["numeric"]]).encode(batch).shape == (0, 1)


def test_labels() -> None:
    label = Label(column="y", normal="0", anomaly="1", normal_rows=0, anomaly_rows=0)
    encoder = Encoder("t.csv", [], label)
    assert encoder.labels(pa.RecordBatch.from_pydict({"y": [0.0, 1.0]})).tolist() == [False, True]
    assert encoder.labels(pa.RecordBatch.from_pydict({"y": ["1", "0"]})).tolist() == [True, False]
    for values, said in (([0, 2], "2"), ([0, None], "null")):
        with pytest.raises(TableError, match=f't.csv: row 8, column "y" is {said}, expected "0" or "1"'):
            encoder.labels(pa.RecordBatch.from_pydict({"y": values}), first_row=7)
    with pytest.raises(TableError, match="t.csv: has no labels"):
        Encoder("t.csv", []).labels(pa.RecordBatch.from_pydict({"y": [0]}))


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        ({"a": [1.0, None, 2.0], "a=<missing>": [1.0, 2.0, 3.0]}, "a=<missing>"),
        ({"a": ["x", "y", "x"] * 2, "a=x": [1.0, 2.0, 3.0] * 2}, "a=x"),
        ({"a": ["b=x", "y", "y"] * 2, "a=b": ["x", "y", "y"] * 2}, "a=b=x"),
    ],
)
def test_columns_of_the_same_name_are_named(columns: dict[str, Any], name: str) -> None:
    table = in_memory(**columns)
    with pytest.raises(TableError, match=f'table: two columns or categories would both be called "{name}"'):
        fit_encoder(infer_schema(table), table)


def test_too_many_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.tables.encoding.MOST_COLUMNS", 3)
    table = in_memory(a=["x", "y", "z"] * 3, b=[1.0, 2.0, 3.0] * 3)
    with pytest.raises(
        TableError, match="table: its columns and their categories become 5 columns, expected at most 3"
    ):
        fit_encoder(infer_schema(table), table)


def test_a_column_without_values_in_the_chosen_rows() -> None:
    table = in_memory(a=[1.0, 2.0, None, None], b=[1.0, 2.0, 3.0, 4.0])
    with pytest.raises(TableError, match='table: column "a" has no value in the rows that are fitted on; drop it'):
        fit_encoder(infer_schema(table), table, np.array([False, False, True, True]))
    with pytest.raises(TableError, match="table: 3 rows are chosen from or not, expected 4"):
        fit_encoder(infer_schema(table), table, np.array([False, False, True]))


def test_progress_is_told() -> None:
    table = in_memory(a=[1.0, 2.0, 3.0])
    told: list[int] = []
    encoder = fit_encoder(infer_schema(table), table, observe=told.append)
    list(encoder.batches(table, observe=told.append))
    assert told == [3, 3]


def test_very_many_columns() -> None:
    x = np.random.default_rng(0).normal(size=(30, 10_000)).astype(np.float32)
    table = ArrowTable(pa.table({f"x{i}": column for i, column in enumerate(x.T)}))
    encoder = fit_encoder(infer_schema(table), table)
    assert np.array_equal(np.concatenate([rows for rows, _ in encoder.batches(table)]), x)
