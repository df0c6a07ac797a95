"""Delimited text: types by all cells, and everything that can be wrong with it."""

import gzip
import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from tests.training.tables.conftest import Write, error_of, read
from training.tables import text
from training.tables.errors import TableError
from training.tables.reading import open_table

TWO = "a,b\n1,2\n3,4\n"


def types(path: Path) -> dict[str, str]:
    return {field.name: str(field.type) for field in open_table(path).schema}


@pytest.mark.parametrize(
    ("cells", "type_"),
    [
        (["1", "-2", "+3", ""], "int64"),
        (["1", "2.5", "NA"], "double"),
        (["1e5", "?", " .5"], "double"),
        (["inf", "1"], "double"),
        (["true", "FALSE", "n/a"], "bool"),
        (["2026-01-31", "1960-01-31T10:00Z", "-"], "timestamp[us, tz=UTC]"),
        (["a", "None"], "string"),
        (["1", "true"], "string"),
        (["0", "1"], "int64"),
        (["1", "2026-01-31"], "string"),
        (["0x1F", "0x2F"], "string"),
        (["1,5", "2"], "string"),
        (["5%", "6%"], "string"),
        (["1_000", "2"], "string"),
        (["01/02/2026", "01/02/2027"], "string"),
        (["10:30", "11:30"], "string"),
        (["007", "008"], "string"),
        (["0.5", "07"], "double"),
        (["0", "-0"], "int64"),
        (["12345678901234567890", "1"], "string"),
        (["9223372036854775807", "1"], "int64"),
        (["NaN", "null", ""], "null"),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_types_are_what_all_cells_agree_on(
    cells: list[str], type_: str, order: int, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rows in (1, 100):  # every cell in a batch of its own, and all in one
        monkeypatch.setattr(text, "BATCH_ROWS", rows)
        lines = [f'"{cell}",x' for cell in cells[::order]]
        assert types(write("t.csv", "\n".join(["a,b", *lines, '"",x']))) == {"a": type_, "b": "string"}


def test_one_cell_at_the_end_decides(write: Write) -> None:
    path = write("t.csv", "a,b\n" + "1,1\n" * 300_000 + "0.5,x\n")
    assert path.stat().st_size > 10**6
    assert types(path) == {"a": "double", "b": "string"}


def test_values_are_those_of_the_types(write: Write) -> None:
    path = write("t.csv", ' i ,f,b,s,m,n\n+1, 2.5 ,TRUE, x y,2026-01-31,\n,?,false,"a,""b""\nc",,-\n')
    first, second = open_table(path), open_table(path)
    values = read(first)
    assert values["i"] == [1, None]
    assert values["f"] == [2.5, None]
    assert values["b"] == [True, False]
    assert values["s"] == ["x y", 'a,"b"\nc']
    assert str(values["m"][0]) == "2026-01-31 00:00:00+00:00"
    assert values["n"] == [None, None]
    assert read(first) == read(first) == read(second)
    assert read(first, ["s", "i"]) == {"s": values["s"], "i": values["i"]}


def test_any_table_of_numbers_comes_back(write: Write) -> None:
    """Over many draws: whatever is written as text is read as the same values and the narrowest type."""
    generator = np.random.default_rng(0)
    for _ in range(30):
        rows, columns = generator.integers(2, 30), generator.integers(1, 6)
        x = generator.normal(size=(rows, columns)) * 10.0 ** generator.integers(-9, 9, size=columns)
        whole = generator.random(columns) < 0.5
        x[:, whole] = np.rint(x[:, whole])
        null = generator.random((rows, columns)) < 0.2
        null[0] = False
        texts = np.where(null, "NA", np.where(whole, x.astype(np.int64).astype(str), x.astype(str)))
        header = ",".join(f"c{i}" for i in range(columns))
        found = open_table(write("t.csv", "\n".join([header, *(",".join(row) for row in texts)])))
        assert [pa.types.is_integer(field.type) for field in found.schema] == whole.tolist()
        read_back = np.array([[np.nan if v is None else v for v in c] for c in read(found).values()], dtype=float).T
        assert np.array_equal(read_back, np.where(null, np.nan, x), equal_nan=True)


@pytest.mark.parametrize(
    ("name", "delimiter"), [("t.csv", ","), ("t.tsv", "\t"), *itertools.product(["t.txt", "t.txt.gz"], ",\t;| ")]
)
def test_delimiters(name: str, delimiter: str, write: Write) -> None:
    lines = ["a,b", "1,2", "3,4"]
    path = write(name, "\n".join(line.replace(",", delimiter) for line in lines))
    assert read(open_table(path)) == {"a": [1, 3], "b": [2, 4]}


def test_a_delimiter_may_be_given(write: Write) -> None:
    assert read(open_table(write("t.csv", "a;b\n1,5;2\n3;4\n"), ";")) == {"a": ["1,5", "3"], "b": [2, 4]}


def test_a_txt_with_one_column_is_one(write: Write) -> None:
    assert read(open_table(write("t.txt", "a\n1\n2\n"))) == {"a": [1, 2]}


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_lines_may_end_in_any_way(ending: str, last: bool, write: Write) -> None:
    path = write("t.csv", ending.join(["a,b", "1,2", "3,4"]) + ending * last)
    assert read(open_table(path)) == {"a": [1, 3], "b": [2, 4]}


def test_a_byte_order_mark_and_empty_lines_don_t_matter(write: Write) -> None:
    path = write("t.csv", b"\xef\xbb\xbf\n\na,b\n\n1,2\n\n3,4\n\n")
    assert read(open_table(path)) == {"a": [1, 3], "b": [2, 4]}


def test_gzip_in_several_members_is_read_to_its_end(write: Write) -> None:
    path = write("t.csv.gz", gzip.compress(b"a,b\n1,2\n") + gzip.compress(b"3,4\n"))
    assert read(open_table(path)) == {"a": [1, 3], "b": [2, 4]}


def test_batches_have_no_more_rows_than_asked_for(write: Write) -> None:
    path = write("t.csv", "a\n" + "".join(f"{i}\n" for i in range(1000)))
    batches = list(open_table(path).batches(rows=64))
    assert max(batch.num_rows for batch in batches) == 64
    assert [i for batch in batches for i in batch["a"].to_pylist()] == list(range(1000))


def test_progress_is_told(write: Write) -> None:
    told: list[int] = []
    open_table(write("t.csv", "a\n" + "1\n" * 100), observe=told.append)
    assert told[-1] == 100


def test_many_columns(write: Write) -> None:
    names = [f"x{i}" for i in range(10_000)]
    rows = np.arange(20_000).reshape(2, -1) / 4 - 1
    path = write("t.csv", "\n".join([",".join(names), *(",".join(map(str, row)) for row in rows)]))
    found = open_table(path)
    (batch,) = found.batches()
    assert found.schema.names == names
    assert [column.to_pylist() for column in batch.columns] == rows.T.tolist()


def test_too_many_columns(write: Write) -> None:
    line = ",".join(f"x{i}" for i in range(2**16 + 1))
    assert error_of(write("t.csv", f"{line}\n")) == "t.csv: has 65537 columns, expected at most 65536"


@pytest.mark.parametrize(
    ("cells", "warning"),
    [
        (["1", "2", "x", "3"], 'column "a" is text: 3 of its 4 values are numbers, and "x" in row 2 is none'),
        (["x", "?", "1", "y"], 'column "a" is text: 1 of its 3 values are numbers, and "x" in row 0 is none'),
        (["1", "2", "007"], 'column "a" is text: "007" is a code and no integer'),
        (["1", "12345678901234567890"], 'column "a" is text: "12345678901234567890" is a code and no integer'),
        (["x", "y"], None),
        ([*["x"] * 20, "1"], None),  # by chance
        (["1", "2"], None),
    ],
)
def test_mixed_types_are_told(cells: list[str], warning: str | None, write: Write) -> None:
    path = write("t.csv", "\n".join(["a,b", *(f"{cell},0" for cell in cells)]))
    assert open_table(path).warnings == (() if warning is None else (f"{path}: {warning}",))


def test_mixed_types_are_counted_over_all_batches(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "BATCH_ROWS", 2)
    (warning,) = open_table(write("t.csv", "a\n1\n2\n\nNA\n3\nx\ny\n4\n")).warnings
    assert warning.endswith('4 of its 6 values are numbers, and "x" in row 4 is none')


BROKEN = {
    "": "is empty",
    "\n \n": "is empty",
    "a,b\n": "has names of columns but no rows",
    "a,b": "has names of columns but no rows",
    "a,b\n1,2\n": "has one row, expected at least 2",
    "a,b,a\n1,2,3\n4,5,6\n": '"a" stands over up to 2 columns, expected a different name for each',
    "a, a \n1,2\n4,5\n": '"a" stands over up to 2 columns, expected a different name for each',
    ",b\n1,2\n3,4\n": "the name of column 0 (counted from 0) is empty, expected a name for every column",
    "0.5,1\n1,2\n3,4\n": 'the first line has numbers only ("0.5", ...), expected the columns\' names',
    "1,1\n1,2\n3,4\n": 'the first line has numbers only ("1", ...), expected the columns\' names',
    "a,b\n1,2\n3\n": 'row 1 has 1 cells, expected 2: "3"',
    "a,b\n1,2\n3,4,5\n6,7\n": 'row 1 has 3 cells, expected 2: "3,4,5"',
    "a,b\n1,2\n\n3,4\n5\n": 'row 2 has 1 cells, expected 2: "5"',
    "a;b\n1;2\n3;4\n": 'has one column and no "," between cells, but a semicolon (";") in every line',
    "a;b\n1,5;2\n3;4\n": 'has one column and no "," between cells, but a semicolon (";") in every line',
    "a\tb\n1\t2\n3\t4\n": 'has one column and no "," between cells, but a tab ("\\t") in every line',
    'a,b\n1,2\n3,"4': "is cut short: a quotation mark in row 1 is never closed",
    'a,b\n1,2\n"3,4\n5,6\n': "is cut short: a quotation mark in row 1 is never closed",
    "a,b\n1,\0\n": "is no text, there is a byte 0x00 at offset 6",
    "\x89PNG\r\n": "is not UTF-8",
}


@pytest.mark.parametrize(("content", "said"), BROKEN.items())
@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz"])
def test_what_is_wrong_is_said(name: str, content: str, said: str, write: Write) -> None:
    if said == "is not UTF-8":
        assert error_of(write("t.csv", content.encode("latin-1"))) == "t.csv: is no text but a PNG picture"
    else:
        assert error_of(write(name, content)).startswith(f"{name}: {said}")


def test_numbered_columns_have_names(write: Write) -> None:
    assert read(open_table(write("t.csv", "0,1\n5,6\n7,8\n"))) == {"0": [5, 7], "1": [6, 8]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a,b\n1,\xe9\n2,3\n", "is not UTF-8: byte 0xe9 in line 2, at offset 6"),
        (b"a,\xe9\n1,2\n3,4\n", "is not UTF-8: byte 0xe9 in line 1, at offset 2"),
        (b"a,b\n" + b"1,x\n" * 300_000 + b"1,\xc3(\n", "is not UTF-8: byte 0xc3 in line 300002, at offset 1200006"),
        (b"a,b\n" + b"1,x\n" * 300_000 + b"1,\xc3", "is not UTF-8: byte 0xc3 in line 300002, at offset 1200006"),
        ("a,b\n1,2\n".encode("utf-16"), "is no text but UTF-16, expected UTF-8"),
        (b"PK\x03\x04" + bytes(100), "is no text but a ZIP archive"),
        (b"PAR1" + bytes(100), "is no text but a Parquet file"),
        (gzip.compress(b"a\n1\n2\n", mtime=0), "is no text but gzipped"),
    ],
)
def test_what_is_no_utf_8_is_named(content: bytes, said: str, write: Write) -> None:
    assert error_of(write("t.csv", content)).startswith(f"t.csv: {said}")


WHOLE = gzip.compress(("a,b\n" + "".join(f"{i},{i * 7919 % 1000003}\n" for i in range(30_000))).encode())


@pytest.mark.parametrize("length", [20, len(WHOLE) // 2, len(WHOLE) - 12, len(WHOLE) - 4])
def test_a_cut_gzip_is_named(length: int, write: Write) -> None:
    assert error_of(write("t.csv.gz", WHOLE[:length])) == "t.csv.gz: is cut short: its gzip stream has no end"


def test_a_damaged_gzip_is_named(write: Write) -> None:
    broken = bytearray(WHOLE)
    broken[len(WHOLE) // 2] ^= 0xFF
    assert error_of(write("t.csv.gz", bytes(broken))).startswith("t.csv.gz: is not gzipped, or broken: zlib")
    assert error_of(write("t.csv.gz", TWO.encode())).startswith("t.csv.gz: is not gzipped, or broken: zlib")


def test_a_text_longer_than_a_block_is_named(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "SMALLEST_BLOCK", 2**12)
    monkeypatch.setattr(text, "BLOCK_LINES", 1)
    path = write("t.csv", 'a,b\n1,2\n"' + "3,4\n" * 10_000)
    said = "t.csv: has a line, or a text between quotation marks, that is longer than 4096 bytes"
    assert error_of(path).startswith(said)


def test_a_first_line_without_end_is_named(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "LARGEST_BLOCK", 2**16)
    assert error_of(write("t.csv", "a" * 200_000)) == "t.csv: its first line is longer than 65536 bytes"


def test_a_file_that_breaks_later_is_named(write: Write) -> None:
    path = write("t.csv", TWO)
    table = open_table(path)
    path.write_text("a,b\n1,2\n3\n")
    with pytest.raises(TableError, match="t.csv: row 1 has 1 cells, expected 2"):
        read(table)
    path.write_text("a,b\n1,2\nx,4\n")
    with pytest.raises(TableError, match="t.csv: is no text file that can be read: .*'x'"):
        read(table)
    path.unlink()
    with pytest.raises(TableError, match="t.csv: can't be read"):
        read(table)


@pytest.mark.parametrize("cut", range(1, 36))
def test_text_that_is_cut_anywhere_is_an_error_or_a_shorter_table(cut: int, write: Write) -> None:
    content = 'a,b\n1,"x, y"\n3,"z\n""\n"\n5,6\n7,8\n'
    path = write("t.csv", content[:cut])
    values, said = [], ""
    try:
        values = read(open_table(path))["a"]
    except TableError as error:
        said = str(error)
    assert values in ([1, 3], [1, 3, 5], [1, 3, 5, 7]) or said.startswith(f"{path}: ")
