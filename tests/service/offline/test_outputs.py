"""A file of scores is there whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.offline import outputs
from service.offline.errors import OfflineError
from service.offline.outputs import Counts, output_schema, writing
from tests.service.offline.conftest import Score
from tests.service.offline.tables import thyroid, write

SCHEMA = output_schema([pa.field("id", pa.int64())], {"dataset": "thyroid"})


def batch(first: int, rows: int) -> object:
    numbers = pa.array(range(first, first + rows), pa.int64())
    return pa.RecordBatch.from_arrays([numbers, numbers.cast("float64"), pa.array([True] * rows)], schema=SCHEMA)


def test_a_file_appears_under_its_name_when_it_is_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(outputs, "ROWS_TOGETHER", 100)
    path = tmp_path / "new" / "x.parquet"
    with writing(path, SCHEMA) as writer:
        for first in range(0, 1000, 40):
            writer.write(batch(first, 40))
            assert not path.exists()
        writer.close(Counts(rows=1000))
    assert [entry.name for entry in path.parent.iterdir()] == ["x.parquet"]
    assert pq.read_table(path)["id"].to_pylist() == list(range(1000))
    assert pq.read_metadata(path).num_row_groups == 9


@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644)])
def test_a_file_has_the_rights_that_the_process_gives(
    umask: int, mode: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(outputs, "UMASK", umask)
    with writing(tmp_path / "x.parquet", SCHEMA) as writer:
        writer.close(Counts())
    assert (tmp_path / "x.parquet").stat().st_mode & 0o777 == mode


def test_the_rights_are_the_process_s_own() -> None:
    code = "import os; os.umask(0o027); from service.offline import outputs; print(outputs.UMASK, os.umask(0))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(0o027)] * 2


@pytest.mark.parametrize("error", [OfflineError("x"), KeyboardInterrupt(), ZeroDivisionError()])
def test_nothing_is_left_of_a_file_that_is_given_up(error: BaseException, tmp_path: Path) -> None:
    def give_up() -> None:
        with writing(tmp_path / "x.parquet", SCHEMA) as writer:
            writer.write(batch(0, 10))
            raise error

    with pytest.raises(type(error)):
        give_up()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_t_be_made_is_named(score: Score, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    source = write(thyroid(), tmp_path / "table.parquet")
    error = score(source, out=tmp_path / "file" / "out").error
    assert error == f"{tmp_path}/file/out/table.parquet: can't be written (Not a directory)"


def test_a_full_disk_is_an_error_and_leaves_nothing(
    score: Score, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    source = write(thyroid(), tmp_path / "table.parquet")
    monkeypatch.setattr(os, "fsync", full)
    assert score(source).error == f"{tmp_path}/out/table.parquet: can't be written (No space left on device)"
    assert list((tmp_path / "out").iterdir()) == []


def test_a_column_that_parquet_has_not_is_an_error(score: Score, tmp_path: Path) -> None:
    table = thyroid().append_column("span", pa.array([None] * 100, pa.month_day_nano_interval()))
    error = score(write(table, tmp_path / "table.arrow")).error
    assert error.startswith(f"{tmp_path}/out/table.parquet: can't be written (Unhandled type")
    assert list((tmp_path / "out").iterdir()) == []


def test_counts_add_up() -> None:
    assert Counts(1, 2, 3, 4, 5) + Counts(10, 20, 30, 40, 50) == Counts(11, 22, 33, 44, 55)
