"""Tables with every kind of feature are scored as the same rows are over HTTP, whatever file they come in."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.__main__ import main
from service.detector import Detector
from service.formats.records import RecordsRequest
from service.formats.rows import Address
from service.graphs import Matrix
from service.offline.progress import CLEAR, Progress
from service.runtime import Runtime
from tests.server import MODELS, ROOT, SECONDS, environment
from tests.service import kinds
from tests.service.offline.conftest import Done
from tests.service.offline.tables import Table, examples, raw, thyroid, write

ROWS = 300

Run = Callable[..., Done]

Column = Any
"""A `pyarrow.Array`; pyarrow has no types."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kinds.make(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def detector(folder: Path) -> Detector:
    return Detector.load(folder, Runtime("cpu"))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path) -> Run:
    """Runs `python -m service score` with the model's folder."""
    monkeypatch.setenv("RADOGAGA_PROVIDER", "cpu")

    def score(*words: object, model: Path = folder) -> Done:
        monkeypatch.setattr(sys, "argv", ["service", "score", *map(str, words), "--model", str(model)])
        status = main()
        return Done(status, *capsys.readouterr())

    return score


def transactions(rows: int = ROWS, seed: int = 0) -> Table:
    """Makes a table with gaps and new categories."""
    draw = np.random.default_rng(seed)

    def gaps(values: list[Any]) -> list[Any]:
        return [None if gap else value for value, gap in zip(values, draw.random(rows) < 0.1, strict=True)]

    moments = [datetime(1960, 1, 1, tzinfo=UTC) + timedelta(seconds=int(s)) for s in draw.integers(0, 2**31, rows)]
    return pa.table(
        {
            "id": np.arange(rows),
            "amount": draw.normal(100, 200, rows),
            "age": pa.array(gaps(draw.integers(10, 95, rows).tolist()), pa.int16()),
            "fee": pa.array(gaps(draw.random(rows).tolist()), pa.float32()),
            "member": (draw.random(rows) < 0.5).tolist(),
            "abroad": pa.array(gaps((draw.random(rows) < 0.5).tolist()), pa.bool_()),
            "city": pa.array(gaps(draw.choice(["Bern", "Genève", "Zug: a, b"], rows).tolist())).dictionary_encode(),
            "card": draw.choice(["gold", "plain", "black"], rows),
            "branch": draw.choice([7, 12, 99], rows),
            "at": pa.array(gaps(moments), pa.timestamp("us", "Europe/Zurich")),
            "opened": pa.array([moment.date() for moment in moments], pa.date32()),
        }
    )


def records_of(table: Table) -> list[dict[str, Any]]:
    """Returns a table's rows as a client would post them."""
    found: list[dict[str, Any]] = json.loads(
        json.dumps(table.drop_columns("id").to_pylist(), default=lambda moment: moment.isoformat())
    )
    return found


def rows_of(table: Table, detector: Detector) -> Matrix:
    return RecordsRequest(Address(kinds.DATASET), records_of(table)).encoded(detector.encoder)


@pytest.mark.parametrize("name", ["t.parquet", "t.arrow", "t.arrows", "t.csv", "t.csv.gz", "t.tsv", "t.tsv.gz"])
def test_every_format_gives_the_scores_of_records(name: str, run: Run, detector: Detector, tmp_path: Path) -> None:
    table = transactions()
    source = write_text(table, tmp_path / name) if "sv" in name else write(table, tmp_path / name, piece=70)
    out = tmp_path / "scored.parquet"
    summary = run(source, "--out", out, "--batch-rows", 64).summary
    x = rows_of(table, detector)
    expected, found = detector.score(x), pq.read_table(out)
    assert found.column_names == ["id", "score", "anomaly", "p_value"]
    assert found["score"].to_pylist() == expected.scores.tolist()
    assert found["anomaly"].to_pylist() == expected.anomalies.tolist()
    assert detector.p_values is not None
    assert found["p_value"].to_pylist() == detector.p_values.of(expected.scores).tolist()
    assert summary["rows"] == ROWS
    assert summary["unseen_categories"] == detector.reference.count_unseen(x) > 0
    assert summary["values_outside_training_range"] == detector.reference.count_outside(x) > 0


def write_text(table: Table, path: Path) -> Path:
    """Writes text with white space around cells, and gaps in several spellings."""
    delimiter = "\t" if ".tsv" in path.name else ","
    nulls, lines = iter(["", "NA", " n/a ", "null", "NaN", "None", "?", "-"] * table.num_rows), []
    for row in [table.column_names, *(record.values() for record in table.to_pylist())]:
        cells = [next(nulls) if cell is None else f" {cell}" if isinstance(cell, float) else str(cell) for cell in row]
        lines.append(delimiter.join(f'"{cell}"' if "," in cell else cell for cell in cells))
    with pa.output_stream(str(path), compression="gzip" if path.suffix == ".gz" else None) as stream:
        stream.write("\n".join(lines).encode())
    return path


def test_the_same_scores_come_from_expanded_columns(run: Run, detector: Detector, tmp_path: Path) -> None:
    table = transactions()
    x = rows_of(table, detector)
    expanded = pa.table(dict(zip(detector.columns, x.T, strict=True)))
    source = write(expanded, tmp_path / "t.parquet")
    run(source, "--out", tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet")["score"].to_pylist() == detector.score(x).scores.tolist()
    mixed = table.drop_columns(["city"])
    for name in [name for name in kinds.COLUMNS if name.startswith("city=")]:
        mixed = mixed.append_column(name, expanded[name])
    run(write(mixed, tmp_path / "mixed.parquet"), "--out", tmp_path / "mixed-out.parquet")
    assert pq.read_table(tmp_path / "mixed-out.parquet")["score"].to_pylist() == detector.score(x).scores.tolist()


def changed(table: Table, column: str, values: object) -> Table:
    return table.set_column(table.schema.get_field_index(column), column, values)


OTHER_TYPES = [
    ("amount", pa.array([Decimal("12.50"), Decimal("-1")] * 150), [12.5, -1.0]),
    ("amount", pa.array(["12.5", " -1 "] * 150), [12.5, -1.0]),
    ("amount", pa.array(["12.5", "-1"] * 150).dictionary_encode(), [12.5, -1.0]),
    ("amount", pa.array([7, 8] * 150).dictionary_encode(), [7, 8]),
    ("age", pa.nulls(300), [None]),
    ("age", pa.array([40.0, float("nan")] * 150), [40, None]),
    ("age", pa.array(["40", "-"] * 150), [40, None]),
    ("abroad", pa.array([1, 0, None] * 100), [True, False, None]),
    ("abroad", pa.array([1.0, 0.0, float("nan")] * 100), [True, False, None]),
    ("abroad", pa.array(["TRUE", "False", "null"] * 100), [True, False, None]),
    ("abroad", pa.nulls(300), [None]),
    ("city", pa.nulls(300), [None]),
    ("city", pa.array(["Bern", ""] * 150, pa.large_string()), ["Bern", ""]),
    ("city", pa.array(["Bern", None] * 150, pa.string_view()), ["Bern", None]),
    ("city", pa.array([1, 2] * 150), ["1", "2"]),
    ("branch", pa.array([7.0, -3.5] * 150), [7, -3.5]),
    ("branch", pa.array(["7", "-3.5"] * 150), ["7", "-3.5"]),
    ("branch", pa.array([True, False] * 150), ["99", "99"]),
    ("at", pa.nulls(300), [None]),
    ("at", pa.array([date(1969, 7, 20), None] * 150), ["1969-07-20", None]),
    ("at", pa.array([date(1969, 7, 20)] * 300, pa.date64()), ["1969-07-20"]),
    ("at", pa.array([-1, None] * 150, pa.timestamp("ns")), ["1969-12-31T23:59:59.999999", None]),
    ("at", pa.array([-1] * 300, pa.timestamp("ms", "UTC")), ["1969-12-31T23:59:59.999"]),
    ("at", pa.array([-1] * 300, pa.timestamp("s")), ["1969-12-31T23:59:59"]),
    ("at", pa.array(["1969-07-20 20:17", "NA"] * 150), ["1969-07-20T20:17", None]),
    ("at", pa.array(["1969-07-20"] * 300).dictionary_encode(), ["1969-07-20"]),
]


@pytest.mark.parametrize(("column", "values", "means"), OTHER_TYPES, ids=[f"{a} {b.type}" for a, b, _ in OTHER_TYPES])
def test_columns_of_every_type_that_is_taken(
    column: str, values: Column, means: list[Any], run: Run, detector: Detector, tmp_path: Path
) -> None:
    table = transactions()
    source = write(changed(table, column, values), tmp_path / "t.arrow")
    run(source, "--out", tmp_path / "out.parquet")
    records = records_of(table)
    for i, record in enumerate(records):
        record[column] = means[i % len(means)]
    x = RecordsRequest(Address(kinds.DATASET), records).encoded(detector.encoder)
    found = pq.read_table(tmp_path / "out.parquet")
    assert found["score"].to_pylist() == detector.score(x).scores.tolist()


WRONG_TYPES = [
    ("amount", pa.nulls(300), "null", "numbers, booleans or text"),
    ("amount", pa.array([[1]] * 300), "list<item: int64>", "numbers, booleans or text"),
    ("member", pa.array([b"1"] * 300), "binary", "numbers, booleans or text"),
    ("city", pa.array([date(2026, 1, 1)] * 300), "date32[day]", "numbers, booleans or text"),
    ("at", pa.array([1] * 300), "int64", "timestamps, dates or text"),
    ("at", pa.array([True] * 300), "bool", "timestamps, dates or text"),
]


@pytest.mark.parametrize(("column", "values", "type_", "expected"), WRONG_TYPES)
def test_columns_of_other_types_are_refused(
    column: str, values: Column, type_: str, expected: str, run: Run, tmp_path: Path
) -> None:
    source = write(changed(transactions(), column, values), tmp_path / "t.arrow")
    error = run(source, "--out", tmp_path / "out.parquet").error
    assert error == f'{source}: column "{column}" has values of type {type_}, expected {expected}'


TIME = 'a time as "2026-01-31T12:00:00Z"'

WRONG_CELLS = [
    ("amount", None, "null", "a finite number that fits a float32"),
    ("amount", float("nan"), "NaN", "a finite number that fits a float32"),
    ("amount", float("inf"), "Infinity", "a finite number that fits a float32"),
    ("age", 1e39, "1e+39", "a finite number that fits a float32 or null"),
    ("age", "forty", '"forty"', "a finite number that fits a float32 or null"),
    ("age", "4_0", '"4_0"', "a finite number that fits a float32 or null"),
    ("member", None, "null", "true, false, 0 or 1"),
    ("abroad", 2, "2", "true, false, 0, 1 or null"),
    ("abroad", "yes", '"yes"', "true, false, 0, 1 or null"),
    ("card", None, "null", "a category"),
    ("opened", None, "null", TIME),
    ("at", "noon", '"noon"', f"{TIME} or null"),
    ("at", "2026-02-30", '"2026-02-30"', f"{TIME} or null"),
]


@pytest.mark.parametrize(("column", "value", "found", "expected"), WRONG_CELLS)
def test_a_wrong_cell_is_named_or_has_no_score(
    column: str, value: object, found: str, expected: str, run: Run, tmp_path: Path
) -> None:
    table = transactions()
    usual = {"at": "2026-01-01", "opened": date(2026, 1, 1), "card": "gold", "member": True}.get(column, 1)
    cells = pa.array([str(usual) if isinstance(value, str) else usual] * 100 + [value])
    values = pa.concat_arrays([cells, pa.array([cells[0].as_py()] * 199, cells.type)])
    source = write(changed(table, column, values), tmp_path / "t.parquet", piece=70)
    error = run(source, "--out", tmp_path / "out.parquet").error
    assert error == f'{source}: row 100, column "{column}" is {found}, expected {expected}'
    summary = run(source, "--out", tmp_path / "out.parquet", "--bad-rows", "null").summary
    assert summary["bad_rows"] == 1
    scored = pq.read_table(tmp_path / "out.parquet")
    for name in ("score", "anomaly", "p_value"):
        assert [i for i, cell in enumerate(scored[name].to_pylist()) if cell is None] == [100]


@pytest.mark.parametrize("seconds", [-62135596801, 253402300800, 2**62])
def test_moments_without_a_year_of_four_digits_are_none(seconds: int, run: Run, tmp_path: Path) -> None:
    values = pa.array([0] * 299 + [seconds], pa.timestamp("s"))
    source = write(changed(transactions(), "at", values), tmp_path / "t.arrow")
    assert run(source, "--out", tmp_path / "out.parquet").error.startswith(f'{source}: row 299, column "at" is ')


def test_a_column_of_the_scores_names_is_in_the_way(run: Run, tmp_path: Path) -> None:
    source = write(transactions().append_column("p_value", pa.array([1.0] * ROWS)), tmp_path / "t.parquet")
    error = run(source, "--out", tmp_path / "out.parquet").error
    assert error.startswith(f'{source}: column "p_value" has a name that is needed for the result')


def test_one_file_goes_to_one_file(run: Run, tmp_path: Path) -> None:
    source, out = write(transactions(), tmp_path / "t.parquet"), tmp_path / "new" / "scored.parquet"
    assert run(source, "--out", out).summary["written"] == 1
    assert out.is_file()
    assert run(source, "--out", out).error.startswith(f"{out}: is there already; choose another --out")
    assert run(source, "--out", out, "--resume").summary["skipped"] == 1
    assert run(source, "--out", source).error == f"{source}: is {source}, where the scores are to go"


def test_a_folder_stays_one_and_so_do_the_scores_of_several(run: Run, tmp_path: Path) -> None:
    source = write(transactions(), tmp_path / "in" / "t.parquet")
    (tmp_path / "there.parquet").mkdir()
    for given, out in ((source, "there.parquet"), (source.parent, "several.parquet"), (source, "plain")):
        run(given, "--out", tmp_path / out)
        assert (tmp_path / out / "t.parquet").is_file()


def test_the_folder_of_a_dataset_will_do(run: Run, folder: Path, tmp_path: Path) -> None:
    source = write(transactions(), tmp_path / "t.parquet")
    assert run(source, "--out", tmp_path / "a.parquet", model=folder.parent).summary["version"] == 1
    assert run(source, "--out", tmp_path / "b.parquet", "--version", 1).summary["version"] == 1
    error = run(source, "--out", tmp_path / "c.parquet", "--version", 2).error
    assert error == f"{folder}: is the folder of version 1, expected one of version 2"
    assert run(source, "--out", tmp_path / "c.parquet", model=tmp_path / "no").error.endswith("such folder of a model")


def test_a_shipped_model_takes_raw_rows_as_records_do(run: Run, tmp_path: Path) -> None:
    x = examples("kddcup99")
    source = write(raw(x, "kddcup99"), tmp_path / "kdd.parquet")
    run(source, "--out", tmp_path / "out.parquet", model=MODELS / "kddcup99")
    found = pq.read_table(tmp_path / "out.parquet")
    model = Detector.load(MODELS / "kddcup99" / "2", Runtime("cpu"))
    assert found["score"].to_pylist() == model.score(x).scores.tolist()
    assert found.column_names == ["score", "anomaly"]


def test_text_of_older_models_stays_as_it_was(run: Run, tmp_path: Path) -> None:
    source = write(thyroid(10), tmp_path / "t.csv")
    source.write_text(source.read_text().replace("age", "age ", 1))
    assert 'column "age" is missing' in run(source, "--out", tmp_path / "o.parquet", model=MODELS / "thyroid").error
    table = raw(examples("kddcup99"), "kddcup99")
    flags = table["flag"].to_pylist()
    gap = write(
        table.set_column(table.schema.get_field_index("flag"), "flag", pa.array(["", *flags[1:]])), tmp_path / "k.csv"
    )
    summary = run(gap, "--out", tmp_path / "k.parquet", model=MODELS / "kddcup99").summary
    assert (summary["unseen_categories"], summary["bad_rows"]) == (1, 0)


def test_a_terminal_has_a_bar(tmp_path: Path, folder: Path) -> None:
    source = write(transactions(), tmp_path / "t.parquet")
    words: list[str | Path] = ["-m", "service", "score", source, "--model", folder, "--out", tmp_path / "out.parquet"]
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=theirs,
        timeout=SECONDS,
        check=True,
    )
    os.close(theirs)
    said = os.read(ours, 10_000).decode()
    os.close(ours)
    assert json.loads(done.stdout)["rows"] == ROWS
    assert f"[{'#' * 20}] 100% 300 rows, " in said
    assert said.endswith(f"1 of 1 files, {tmp_path}/out.parquet\r\n{CLEAR}")


def test_a_bar_grows(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    said = Progress(1, terminal=True, total=1000, clock=lambda: now)
    for seconds in (0.1, 0.3, 0.4, 0.6):
        now = seconds
        said.add(125)
    said.clear()
    first, second = capsys.readouterr().err.removesuffix(CLEAR).split(CLEAR)[1:]
    assert first == "[#####...............]  25% 250 rows, 833/s, 0 of 1 files"
    assert second == "[##########..........]  50% 500 rows, 833/s, 0 of 1 files"


def test_there_is_no_bar_without_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    said = Progress(1, terminal=True, clock=lambda: now)
    now = 1.0
    said.add(10)
    assert capsys.readouterr().err == f"{CLEAR}10 rows, 10/s, 0 of 1 files"


def test_the_end_of_text_is_not_known_before(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    source = write_text(transactions(), tmp_path / "t.csv")
    done = run(source, "--out", tmp_path / "out.parquet")
    assert "[" not in done.errors.replace(CLEAR, "")
    assert "300 rows, " in done.errors
