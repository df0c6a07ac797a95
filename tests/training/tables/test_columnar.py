"""Parquet and Arrow files are read in pieces, or an error names what is wrong."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from tests.training.tables.conftest import Write, error_of, read, save
from training.tables.errors import TableError
from training.tables.reading import open_table

SUFFIXES = ("parquet", "arrow", "arrows", "feather")


def some(rows: int) -> pa.Table:
    generator = np.random.default_rng(0)
    return pa.table(
        {
            "i": pa.array(range(rows)),
            "f": pa.array(generator.normal(size=rows), mask=generator.random(rows) < 0.1),
            "s": pa.array([f"s{i % 7}" for i in range(rows)]).dictionary_encode(),
            "b": pa.array(generator.random(rows) < 0.5),
            "nested": pa.array([[i] for i in range(rows)]),
        }
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_all_rows_come_in_batches_as_often_as_wanted(suffix: str, tmp_path: Path) -> None:
    table = some(500)
    found = open_table(save(table, tmp_path / f"t.{suffix}", piece=100))
    assert found.rows == 500
    assert [str(field.type) for field in found.schema][:4] == ["int64", "double", "string", "bool"]
    for _ in range(2):
        batches = list(found.batches(["b", "i", "s", "f"], rows=64))
        assert max(batch.num_rows for batch in batches) == 64
        read_back = pa.Table.from_batches(batches).to_pydict()
        assert list(read_back) == ["b", "i", "s", "f"]
        assert all(values == table[name].to_pylist() for name, values in read_back.items())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nested_columns_are_refused_when_they_are_read(suffix: str, tmp_path: Path) -> None:
    path = save(some(10), tmp_path / f"t.{suffix}")
    assert f't.{suffix}: column "nested" has the type list<' in error_of(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_that_are_empty_or_have_too_few_rows(suffix: str, write: Write, tmp_path: Path) -> None:
    assert error_of(write(f"t.{suffix}", b"")) == f"t.{suffix}: is empty"
    assert error_of(save(some(0), tmp_path / f"t.{suffix}")) == f"t.{suffix}: has names of columns but no rows"
    assert error_of(save(some(1), tmp_path / f"t.{suffix}")) == f"t.{suffix}: has one row, expected at least 2"
    nothing = pa.table({"a": [1]}).select([])
    assert error_of(save(nothing, tmp_path / f"t.{suffix}")) == f"t.{suffix}: has no columns"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_names_that_are_empty_or_repeated(suffix: str, tmp_path: Path) -> None:
    column = pa.array([1, 2])
    for names, said in [(["a", ""], "the name of column 1 (counted from 0) is empty"), (["a", "a"], '"a" stands over')]:
        path = save(pa.Table.from_arrays([column, column], names=names), tmp_path / f"t.{suffix}")
        assert error_of(path).startswith(f"t.{suffix}: {said}")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
def test_cut_files_are_named(suffix: str, share: float, tmp_path: Path) -> None:
    path = save(some(1000), tmp_path / f"t.{suffix}", piece=100)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "is cut short" in error_of(path)


def test_other_files_are_named(write: Write) -> None:
    assert error_of(write("t.parquet", b"\x89PNG" + bytes(100))) == "t.parquet: is no Parquet file"
    assert error_of(write("t.parquet", b"PAR1" + b"x" * 100 + b"PAR1")).startswith("t.parquet: is no Parquet file that")
    assert error_of(write("t.arrow", b"\x89PNG" + bytes(100))).startswith("t.arrow: is no Arrow file that can be read")
    assert error_of(write("t.arrow", b"ARROW1\0\0" + b"x" * 100 + b"ARROW1")).startswith(
        "t.arrow: is no Arrow file that"
    )
    assert error_of(write("t.feather", b"FEA1" + bytes(100))) == (
        "t.feather: is Feather version 1, expected version 2; write it anew with a recent library"
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_bytes_that_were_changed_are_an_error_or_other_values(suffix: str, tmp_path: Path) -> None:
    """Whatever is read, it is an error that names the file, or a table."""
    content = save(some(200).drop_columns(["nested"]), tmp_path / f"t.{suffix}", piece=100).read_bytes()
    path = tmp_path / f"broken.{suffix}"
    outcomes = set()
    for place in range(0, len(content), max(1, len(content) // 80)):
        broken = bytearray(content)
        broken[place] ^= 0xFF
        path.write_bytes(broken)
        try:
            outcomes.add(len(read(open_table(path))))
        except TableError as error:
            outcomes.add(str(error).startswith(str(path)))
    assert outcomes <= {4, True}


@pytest.mark.parametrize("compression", ["lz4", "zstd", "uncompressed"])
def test_compressed_feather(compression: str, tmp_path: Path) -> None:
    pyarrow.feather.write_feather(some(50).drop_columns(["nested"]), str(tmp_path / "t.feather"), compression)
    assert read(open_table(tmp_path / "t.feather"), ["i"])["i"] == list(range(50))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_many_columns(suffix: str, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(10_000, 3))
    table = pa.table({f"x{i}": column for i, column in enumerate(x)})
    found = open_table(save(table, tmp_path / f"t.{suffix}"))
    assert list(read(found).values()) == x.tolist()


def test_wide_batches_are_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.tables.base.BATCH_CELLS", 40)
    path = save(pa.table({f"x{i}": range(100) for i in range(10)}), tmp_path / "t.parquet")
    assert {batch.num_rows for batch in open_table(path).batches()} == {4}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(some(10), path)
    table = open_table(path)
    path.unlink()
    with pytest.raises(TableError, match=f"{path}: can't be read .No such file"):
        read(table, ["i"])
