"""What is there already is neither overwritten nor mixed with what another run would write."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from service.offline.errors import OfflineError
from service.offline.outputs import Counts, finished
from service.offline.plan import Plan, blocks_of, make_plan
from service.offline.scoring import Options, PartScorer
from tests.service.offline.conftest import Score
from tests.service.offline.tables import detector, expected, thyroid, write


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    for seed in range(3):
        write(thyroid(200, seed), tmp_path / "in" / f"{seed}.parquet", piece=50)
    return tmp_path / "in"


def test_scores_that_are_there_are_not_overwritten(score: Score, inputs: Path, tmp_path: Path) -> None:
    score(inputs / "1.parquet")
    content = (tmp_path / "out" / "1.parquet").read_bytes()
    error = score(inputs).error
    assert (
        error
        == f"{tmp_path}/out/1.parquet: is there already; choose another --out, or score what is missing by --resume"
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["1.parquet"]
    assert (tmp_path / "out" / "1.parquet").read_bytes() == content


def test_resume_scores_what_is_missing_and_counts_all(score: Score, inputs: Path, tmp_path: Path) -> None:
    whole = score(inputs, out=tmp_path / "whole").summary
    score(inputs / "1.parquet")
    made = (tmp_path / "out" / "1.parquet").stat().st_mtime_ns
    summary = score(inputs, "--resume").summary
    assert (tmp_path / "out" / "1.parquet").stat().st_mtime_ns == made
    assert (summary["written"], summary["skipped"], summary["tables"]) == (2, 1, 3)
    assert [summary[name] for name in ("rows", "anomalies")] == [whole[name] for name in ("rows", "anomalies")]
    again = score(inputs, "--resume").summary
    assert (again["written"], again["skipped"], again["rows"]) == (0, 3, 600)


def test_what_a_killed_run_left_is_removed(score: Score, inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name in (".1.parquet.abc.unfinished", ".other.parquet.abc.unfinished", ".1.parquet.crc"):
        (tmp_path / "out" / name).touch()
    score(inputs, "--resume")
    left = sorted(path.name for path in (tmp_path / "out").glob(".*"))
    assert left == [".1.parquet.crc", ".other.parquet.abc.unfinished"]


@pytest.mark.parametrize(
    ("options", "name", "found", "wanted"),
    [
        (["--version", 1], "version", "2", "1"),
        (["--keep", "none"], "keep", "rest", "none"),
        (["--bad-rows", "null"], "bad_rows", "error", "null"),
    ],
)
def test_resume_refuses_what_was_made_otherwise(
    options: list[object], name: str, found: str, wanted: str, score: Score, inputs: Path, tmp_path: Path
) -> None:
    score(inputs)
    error = score(inputs, "--resume", *options).error
    where = f"{tmp_path}/out/0.parquet: was written with {name}"
    assert error == f'{where} "{found}", expected "{wanted}"; remove it, or choose another --out'


def test_resume_refuses_the_scores_of_a_table_that_has_changed(score: Score, inputs: Path) -> None:
    score(inputs)
    write(thyroid(300), inputs / "1.parquet")
    assert "out/1.parquet: was written with source_bytes" in score(inputs, "--resume").error


@pytest.mark.parametrize("content", [b"", b"nonsense"])
def test_resume_refuses_what_is_no_file_of_scores(content: bytes, score: Score, inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "0.parquet").write_bytes(content)
    error = f"{tmp_path}/out/0.parquet: is there already, and was not written by this command"
    assert score(inputs, "--resume").error == error
    shutil.copy(inputs / "0.parquet", tmp_path / "out" / "0.parquet")
    assert score(inputs, "--resume").error == error


def test_two_tables_of_one_name_are_refused(score: Score, inputs: Path, tmp_path: Path) -> None:
    other = write(thyroid(), tmp_path / "other" / "1.csv")
    error = f"{other}: its scores would go to {tmp_path}/out/1.parquet, as those of {inputs}/1.parquet do"
    assert score(inputs, other).error == error


def test_folders_inside_folders_are_kept_apart(score: Score, inputs: Path, tmp_path: Path) -> None:
    write(thyroid(), inputs / "more" / "1.parquet")
    assert score(inputs).summary["tables"] == 4
    assert pq.read_metadata(tmp_path / "out" / "more" / "1.parquet").num_rows == 100


def test_scores_are_no_tables_to_score(score: Score, inputs: Path) -> None:
    score(inputs, out=inputs / "out")
    error = score(inputs, "--resume", out=inputs / "out").error
    assert error == f"{inputs}/out/0.parquet: lies in {inputs}/out, where the scores are to go"


def plan(inputs: Path, out: Path, rows: int = 50, resume: bool = False) -> Plan:
    options = Options(origin=True)
    return make_plan([str(inputs)], out, detector().manifest, options, blocks_of(rows), resume)


def run(plan: Plan) -> Counts:
    return sum((PartScorer(detector(), task, Options(origin=True)).run() for task in plan.tasks), Counts())


def test_blocks_say_where_each_row_comes_from(inputs: Path, tmp_path: Path) -> None:
    counts = run(plan(inputs, tmp_path / "out"))
    assert counts.rows == 600
    for seed in range(3):
        folder = tmp_path / "out" / f"{seed}.parquet"
        names = ["000000000000.parquet", "000000000050.parquet", "000000000100.parquet", "000000000150.parquet"]
        assert sorted(path.name for path in folder.iterdir()) == names
        found = pq.read_table(folder).sort_by("row")
        assert found.column_names == ["file", "row", "patient", "visit", "ward", "score", "anomaly"]
        assert set(found["file"].to_pylist()) == {str(inputs / f"{seed}.parquet")}
        assert found["row"].to_pylist() == found["visit"].to_pylist() == list(range(200))
        assert found["score"].to_pylist() == expected(thyroid(200, seed)).scores.tolist()


def test_blocks_are_resumed(inputs: Path, tmp_path: Path) -> None:
    run(plan(inputs, tmp_path / "out"))
    (tmp_path / "out" / "1.parquet" / "000000000100.parquet").unlink()
    again = plan(inputs, tmp_path / "out", resume=True)
    assert [(task.part.first_row, task.part.rows) for task in again.tasks] == [(100, 50)]
    assert (again.skipped, again.done.rows) == (11, 550)


@pytest.mark.parametrize(
    ("rows", "error"), [(100, "0.parquet/000000000000.parquet: was written with source_rows"), (1, "")]
)
def test_blocks_of_another_size_are_not_mixed(rows: int, error: str, inputs: Path, tmp_path: Path) -> None:
    run(plan(inputs, tmp_path / "out"))
    if not error:
        assert plan(inputs, tmp_path / "out", rows, resume=True).tasks == []  # no smaller than a row group
        return
    with pytest.raises(OfflineError) as raised:
        plan(inputs, tmp_path / "out", rows, resume=True)
    assert "is there already, and is none of this run's blocks" in str(raised.value)


def test_engines_don_t_mix(score: Score, inputs: Path, tmp_path: Path) -> None:
    run(plan(inputs, tmp_path / "out"))
    error = f"{tmp_path}/out/0.parquet: is a folder, as --engine ray makes them; choose another --out"
    assert score(inputs, "--resume").error == error
    score(inputs, out=tmp_path / "local")
    with pytest.raises(OfflineError, match="0.parquet: is a file, as --engine local makes them"):
        plan(inputs, tmp_path / "local", resume=True)


def test_a_finished_file_has_its_counts(score: Score, inputs: Path, tmp_path: Path) -> None:
    summary = score(inputs / "0.parquet").summary
    counts = finished(tmp_path / "out" / "0.parquet", {"dataset": "thyroid"})
    assert (counts.rows, counts.anomalies) == (200, summary["anomalies"])
