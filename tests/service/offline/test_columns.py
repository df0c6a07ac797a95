"""The columns that feed a model are found by name, or the table is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.offline.columns import layout_of
from service.offline.errors import OfflineError
from tests.service.offline.conftest import Score
from tests.service.offline.tables import FEATURES, Table, Type, detector, examples, one_hot, raw, thyroid, write


def without(table: Table, column: str) -> Table:
    return table.drop_columns([column])


def test_a_missing_column_is_named(score: Score, tmp_path: Path) -> None:
    source = write(without(thyroid(), "T4U"), tmp_path / "table.parquet")
    have = "patient, age, TSH, T3, visit, FTI, TT4, ward"
    assert score(source).error == f'{source}: column "T4U" is missing, the table has {have}'


def test_a_column_that_is_there_twice_is_refused(score: Score, tmp_path: Path) -> None:
    table = thyroid().append_column("TSH", pa.array([0.5] * 100))
    source = write(table, tmp_path / "table.arrow")
    assert score(source).error == f'{source}: column "TSH" is there 2 times, expected once'


@pytest.mark.parametrize("value", ["0.5", [0.5], b"0.5"])
def test_a_column_of_another_type_is_refused(value: object, score: Score, tmp_path: Path) -> None:
    table = without(thyroid(), "TSH").append_column("TSH", pa.array([value] * 100))
    source = write(table, tmp_path / "table.parquet")
    type_ = table.schema.field("TSH").type
    assert score(source).error.startswith(f'{source}: column "TSH" has values of type {type_}'.partition("<")[0])
    assert score(source).error.endswith(", expected floating point numbers, integers, decimals or booleans")


@pytest.mark.parametrize("values", [[0.0, 1.0], [[0], [1]]])
def test_categories_of_another_type_are_refused(values: list[Any], score: Score, tmp_path: Path) -> None:
    table = without(raw(examples("kddcup99")[:2], "kddcup99"), "land").append_column("land", pa.array(values))
    source = write(table, tmp_path / "table.parquet")
    error = score(source, dataset="kddcup99").error
    assert error.startswith(f'{source}: column "land" has values of type ')
    assert error.endswith(", expected text, integers or booleans")


@pytest.mark.parametrize(
    "type_",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.int64(),
        pa.uint8(),
        pa.bool_(),
        pa.dictionary("int8", "str"),
    ],
)
def test_categories_of_every_type_are_taken(type_: Type, score: Score, tmp_path: Path) -> None:
    rows = np.repeat(examples("kddcup99")[:1], 4, axis=0)
    land = [detector("kddcup99").columns.index(f"land={value}") for value in "01"]
    rows[:, land] = [[1, 0], [0, 1], [0, 1], [1, 0]]
    values = pa.array([0, 1, 1, 0])
    values = values.cast(type_) if not pa.types.is_dictionary(type_) else values.cast(pa.string()).dictionary_encode()
    table = without(raw(rows, "kddcup99"), "land").append_column("land", values)
    summary = score(write(table, tmp_path / "table.arrow"), dataset="kddcup99").summary
    found = pq.read_table(tmp_path / "out" / "table.parquet")["score"].to_numpy()
    np.testing.assert_array_equal(found, detector("kddcup99").score(rows).scores)
    assert summary["unseen_categories"] == 0


def test_categories_in_both_ways_are_refused(score: Score, tmp_path: Path) -> None:
    rows = examples("kddcup99")
    table = one_hot(rows, "kddcup99").append_column("flag", raw(rows, "kddcup99")["flag"])
    source = write(table, tmp_path / "table.parquet")
    first = next(name for name in detector("kddcup99").columns if name.startswith("flag="))
    error = f'{source}: there are columns "flag" and "{first}", expected one or the other'
    assert score(source, dataset="kddcup99").error == error


def test_a_missing_category_s_column_is_named(score: Score, tmp_path: Path) -> None:
    source = write(without(one_hot(examples("kddcup99"), "kddcup99"), "flag=SF"), tmp_path / "table.parquet")
    assert score(source, dataset="kddcup99").error.startswith(f'{source}: column "flag=SF" is missing')
    source = write(without(raw(examples("kddcup99"), "kddcup99"), "flag"), tmp_path / "other.parquet")
    assert score(source, dataset="kddcup99").error.startswith(f'{source}: column "flag" is missing')


@pytest.mark.parametrize(
    ("column", "keep", "error"),
    [
        ("score", "rest", 'column "score" has a name that is needed for the result'),
        ("anomaly", "all", 'column "anomaly" has a name that is needed for the result'),
        ("x", "visit,nonsense", 'there is no column "nonsense" to keep, the table has patient, age'),
        ("visit", "visit", 'column "visit" is there 2 times, expected once'),
    ],
)
def test_columns_that_can_t_be_kept_are_named(column: str, keep: str, error: str, score: Score, tmp_path: Path) -> None:
    source = write(thyroid().append_column(column, pa.array([1] * 100)), tmp_path / "table.arrow")
    assert score(source, "--keep", keep).error.startswith(f"{source}: {error}")
    assert not (tmp_path / "out").exists()


def test_a_column_that_is_in_the_way_may_be_left_out(score: Score, tmp_path: Path) -> None:
    source = write(thyroid().append_column("score", pa.array([1] * 100)), tmp_path / "table.parquet")
    assert score(source, "--keep", "visit").summary["rows"] == 100


def test_every_column_of_a_row_has_its_place() -> None:
    model = detector("kddcup99")
    for table in (one_hot(examples("kddcup99"), "kddcup99"), raw(examples("kddcup99"), "kddcup99")):
        layout = layout_of(table.schema, model.manifest, "table", text=False)
        (batch,) = table.combine_chunks().to_batches()
        np.testing.assert_array_equal(layout.matrix(batch), examples("kddcup99"))
    assert layout.width == model.manifest.width


def test_a_refused_table_stops_all_before_any_is_scored(score: Score, tmp_path: Path) -> None:
    write(thyroid(), tmp_path / "in" / "a.parquet")
    bad = write(without(thyroid(), "age"), tmp_path / "in" / "b.parquet")
    assert score(tmp_path / "in").error.startswith(f'{bad}: column "age" is missing')
    assert not (tmp_path / "out").exists()


def test_layouts_differ_from_file_to_file(score: Score, tmp_path: Path) -> None:
    table = thyroid()
    write(table.select([*FEATURES]), tmp_path / "in" / "a.parquet")
    write(table.select([*reversed(FEATURES), "visit"]), tmp_path / "in" / "b.csv")
    score(tmp_path / "in")
    a, b = (pq.read_table(tmp_path / "out" / f"{name}.parquet") for name in "ab")
    assert a["score"].to_pylist() == b["score"].to_pylist()
    assert b.column_names == ["visit", "score", "anomaly"]


def test_an_empty_name_is_no_match() -> None:
    with pytest.raises(OfflineError, match='column "age" is missing, the table has $'):
        layout_of(pa.schema([]), detector().manifest, "table", text=True)
