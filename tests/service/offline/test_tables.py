"""Tables are found, read and divided, or an error names the file."""

import gzip
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.offline import tables
from service.offline.errors import OfflineError
from service.offline.tables import Part, divide, find_tables, read, schema_of, stem_of
from tests.service.offline.conftest import Score
from tests.service.offline.tables import FEATURES, thyroid, write


def names(inputs: list[str]) -> list[str]:
    return [str(name) for _, name in find_tables(inputs)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.parquet", "a.csv", "deep/er/c.arrow", ".hidden.parquet", "_tmp/d.parquet", "notes.txt"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "in"


def test_folders_are_searched_and_keep_their_structure(folder: Path) -> None:
    assert names([str(folder)]) == ["a.csv", "b.parquet", "deep/er/c.arrow"]


def test_patterns_are_sorted_and_what_is_given_twice_counts_once(folder: Path) -> None:
    assert names([f"{folder}/**/*.arrow", f"{folder}/?.*", f"{folder}/b.parquet"]) == ["c.arrow", "a.csv", "b.parquet"]


def test_folders_that_a_pattern_matches_are_searched(folder: Path) -> None:
    assert names([f"{folder}/d*"]) == ["er/c.arrow"]


def test_links_are_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "e.parquet").touch()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    assert names([str(folder)]) == ["a.csv", "b.parquet", "deep/er/c.arrow", "linked/e.parquet"]


def test_a_link_that_leads_back_is_named(folder: Path) -> None:
    (folder / "deep" / "back").symlink_to(folder)
    with pytest.raises(OfflineError, match=f"{folder}/deep/back: leads back to {folder}, which it lies in"):
        find_tables([str(folder)])


def test_a_file_with_a_pattern_s_signs_in_its_name_is_a_file(folder: Path) -> None:
    (folder / "x[1].csv").touch()
    assert names([f"{folder}/x[1].csv"]) == ["x[1].csv"]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ("none.parquet", "none.parquet: there is no such file"),
        ("*.feather", "*.feather: no file matches"),
        ("notes.txt", "notes.txt: the name says nothing that is known of its format, expected .parquet, .csv, "),
        ("empty", "empty: there is no table in this folder, expected .parquet, .csv, "),
    ],
)
def test_what_is_no_table_is_named(given: str, error: str, folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(OfflineError) as raised:
        find_tables([f"{folder}/{given}"])
    assert f"{folder}/{error}" in str(raised.value)


def test_the_name_without_the_format() -> None:
    assert [str(stem_of(Path(name))) for name in ("a/b.c.parquet", "b.CSV.gz", "c.csv")] == ["a/b.c", "b", "c"]


@pytest.mark.parametrize("suffix", ["parquet", "csv", "csv.gz", "arrow", "arrows"])
def test_batches_have_no_more_rows_than_asked_for(suffix: str, tmp_path: Path) -> None:
    path = write(thyroid(500), tmp_path / f"table.{suffix}")
    batches = list(read(Part(str(path)), ["visit", "TSH"], 64))
    assert max(batch.num_rows for batch in batches) == 64
    assert [int(i) for batch in batches for i in batch["visit"].to_pylist()] == list(range(500))
    assert batches[0].schema.names == ["visit", "TSH"]


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
@pytest.mark.parametrize(("rows", "sizes"), [(1, [100] * 5), (101, [200, 200, 100]), (500, [500]), (10_000, [500])])
def test_a_table_is_divided_between_its_pieces(suffix: str, rows: int, sizes: list[int], tmp_path: Path) -> None:
    path = write(thyroid(500), tmp_path / f"table.{suffix}", piece=100)
    parts = divide(str(path), rows)
    assert [part.rows for part in parts] == sizes
    visits = [[i for batch in read(part, ["visit"], 64) for i in batch["visit"].to_pylist()] for part in parts]
    assert [found[0] for found in visits] == [part.first_row for part in parts]
    assert list(chain.from_iterable(visits)) == list(range(500))


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "arrows"])
def test_what_can_t_be_divided_is_one_part(suffix: str, tmp_path: Path) -> None:
    path = write(thyroid(500), tmp_path / f"table.{suffix}", piece=100)
    assert divide(str(path), 100) == [Part(str(path))]


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_table_without_rows_is_one_part(suffix: str, tmp_path: Path) -> None:
    path = write(thyroid(0), tmp_path / f"table.{suffix}")
    (part,) = divide(str(path), 100)
    assert [batch.num_rows for batch in read(part, ["visit"], 64) if batch.num_rows] == []


@pytest.mark.parametrize(
    ("suffix", "kind"), [("parquet", "Parquet"), ("arrow", "Arrow"), ("csv.gz", "CSV"), ("arrows", "Arrow")]
)
@pytest.mark.parametrize("content", [b"", b"nonsense" * 100])
def test_what_is_not_of_its_format_is_named(
    suffix: str, kind: str, content: bytes, score: Score, tmp_path: Path
) -> None:
    path = tmp_path / f"table.{suffix}"
    path.write_bytes(content)
    assert score(path).error.startswith(f"{path}: is no {kind} file that can be read: ")


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "arrows", "csv.gz"])
def test_a_cut_file_is_named_and_leaves_nothing(suffix: str, score: Score, tmp_path: Path) -> None:
    path = write(thyroid(5000), tmp_path / f"table.{suffix}", piece=500)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert f"{path}: is no " in score(path).error
    assert list((tmp_path / "out").glob("*")) == []


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_bytes_that_were_changed_are_an_error_or_other_values(suffix: str, score: Score, tmp_path: Path) -> None:
    """Whatever is read, it is an error of this command or a score for every row."""
    content = write(thyroid(500), tmp_path / f"whole.{suffix}", piece=100).read_bytes()
    for place in range(0, len(content), len(content) // 60):
        broken = bytearray(content)
        broken[place] ^= 0xFF
        path = tmp_path / f"table{place}.{suffix}"
        path.write_bytes(broken)
        done = score(path, "--bad-rows", "null", out=tmp_path / str(place))
        assert done.status in (0, 1)
        assert done.status == 0 or done.errors.startswith("error: ")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OfflineError, match="no.parquet: can't be read \\(No such file"):
        schema_of(str(tmp_path / "no.parquet"))


def test_a_line_of_csv_with_too_few_cells_is_named(score: Score, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"{','.join(FEATURES)}\n1,2,3,4,5,6\n1,2,3\n")
    error = score(path, "--bad-rows", "null").error
    assert error.startswith(f"{path}: is no CSV file that can be read: CSV parse error")
    assert "Expected 6 columns, got 3" in error


def test_csv_that_is_not_utf_8_is_an_error(score: Score, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(f"id,{','.join(FEATURES)}\n".encode() + b"\xff,1,2,3,4,5,6\n")
    assert "invalid UTF8 data" in score(path).error


def test_csv_longer_than_a_block_is_read_to_its_end(
    score: Score, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tables, "CSV_BLOCK", 1024)
    lines = [f'"{i}\n{i}",0.5,0.5,0.5,0.5,0.5,{i / 1000}' for i in range(1000)]
    (tmp_path / "table.csv.gz").write_bytes(gzip.compress("\n".join([f"id,{','.join(FEATURES)}", *lines]).encode()))
    assert score(tmp_path / "table.csv.gz").summary["rows"] == 1000
    assert pq.read_table(tmp_path / "out" / "table.parquet")["id"].to_pylist() == [f"{i}\n{i}" for i in range(1000)]


def test_a_line_longer_than_a_block_is_an_error(score: Score, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tables, "CSV_BLOCK", 1024)
    row = ",".join(["0.5"] * 6)
    (tmp_path / "table.csv").write_text(f"id,{','.join(FEATURES)}\n0,{row}\n{'x' * 5000},{row}\n")
    assert f"{tmp_path}/table.csv: is no CSV file that can be read: " in score(tmp_path / "table.csv").error


def test_compressed_arrow_is_read(score: Score, tmp_path: Path) -> None:
    table = thyroid()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(str(tmp_path / "table.arrow"), table.schema, options=options) as writer:
        writer.write_table(table)
    assert score(tmp_path / "table.arrow").summary["rows"] == 100
