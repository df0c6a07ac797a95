"""Tables become files with their scores: the service's, row for row."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from service.detector import Detector, GraphName
from service.graphs import Matrix
from service.offline.scoring import in_order
from tests.service.offline.conftest import Score
from tests.service.offline.tables import (
    FEATURES,
    Type,
    changed,
    detector,
    examples,
    expected,
    one_hot,
    raw,
    thyroid,
    write,
)

SUFFIXES = ("parquet", "csv", "csv.gz", "arrow", "arrows", "feather")


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gets_the_same_scores_in_the_order_of_its_rows(
    suffix: str, threads: int, score: Score, tmp_path: Path
) -> None:
    table = thyroid(1001)
    source = write(table, tmp_path / f"table.{suffix}", piece=300)
    summary = score(source, "--threads", threads, "--batch-rows", 64).summary
    found, truth = pq.read_table(tmp_path / "out" / "table.parquet"), expected(table)
    assert found.column_names == ["patient", "visit", "ward", "score", "anomaly"]
    assert found["patient"].to_pylist() == table["patient"].to_pylist()
    assert found["ward"].to_pylist() == table["ward"].to_pylist()
    assert [int(visit) for visit in found["visit"].to_pylist()] == table["visit"].to_pylist()
    assert found["score"].type == pa.float64()
    np.testing.assert_array_equal(found["score"].to_numpy(), truth.scores)
    np.testing.assert_array_equal(found["anomaly"].to_numpy(), truth.anomalies)
    assert 0 < summary["anomalies"] == np.count_nonzero(truth.anomalies) < 1001
    assert (summary["rows"], summary["bad_rows"], summary["tables"], summary["written"]) == (1001, 0, 1, 1)


def test_the_scores_are_those_of_the_service(score: Score, client: TestClient, tmp_path: Path) -> None:
    table = thyroid(300)
    score(write(table, tmp_path / "table.parquet"))
    vectors = np.stack([table[name].to_numpy() for name in FEATURES], axis=1).tolist()
    answer = client.post("/score", json={"dataset": "thyroid", "vectors": vectors}).json()
    found = pq.read_table(tmp_path / "out" / "table.parquet")
    assert found["score"].to_pylist() == answer["scores"]
    assert found["anomaly"].to_pylist() == answer["anomalies"]


@pytest.mark.parametrize("dataset", ["arrhythmia", "kddcup99", "kddcup-rev"])
def test_wide_models_score_their_examples(dataset: str, score: Score, tmp_path: Path) -> None:
    rows = np.tile(examples(dataset), (200, 1))
    score(write(one_hot(rows, dataset), tmp_path / "table.parquet"), dataset=dataset)
    found = pq.read_table(tmp_path / "out" / "table.parquet")
    np.testing.assert_array_equal(found["score"].to_numpy(), detector(dataset).score(rows).scores)


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_column_of_categories_scores_like_a_column_for_each(suffix: str, score: Score, tmp_path: Path) -> None:
    rows = examples("kddcup99")
    summary = score(write(raw(rows, "kddcup99"), tmp_path / f"table.{suffix}"), dataset="kddcup99").summary
    found = pq.read_table(tmp_path / "out" / "table.parquet")
    np.testing.assert_array_equal(found["score"].to_numpy(), detector("kddcup99").score(rows).scores)
    assert (summary["unseen_categories"], found.column_names) == (0, ["score", "anomaly"])


def test_an_unknown_category_is_scored_without_one_and_counted(score: Score, tmp_path: Path) -> None:
    rows = examples("kddcup99")
    table = changed(raw(rows, "kddcup99"), 1, "protocol_type", "carrier-pigeon")
    summary = score(write(table, tmp_path / "table.parquet"), dataset="kddcup99").summary
    columns = [i for i, name in enumerate(detector("kddcup99").columns) if name.startswith("protocol_type=")]
    rows[1, columns] = 0
    found = pq.read_table(tmp_path / "out" / "table.parquet")
    np.testing.assert_array_equal(found["score"].to_numpy(), detector("kddcup99").score(rows).scores)
    assert summary["unseen_categories"] == 1


def test_values_beyond_training_are_scored_and_counted(score: Score, tmp_path: Path) -> None:
    table = changed(changed(thyroid(), 7, "TSH", 123.0), 7, "T3", -1)
    before = score(write(changed(thyroid(), 7, "TSH", 0.1), tmp_path / "a.parquet")).summary
    after = score(write(table, tmp_path / "b.parquet")).summary
    assert after["values_outside_training_range"] == before["values_outside_training_range"] + 2
    assert after["rows"] == 100


def test_a_file_says_what_it_was_made_of(score: Score, tmp_path: Path) -> None:
    source = write(thyroid(), tmp_path / "table.parquet")
    score(source, "--version", 1)
    metadata = pq.read_schema(tmp_path / "out" / "table.parquet").metadata
    manifest = detector(version="1").manifest
    assert metadata[b"dataset"] == b"thyroid"
    assert metadata[b"version"] == b"1"
    assert float(metadata[b"threshold"]) == manifest.threshold
    assert metadata[b"scorer_sha256"].decode() == manifest.graphs.scorer.sha256
    assert metadata[b"source"] == b"table.parquet"
    assert json.loads(pq.read_metadata(tmp_path / "out" / "table.parquet").metadata[b"counts"])["rows"] == 100


@pytest.mark.parametrize(
    ("keep", "columns"),
    [
        ("rest", ["patient", "visit", "ward"]),
        ("all", thyroid(1).column_names),
        ("none", []),
        ("visit, TSH", ["visit", "TSH"]),
    ],
)
def test_columns_are_kept_as_asked(keep: str, columns: list[str], score: Score, tmp_path: Path) -> None:
    table = thyroid()
    score(write(table, tmp_path / "table.parquet"), "--keep", keep)
    found = pq.read_table(tmp_path / "out" / "table.parquet")
    assert found.column_names == [*columns, "score", "anomaly"]
    for name in columns:
        assert found[name].to_pylist() == table[name].to_pylist()


def test_a_csv_column_is_kept_as_it_stands(score: Score, tmp_path: Path) -> None:
    header = ",".join(["id", *FEATURES])
    (tmp_path / "table.csv").write_text(f'{header}\n007,{",".join(["0.5"] * 6)}\n"a\nb",{",".join(["0.5"] * 6)}\n')
    score(tmp_path / "table.csv")
    assert pq.read_table(tmp_path / "out" / "table.parquet")["id"].to_pylist() == ["007", "a\nb"]


def test_a_table_without_rows_has_no_scores(score: Score, tmp_path: Path) -> None:
    for suffix in ("parquet", "arrow", "arrows"):
        source = write(thyroid().slice(0, 0), tmp_path / f"{suffix}.{suffix}")
        assert score(source).summary["rows"] == 0
        assert pq.read_table(tmp_path / "out" / f"{suffix}.parquet").num_rows == 0


@pytest.mark.parametrize(
    "type_",
    [pa.float16(), pa.float32(), pa.int8(), pa.uint16(), pa.int64(), pa.uint64(), pa.decimal128(25, 3), pa.bool_()],
)
def test_numbers_of_every_type_are_taken(type_: Type, score: Score, tmp_path: Path) -> None:
    values = pa.array([0, 1, 0, 1]).cast(type_, safe=False)
    write(pa.table(dict.fromkeys(FEATURES, values)), tmp_path / "table.parquet")
    score(tmp_path / "table.parquet")
    found = pq.read_table(tmp_path / "out" / "table.parquet")["score"].to_numpy()
    rows = np.repeat(np.array([[0], [1], [0], [1]], np.float32), 6, axis=1)
    np.testing.assert_array_equal(found, detector().score(rows).scores)


def test_an_integer_beyond_float32_becomes_what_the_service_makes_of_it(score: Score, tmp_path: Path) -> None:
    large = 2**60 + 2**36 + 1  # by way of float64 it lies between two float32
    write(pa.table({name: pa.array([large, None]) for name in FEATURES}), tmp_path / "table.parquet")
    score(tmp_path / "table.parquet", "--bad-rows", "null")
    found = pq.read_table(tmp_path / "out" / "table.parquet")["score"][0].as_py()
    assert found == detector().score(np.full((1, 6), np.float64(large)).astype(np.float32)).scores[0]


TOO_LARGE = 3.5e38


@pytest.mark.parametrize(
    ("suffix", "value", "quoted"),
    [
        ("parquet", None, "null"),
        ("parquet", float("nan"), "NaN"),
        ("parquet", float("-inf"), "-Infinity"),
        ("parquet", TOO_LARGE, "3.5e+38"),
        ("arrows", None, "null"),
    ],
)
def test_a_bad_value_is_named(suffix: str, value: object, quoted: str, score: Score, tmp_path: Path) -> None:
    source = write(changed(thyroid(500), 333, "T4U", value), tmp_path / f"table.{suffix}")
    error = score(source, "--batch-rows", 64, "--threads", 2).error
    assert error == f'{source}: row 333, column "T4U" is {quoted}, expected a finite number that fits a float32'
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("cell", ["", "abc", "1_000", "nan", "-inf", "1e999", "NA", "0x10", "1,5"])
def test_a_bad_cell_of_csv_is_named(cell: str, score: Score, tmp_path: Path) -> None:
    lines = [",".join(FEATURES), *["0.5,0.5,0.5,0.5,0.5,0.5"] * 20]
    lines[12] = f'0.5,0.5,"{cell}",0.5,0.5,0.5'
    source = tmp_path / "table.csv"
    source.write_text("\n".join(lines) + "\n")
    error = score(source).error
    assert error == f'{source}: row 11, column "T3" is "{cell}", expected a finite number that fits a float32'


def test_white_space_around_a_number_of_csv_is_no_matter(score: Score, tmp_path: Path) -> None:
    source = tmp_path / "table.csv"
    source.write_text(f"{','.join(FEATURES)}\n 0.5,0.5 ,0.5,+.5,5e-1,0.50\n")
    score(source)
    found = pq.read_table(tmp_path / "out" / "table.parquet")["score"].to_numpy()
    np.testing.assert_array_equal(found, detector().score(np.full((1, 6), 0.5, np.float32)).scores)


def test_a_row_without_a_category_is_named(score: Score, tmp_path: Path) -> None:
    table = changed(raw(examples("kddcup99"), "kddcup99"), 2, "flag", None)
    source = write(table, tmp_path / "table.parquet")
    assert score(source, dataset="kddcup99").error == f'{source}: row 2, column "flag" is null, expected a category'


def test_a_row_too_far_out_for_a_score_is_named_or_null(
    score: Score, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = Detector.run

    def run(self: Detector, graph: GraphName, rows: Matrix) -> Matrix:
        return (
            np.where(rows[:, 0] == 77, np.float32(np.inf), real(self, graph, rows))
            if graph == "scorer"
            else real(self, graph, rows)
        )

    monkeypatch.setattr(Detector, "run", run)
    source = write(changed(thyroid(), 55, "age", 77.0), tmp_path / "table.parquet")
    error = score(source, "--batch-rows", 10).error
    assert error == f"{source}: row 55 has values so large that its score is not a finite number"
    summary = score(source, "--bad-rows", "null").summary
    found = pq.read_table(tmp_path / "out" / "table.parquet")
    assert found["score"].null_count == found["anomaly"].null_count == summary["bad_rows"] == 1
    assert found["score"][55].as_py() is None


def test_bad_rows_may_have_null_for_a_score_and_are_counted(score: Score, tmp_path: Path) -> None:
    table = changed(changed(thyroid(500), 3, "TSH", None), 400, "FTI", float("inf"))
    summary = score(write(table, tmp_path / "table.parquet"), "--bad-rows", "null", "--batch-rows", 64).summary
    found, truth = pq.read_table(tmp_path / "out" / "table.parquet"), expected(thyroid(500))
    good = [i for i in range(500) if i not in (3, 400)]
    assert [found[name][i].as_py() for name in ("score", "anomaly") for i in (3, 400)] == [None] * 4
    np.testing.assert_array_equal(found["score"].take(good).to_numpy(), truth.scores[good])
    assert found["patient"].to_pylist() == table["patient"].to_pylist()
    assert (summary["rows"], summary["bad_rows"]) == (500, 2)
    assert summary["anomalies"] == np.count_nonzero(truth.anomalies[good])


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order_and_only_a_few_items_are_taken_ahead(threads: int) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for i in range(50):
            taken.append(i)
            yield i

    for i, result in enumerate(in_order(threads, lambda item: item * 2, items())):
        assert result == i * 2
        assert len(taken) <= i + 1 + threads
    assert len(taken) == 50


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_in_one_item_ends_the_others(threads: int) -> None:
    def fail(item: int) -> int:
        if item == 7:
            raise KeyError(item)
        return item

    found: list[int] = []
    with pytest.raises(KeyError):
        found.extend(in_order(threads, fail, iter(range(1000))))
    assert found == list(range(7))
