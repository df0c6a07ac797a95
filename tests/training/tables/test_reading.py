"""Tables are opened by their names."""

from pathlib import Path

import pytest

from tests.training.tables.conftest import Write, error_of, in_memory, read
from training.tables.base import ArrowTable
from training.tables.errors import TableError, UnknownColumn
from training.tables.reading import SUFFIXES, open_table


@pytest.mark.parametrize("name", ["t.json", "t", "t.parquet.gz", "t.csv.bz2", "gz", ".gz"])
def test_unknown_names(name: str, write: Write) -> None:
    expected = f"{name}: the name doesn't say what format it has, expected one of {', '.join(SUFFIXES)}"
    assert error_of(write(name, "a\n1\n2\n")) == expected


def test_names_may_be_upper_case_and_have_dots(write: Write) -> None:
    assert read(open_table(str(write("t.2026.CSV", "a\n1\n2\n")))) == {"a": [1, 2]}


def test_folders_and_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    assert error_of(tmp_path / "folder.csv") == "folder.csv: is a folder, expected a file"
    assert error_of(tmp_path / "none.csv") == "none.csv: there is no such file"


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.arrow", "t.npz", "t.mat"])
def test_files_that_can_t_be_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).symlink_to("/proc/self/mem")  # whatever reads it gets an error of the system's
    assert error_of(tmp_path / name).startswith(f"{name}: ")


def test_a_table_in_memory() -> None:
    table = in_memory(a=[1, 2, None], b=["x", "y", "z"])
    assert read(table, ["b", "a"], rows=2) == {"b": ["x", "y", "z"], "a": [1, 2, None]}
    assert (table.source, table.rows, table.label, table.warnings) == ("table", 3, None, ())
    with pytest.raises(TableError, match="table: has one row"):
        in_memory(a=[1])


def test_unknown_columns_are_named() -> None:
    table: ArrowTable = in_memory(amount=[1, 2], city=["x", "y"])
    with pytest.raises(
        UnknownColumn, match='columns names column "amonut", which is not there; did you mean "amount"?'
    ):
        read(table, ["city", "amonut"])
    with pytest.raises(UnknownColumn, match='"zzz", which is not there; the table has "amount", "city"'):
        read(table, ["zzz"])
