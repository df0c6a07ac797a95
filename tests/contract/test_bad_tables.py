"""What is wrong with a table is told, and never becomes a model: the whole way through the command."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from training.__main__ import main

ROWS = 120


def numbers(rows: int = ROWS, seed: int = 0) -> list[str]:
    return [f"{a:.6f},{b:.6f}" for a, b in np.random.default_rng(seed).normal(size=(rows, 2))]


def csv(*lines: str, head: str = "a,b") -> Callable[[Path], Path]:
    """Returns what writes a text."""

    def write(folder: Path) -> Path:
        path = folder / "t.csv"
        path.write_text("".join(f"{line}\n" for line in [head, *lines]))
        return path

    return write


def raw(data: bytes, name: str = "t.csv") -> Callable[[Path], Path]:
    """Returns what writes a file."""

    def write(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(data)
        return path

    return write


def cut(name: str) -> Callable[[Path], Path]:
    """Returns what writes a file that ends in its middle."""

    def write(folder: Path) -> Path:
        path = folder / name
        if name.endswith(".parquet"):
            pq.write_table(pa.table({"a": np.random.default_rng(0).normal(size=10_000)}), path)
            data = path.read_bytes()
        else:
            data = gzip.compress("\n".join(["a,b", *numbers(5000)]).encode())
        path.write_bytes(data[: len(data) // 2])
        return path

    return write


def with_column(values: Callable[[int], object], name: str = "c") -> Callable[[Path], Path]:
    """Returns what writes numbers with a column beside them."""
    return csv(*(f"{line},{values(i)}" for i, line in enumerate(numbers())), head=f"a,b,{name}")


def at(row: int, bad: object, good: Callable[[int], object] = lambda i: i % 7 + 0.5) -> Callable[[int], object]:
    return lambda i: bad if i == row else good(i)


@pytest.mark.parametrize(
    ("write", "options", "text"),
    [
        pytest.param(raw(b""), [], "t.csv: is empty", id="an empty file"),
        pytest.param(csv(), [], "t.csv: has names of columns but no rows", id="names alone"),
        pytest.param(csv("1,2"), [], "t.csv: has one row, expected at least 2", id="one row"),
        pytest.param(csv(*numbers(49)), [], "49 rows to fit, expected at least 50", id="few rows"),
        pytest.param(csv(*["1,2"] * ROWS), [], "no column is left", id="constants"),
        pytest.param(csv(*numbers(), head="a,a"), [], '"a" stands over up to 2 columns', id="a name twice"),
        pytest.param(csv(*numbers(), head="a,"), [], "the name of column 1 (counted from 0) is empty", id="no name"),
        pytest.param(with_column(at(17, "inf")), [], 'row 17, column "c" is Infinity', id="infinite"),
        pytest.param(with_column(at(17, "1e39")), [], 'row 17, column "c" is 1e+39', id="beyond a float32"),
        pytest.param(csv(*numbers(), "1,2,3"), [], "expected 2", id="a row too long"),
        pytest.param(
            with_column(lambda i: i % 3),
            ["--label", "c"],
            "expected two values, for normal and anomaly",
            id="three labels",
        ),
        pytest.param(
            with_column(lambda _: 1), ["--label", "c"], "expected two values, for normal and anomaly", id="one label"
        ),
        pytest.param(
            with_column(lambda i: int(i > 0)),
            ["--label", "c"],
            "1 rows to fit, expected at least 50",
            id="one normal row",
        ),
        pytest.param(cut("t.csv.gz"), [], "t.csv.gz", id="a gzip that is cut"),
        pytest.param(cut("t.parquet"), [], "t.parquet: is cut short", id="a Parquet that is cut"),
        pytest.param(raw(b"\x89PNG\r\n\x1a\n" + bytes(200)), [], "t.csv", id="a picture"),
        pytest.param(raw(b"PK\x03\x04" + bytes(200), "t.npz"), [], "t.npz", id="no archive"),
        pytest.param(raw(b"a,b\n1,2\n", "t.xlsx"), [], "the name doesn't say what format it has", id="another format"),
        pytest.param(
            csv(*(line.replace(",", ";") for line in numbers()), head="a;b"), [], "a semicolon", id="a delimiter"
        ),
        pytest.param(
            with_column(lambda i: f"{i}x"), ["--numeric", "c"], 'row 0, column "c" is "0x"', id="text as numbers"
        ),
        pytest.param(with_column(lambda i: i), ["--drop", "a,b,c"], "no column is left", id="nothing left"),
        pytest.param(csv(*numbers()), ["--schema", "nowhere.toml"], "nowhere.toml: can't be read", id="no schema"),
    ],
)
def test_it_is_told_and_there_is_no_model(
    write: Callable[[Path], Path],
    options: list[str],
    text: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fit", str(write(tmp_path)), *options, "--out", str(tmp_path / "models")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert text in error
    assert not list(tmp_path.glob("models/*"))


@pytest.mark.parametrize(
    ("write", "line", "features"),
    [
        pytest.param(with_column(lambda _: ""), 'dropped "c"', ["a", "b"], id="all null"),
        pytest.param(with_column(lambda _: 7), 'dropped "c": constant', ["a", "b"], id="a constant"),
        pytest.param(with_column(lambda i: i), 'dropped "c": identifier', ["a", "b"], id="an identifier"),
        pytest.param(with_column(lambda i: "x" if i % 2 else i % 5), "", ["a", "b", "c"], id="mixed types"),
        pytest.param(
            with_column(lambda i: f"{1900 + i % 60}-0{1 + i % 9}-01"), "", ["a", "b", "c"], id="dates before 1970"
        ),
        pytest.param(with_column(at(3, "")), "", ["a", "b", "c"], id="a gap"),
    ],
)
def test_it_is_told_and_the_rest_is_fitted(
    write: Callable[[Path], Path],
    line: str,
    features: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fit", str(write(tmp_path)), "--out", str(tmp_path / "models")]) == 0
    assert line in capsys.readouterr().out
    manifest: dict[str, Any] = json.loads((tmp_path / "models" / "t" / "1" / "manifest.json").read_text())
    assert [feature["name"] for feature in manifest["features"]] == features


@pytest.mark.slow
def test_ten_thousand_columns_are_fitted(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    x = (draw.normal(size=(300, 5)) @ draw.normal(size=(5, 10_000)) + 0.1 * draw.normal(size=(300, 10_000))).T
    pq.write_table(pa.table({f"c{i}": column for i, column in enumerate(x)}), tmp_path / "t.parquet")
    assert main(["fit", str(tmp_path / "t.parquet"), "--out", str(tmp_path / "models")]) == 0
    manifest = json.loads((tmp_path / "models" / "t" / "1" / "manifest.json").read_text())
    assert len(manifest["features"]) == 10_000
