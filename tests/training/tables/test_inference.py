"""What columns are, rule by rule."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.training.tables.conftest import Write, in_memory
from training.tables.base import BATCH_ROWS, ArrowTable
from training.tables.errors import TableError, UnknownColumn
from training.tables.inference import Overrides, infer_schema
from training.tables.reading import open_table
from training.tables.schema import Boolean, Categorical, Column, Dropped, Label, Numeric, Schema, Timestamp

GENERATOR = np.random.default_rng(0)
N = 1000
X = GENERATOR.normal(size=N)


def schema_of(values: Any, **overrides: Any) -> Schema:  # noqa: ANN401
    """Infers a table of a column c, and of one beside it that is always used."""
    array = values if isinstance(values, pa.Array) else pa.array(values)
    return infer_schema(in_memory(c=array, x=np.arange(len(array)) / 7), Overrides(**overrides))


def column_of(values: Any, **overrides: Any) -> Column:  # noqa: ANN401
    return schema_of(values, **overrides).columns[0]


def reason_of(values: Any, **overrides: Any) -> str:  # noqa: ANN401
    column = column_of(values, **overrides)
    assert isinstance(column, Dropped)
    return column.reason


def with_nulls(values: Any, share: float = 0.1) -> pa.Array:  # noqa: ANN401
    mask = np.random.default_rng(1).random(len(values)) < share
    return pa.array(values, mask=mask)


@pytest.mark.parametrize("type_", [pa.float64(), pa.float32()])
def test_numbers(type_: Any) -> None:  # noqa: ANN401
    values = pa.array(X, type_)
    column = column_of(values)
    x = values.to_numpy().astype(np.float64)
    assert isinstance(column, Numeric)
    assert (column.nulls, column.distinct, column.type) == (0, N, str(type_))
    assert (column.minimum, column.maximum) == (x.min(), x.max())
    assert column.mean == pytest.approx(x.mean())
    assert column.std == pytest.approx(x.std())


def test_nan_counts_as_null() -> None:
    column = column_of(pa.array([1.0, np.nan, 3.0, None, 3.0]))
    assert isinstance(column, Numeric)
    assert (column.nulls, column.distinct, column.minimum, column.maximum) == (2, 2, 1, 3)
    assert column.mean == pytest.approx(np.mean([1, 3, 3]))
    assert column.std == pytest.approx(np.std([1, 3, 3]))


def test_rows_are_counted_over_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    def kinds() -> Schema:
        columns = {
            "id": np.arange(N),
            "x": X,
            "t": [f"t{i % 60}" for i in range(N)],
            "b": X > 0,
            "d": np.datetime64("2024-01-01T00", "us") + np.arange(N) * np.timedelta64(11, "h"),
        }
        return infer_schema(in_memory(**columns))

    at_once = kinds()
    monkeypatch.setattr("training.tables.base.BATCH_CELLS", 5 * 7)
    in_batches = kinds()
    assert BATCH_ROWS > N
    for one, other in zip(at_once.columns, in_batches.columns, strict=True):
        if isinstance(one, Numeric) and isinstance(other, Numeric):
            assert one.mean == pytest.approx(other.mean)
            assert one.std == pytest.approx(other.std)
            assert (one.minimum, one.maximum, one.distinct) == (other.minimum, other.maximum, other.distinct)
        else:
            assert one == other


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.arange(N), "identifier: integers"),
        (np.arange(N, dtype=np.uint16)[::-1].copy(), "identifier: integers"),
        (5 * np.arange(N) + 10**12, "identifier: integers"),  # rises
        (np.random.default_rng(0).permutation(N) + 500, "identifier: integers"),  # fills its range
        (np.cumsum(np.random.default_rng(0).integers(1, 50, N)), "identifier: integers"),
        (with_nulls(np.arange(N)), "identifier: integers"),
        ([f"u{i * 7919:x}" for i in range(N)], "identifier: text"),
        (with_nulls([f"user-{i}" for i in range(N)]), "identifier: text"),
        ([f"user-{i if i > 20 else 0}" for i in range(N)], "identifier: text"),  # nearly all different
        ([f"some words {i}" for i in range(N)], "free text: hardly a value is repeated"),
        ([f"{i}" * 30 for i in range(N)], "free text: hardly a value is repeated"),
        ([f"t{i % 600}" for i in range(N)], "free text: hardly a value is repeated"),
        ([f"t{i % 200}" for i in range(N)], "free text: no value has 10 rows"),
        ([f"{i % 5}" * 300 for i in range(N)], "free text: every value is very long"),
        (["a", "b", "c"], "free text: hardly a value is repeated"),
        ([1.5] * N, "constant: 1.5"),
        ([7] * N, "constant: 7"),
        (1e9 + np.arange(N) % 2, "constant: 1e+09, as a float32"),
        ([True] * N, "constant: true"),
        ([False] * N, "constant: false"),
        (["a"] * N, 'constant: "a"'),
        ([datetime(2026, 1, 1, tzinfo=UTC)] * N, "constant: 2026-01-01T00:00:00Z"),
        ([None] * N, "all null"),
        ([np.nan] * N, "all null"),
        (pa.array([None] * N, pa.string()), "all null"),
        (pa.array([None] * N, pa.int64()), "all null"),
        (pa.array([None] * N, pa.bool_()), "all null"),
        (pa.array([None] * N, pa.timestamp("s")), "all null"),
    ],
)
def test_columns_that_are_dropped(values: Any, reason: str) -> None:  # noqa: ANN401
    assert reason_of(values).startswith(reason)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.arange(N) / 1, "numeric"),  # floats are never an identifier
        (np.arange(50), "numeric"),  # there are few
        (np.random.default_rng(0).integers(0, 10**9, N), "numeric"),  # all different, but neither rising nor dense
        (np.random.default_rng(0).integers(0, N, N), "numeric"),  # dense, but not all different
        (np.random.default_rng(0).poisson(3, N), "numeric"),
        ([0, 1] * N, "numeric"),
        (with_nulls([1.5] * N), "numeric"),  # constant, but for gaps
        (with_nulls([True] * N), "boolean"),
        (with_nulls(["a"] * N), "categorical"),
        (X > 0, "boolean"),
        (["a", "b"] * N, "categorical"),
    ],
)
def test_columns_that_are_used(values: Any, kind: str) -> None:  # noqa: ANN401
    assert column_of(values).kind == kind


def test_nulls_are_counted_in_dropped_columns_too() -> None:
    dropped = column_of(with_nulls(np.arange(N)))
    assert (dropped.nulls, dropped.distinct) == (with_nulls(np.arange(N)).null_count, N - dropped.nulls)


def test_numbers_as_text_are_told() -> None:
    hint = " (it reads like numbers: if it has some, ask for it as numeric)"
    assert reason_of([f"{x:.6f}" for x in X]) == f"identifier: text that is all different{hint}"
    assert reason_of([f"{x:.6f}" for x in X[:50]]) == f"free text: hardly a value is repeated{hint}"
    assert reason_of([f"{x:.6f}" for x in X[:200]] * 5) == f"free text: no value has 10 rows{hint}"


@pytest.mark.parametrize(
    ("texts", "hint"),
    [
        ([f"{x:,.2f}" for x in 1e5 * X], "numbers with separators or units"),
        ([f"$ {abs(x):.2f}" for x in 100 * X], "numbers with separators or units"),
        ([f"{x:.5f}".replace(".", ",") for x in X], "numbers with separators or units"),
        ([f"{x:.6f} kg" for x in abs(X)], "numbers with separators or units"),
        ([f"{1 + i % 28:02}.{1 + i % 12:02}.{1000 + i}" for i in range(N)], "dates: moments are read as ISO 8601"),
        ([f"{1 + i % 12}/{1 + i % 28}/{1000 + i} 12:30" for i in range(N)], "dates: moments are read as ISO 8601"),
    ],
)
def test_what_people_write_for_numbers_and_dates_is_told(texts: list[str], hint: str) -> None:
    assert f"it reads like {hint}" in reason_of(texts)
    (warning,) = schema_of(texts).warnings
    assert warning.startswith(f'table: column "c" is dropped, but it reads like {hint}')


@pytest.mark.parametrize("texts", [[f"A{i:06}" for i in range(N)], [f"{i:06x}-ab-{i}" for i in range(N)]])
def test_codes_are_not_taken_for_numbers(texts: list[str]) -> None:
    assert reason_of(texts) == "identifier: text that is all different"
    assert schema_of(texts).warnings == ()


def test_free_text_is_warned_of() -> None:
    (warning,) = schema_of([f"some words {i}" for i in range(N)]).warnings
    assert warning == 'table: column "c" is dropped as free text: 1000 of its 1000 values are different'
    (warning,) = schema_of([f"t{i % 200}" for i in range(N)]).warnings
    assert warning == 'table: column "c" is dropped as free text: none of its 200 values has 10 rows'


def test_few_categories_are_all_kept() -> None:
    texts = ["b"] * 5 + ["a"] * 5 + ["c"] * 9 + ["d"]
    column = column_of(pa.array([*texts, None]))
    assert isinstance(column, Categorical)
    assert (column.categories, column.counts) == (("c", "a", "b", "d"), (9, 5, 5, 1))
    assert (column.other, column.nulls, column.distinct) == (0, 1, 4)


def test_of_many_categories_the_frequent_are_kept() -> None:
    rows = {f"f{i:02}": 100 - i for i in range(45)} | {f"r{i}": 3 for i in range(100)}
    column = column_of([text for text, count in rows.items() for _ in range(count)])
    assert isinstance(column, Categorical)
    assert column.categories == tuple(f"f{i:02}" for i in range(45))
    assert (column.other, column.distinct) == (300, 145)


def test_more_than_fifty_need_half_a_percent() -> None:
    rows = {f"f{i:02}": 60 for i in range(70)} | {f"g{i:02}": 30 for i in range(70)} | {"h": 3500}
    values = sum(rows.values())
    column = column_of([text for text, count in rows.items() for _ in range(count)])
    assert isinstance(column, Categorical)
    assert 30 < 0.005 * values < 60
    assert set(column.categories) == {"h", *(f"f{i:02}" for i in range(70))}


def test_text_that_reads_like_a_column_of_its_own_is_among_the_rest() -> None:
    column = column_of(["<other>", "<missing>", "a", "b"] * 10)
    assert isinstance(column, Categorical)
    assert (column.categories, column.other) == (("a", "b"), 20)


def test_booleans() -> None:
    assert column_of(pa.array([True, None, True, False])) == Boolean(name="c", type="bool", nulls=1, distinct=2, true=2)


def moments(days: float, rows: int = N, first: str = "1962-03-01") -> pa.Array:
    step = int(days * 86_400 * 10**6 / rows)
    return pa.array(np.datetime64(first, "us") + np.arange(rows) * np.timedelta64(step, "us"))


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        (moments(900), ("time_of_day", "day_of_week", "day_of_year")),
        (moments(100), ("time_of_day", "day_of_week")),
        (moments(3), ("time_of_day",)),
        (moments(N, first="2024-01-01"), ("day_of_week", "day_of_year")),  # a day each
        (moments(7 * N), ("day_of_year",)),  # always the same weekday
        (with_nulls(moments(100)), ("time_of_day", "day_of_week")),
        (pa.array([*moments(3).to_pylist(), datetime(1900, 1, 1), datetime(2100, 1, 1)]), ("time_of_day",)),  # strange
        (moments(900).cast(pa.timestamp("s"), safe=False), ("time_of_day", "day_of_week", "day_of_year")),
        (moments(900).cast(pa.date32(), safe=False), ("day_of_week", "day_of_year")),
    ],
)
def test_parts_of_moments(values: Any, parts: tuple[str, ...]) -> None:  # noqa: ANN401
    column = column_of(values)
    assert isinstance(column, Timestamp)
    assert column.parts == parts


def test_moments_that_never_come_again() -> None:
    reason = "timestamps from 1962-03-01T00:00:00Z to 1962-03-01T11:59:16.800000Z: no part of day, week or year varies"
    assert reason_of(moments(0.5)).startswith(reason)
    column = column_of(moments(0.5), timestamp=["c"])
    assert isinstance(column, Timestamp)
    assert column.parts == ("time_of_day",)
    assert (column.minimum, column.maximum) == ("1962-03-01T00:00:00Z", "1962-03-01T11:59:16.800000Z")
    assert column.distinct == N


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            pa.array([0.5, np.inf, np.nan]),
            'row 1, column "c" is Infinity, expected a finite number that fits a float32',
        ),
        (pa.array([0.5, 1e39]), 'row 1, column "c" is 1e\\+39, expected a finite number that fits a float32'),
        (pa.array([[1], [2]]), 'column "c" has the type list<.*>, expected numbers'),
    ],
)
def test_values_that_can_t_be_used_are_named(values: Any, said: str) -> None:  # noqa: ANN401
    with pytest.raises(TableError, match=f"table: {said}"):
        schema_of(values)
    assert reason_of(values, drop=["c"]) == "asked for"


def test_infinite_values_in_later_batches_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.tables.base.BATCH_CELLS", 14)
    values = X.copy()
    values[777] = -np.inf
    with pytest.raises(TableError, match='row 777, column "c" is -Infinity'):
        schema_of(values)


def test_columns_are_what_they_are_asked_to_be() -> None:
    assert column_of(np.arange(N), numeric=["c"]).kind == "numeric"
    assert column_of([7] * N, numeric=["c"]).kind == "numeric"
    column = column_of(np.arange(N) % 3, categorical=["c"])
    assert isinstance(column, Categorical)
    assert (column.categories, column.counts) == (("0", "1", "2"), (334, 333, 333))
    column = column_of([f"u{i}" for i in range(N)], categorical=["c"])
    assert isinstance(column, Categorical)
    assert (len(column.categories), column.other) == (50, N - 50)
    assert column_of(["1", " 2.5", "?", "NA"], numeric=["c"]) == Numeric(
        name="c", type="string", nulls=2, distinct=2, minimum=1, maximum=2.5, mean=1.75, std=0.75
    )
    assert column_of(["2026-01-01", None, "2026-01-02"], timestamp=["c"]).kind == "timestamp"
    assert column_of([True, False], categorical=["c"]).kind == "boolean"
    assert column_of([True, True], numeric=["c"]).kind == "boolean"
    assert reason_of(X, drop=["c"]) == "asked for"
    assert reason_of([None, None], numeric=["c"]) == "all null"


@pytest.mark.parametrize(
    ("values", "overrides", "said"),
    [
        (["1", "x"], {"numeric": ["c"]}, 'row 1, column "c" is "x", expected a finite number'),
        (["2026-01-01", "x"], {"timestamp": ["c"]}, 'row 1, column "c" is "x", expected a date and time'),
        ([1, 2], {"timestamp": ["c"]}, 'column "c" has the type int64, expected a date and time'),
        ([True, False], {"timestamp": ["c"]}, 'column "c" has the type bool, expected a date and time'),
        ([1.5, 2.0], {"categorical": ["c"]}, 'row 0, column "c" is 1.5, expected a category'),
        (moments(3), {"numeric": ["c"]}, 'column "c" has the type timestamp.us., expected a finite number'),
        (moments(3), {"categorical": ["c"]}, 'column "c" has the type timestamp.us., expected a category'),
        ([1, 2], {"drop": ["c"], "numeric": ["c"]}, 'column "c" is asked for as drop and as numeric, expected one'),
        ([1, 2], {"label": "c", "drop": ["c"]}, 'column "c" is asked for as drop and as label, expected one'),
        ([1, 2], {"anomaly": "1"}, 'the anomaly is to be "1", but no column has labels'),
    ],
)
def test_what_can_t_be_is_named(values: Any, overrides: dict[str, Any], said: str) -> None:  # noqa: ANN401
    with pytest.raises(TableError, match=said):
        schema_of(values, **overrides)


@pytest.mark.parametrize("kind", ["drop", "categorical", "numeric", "timestamp", "label"])
def test_unknown_columns_are_named_with_those_that_are_close(kind: str) -> None:
    table = in_memory(amount=[1, 2], city=["x", "y"])
    name = "amuont"
    with pytest.raises(UnknownColumn) as raised:
        infer_schema(table, Overrides(**{kind: name if kind == "label" else [name]}))  # type: ignore[arg-type]
    assert str(raised.value) == (f'table: {kind} names column "amuont", which is not there; did you mean "amount"?')


@pytest.mark.parametrize(
    ("values", "anomaly", "chosen", "warned"),
    [
        ([0, 0, 1], None, "1", None),
        ([0.0, 0.0, 1.0], None, "1", None),
        ([1, 1, 0], None, "1", "most rows, 2, are anomalies"),
        ([True, False, False], None, "true", None),
        (["no", "yes", "no"], None, "yes", None),
        (["Normal", "ANOMALY", "Normal"], None, "ANOMALY", None),
        (["normal.", "attack.", "attack."], None, "attack.", "most rows, 2, are anomalies"),
        (["blue", "red", "blue"], None, "red", '"red" is rarer than "blue" and taken for the anomaly'),
        ([1, -1, 1], None, "-1", '"-1" is rarer than "1" and taken for the anomaly'),
        (["blue", "red", "blue"], "blue", "blue", "most rows, 2, are anomalies"),
        ([0, 0, 1], "0", "0", "most rows, 2, are anomalies"),
    ],
)
def test_labels(values: list[Any], anomaly: str | None, chosen: str, warned: str | None) -> None:
    schema = schema_of(values, label="c", anomaly=anomaly)
    texts = [str(v).lower() if isinstance(v, bool) else f"{v:.0f}" if isinstance(v, float) else str(v) for v in values]
    (normal,) = set(texts) - {chosen}
    assert schema.label == Label(
        column="c",
        normal=normal,
        anomaly=chosen,
        normal_rows=texts.count(normal),
        anomaly_rows=texts.count(chosen),
    )
    assert schema.columns[0] == Dropped(name="c", type=schema.columns[0].type, nulls=0, distinct=2, reason="label")
    assert schema.warnings == (() if warned is None else (f'table: label column "c": {warned}',))


@pytest.mark.parametrize(
    ("values", "anomaly", "said"),
    [
        ([0, 0, 0], None, 'has "0" (3 rows), expected two values, for normal and anomaly'),
        ([1, 1, 1], None, 'has "1" (3 rows), expected two values'),
        ([0, 1, 2, 2], None, 'has "2" (2 rows), "0" (1 rows), "1" (1 rows), expected two values'),
        (list(range(100)), None, '"9" (1 rows), ..., expected two values'),
        ([None, None], None, "has no values, expected two values"),
        ([0, 1, None], None, "has 1 nulls, expected a label for every row"),
        (["a", "b", "a", "b"], None, 'has "a", "b" equally often; say which is the anomaly\'s'),
        (["a", "b"], "c", 'has the values "a", "b", and the anomaly is to be "c"'),
    ],
)
def test_labels_that_can_t_be_used(values: list[Any], anomaly: str | None, said: str) -> None:
    with pytest.raises(TableError) as raised:
        schema_of(pa.array(values, pa.int64() if values[-1] is None else None), label="c", anomaly=anomaly)
    text = str(raised.value)
    assert text.startswith('table: label column "c" has ')
    assert said in text or "(1 rows), ..." in said


def test_labels_of_a_file_of_arrays(tmp_path: Any) -> None:  # noqa: ANN401
    x = np.column_stack([X, X**2])
    np.savez(tmp_path / "t.npz", X=x, y=X > 1)
    table = open_table(tmp_path / "t.npz")
    schema = infer_schema(table)
    assert schema.label is not None
    assert (schema.label.column, schema.label.anomaly) == ("y", "true")
    assert infer_schema(table, Overrides(drop=["y"])).label is None
    assert infer_schema(table, Overrides(numeric=["y"])).label is None


def test_a_table_without_any_column_to_use() -> None:
    table = in_memory(a=[1, 1], b=[None, None], c=[1, 2])
    with pytest.raises(TableError) as raised:
        infer_schema(table, Overrides(drop=["c"]))
    assert str(raised.value) == ('table: no column is left to fit on ("a": constant: 1; "b": all null; "c": asked for)')


def test_warnings_of_the_file_are_kept(write: Write) -> None:
    table = open_table(write("t.csv", "a,b\n" + "1,2\n2,3\nx,4\n" * 20))
    assert infer_schema(table).warnings == table.warnings
    assert len(table.warnings) == 1


def test_progress_is_told() -> None:
    told: list[int] = []
    infer_schema(in_memory(x=X), observe=told.append)
    assert told == [N]


def test_very_many_columns() -> None:
    x = np.random.default_rng(0).normal(size=(20, 10_000))
    table = ArrowTable(pa.table({f"x{i}": column for i, column in enumerate(x.T)}))
    schema = infer_schema(table)
    assert [column.kind for column in schema.columns] == ["numeric"] * 10_000
    assert len(schema.used) == 10_000


def test_time_zones_don_t_matter() -> None:
    values = moments(900)
    shifted = [value.replace(tzinfo=UTC) + timedelta(0) for value in values.to_pylist()]
    one = column_of(values)
    other = column_of(pa.array(shifted, pa.timestamp("us", "Asia/Tokyo")))
    assert isinstance(one, Timestamp)
    assert isinstance(other, Timestamp)
    assert (one.minimum, one.maximum, one.parts) == (other.minimum, other.maximum, other.parts)
