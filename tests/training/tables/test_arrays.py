"""Matrices of NumPy and MATLAB become tables, and nothing is unpickled."""

import re
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from tests.training.tables.conftest import Write, error_of, read
from training.tables.errors import TableError
from training.tables.reading import open_table

X = np.arange(12.0).reshape(4, 3) / 8
Y = np.array([0, 1, 0, 0])


def save(path: Path, **arrays: Any) -> Path:  # noqa: ANN401
    if path.suffix == ".npz":
        np.savez_compressed(path, **arrays)
    else:
        scipy.io.savemat(path, arrays, do_compression=True)
    return path


@pytest.mark.parametrize(
    ("suffix", "dtype"), [("npz", "f2"), *product(["npz", "mat"], ["f8", "f4", ">f8", "i4", "u1", "?"])]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_matrix_is_a_table(suffix: str, dtype: str, order: Literal["C", "F"], tmp_path: Path) -> None:
    x = (8 * X).astype(dtype, order=order)
    table = open_table(save(tmp_path / f"t.{suffix}", X=x, y=Y))
    assert (table.rows, table.label) == (4, "y")
    for rows in (1, 3, 100):
        values = read(table, rows=rows)
        assert list(values) == ["x0", "x1", "x2", "y"]
        assert np.array_equal(np.array([values[f"x{i}"] for i in range(3)]).T, x)
        assert values["y"] == Y.tolist()
    assert read(table, ["y", "x2"]) == {"y": Y.tolist(), "x2": x[:, 2].tolist()}


@pytest.mark.parametrize("suffix", ["npz", "mat"])
def test_labels_are_optional_and_may_be_a_column(suffix: str, tmp_path: Path) -> None:
    assert open_table(save(tmp_path / f"t.{suffix}", X=X)).label is None
    assert read(open_table(save(tmp_path / f"t.{suffix}", X=X, y=Y[:, None])), ["y"]) == {"y": Y.tolist()}


OBJECTS = np.array([[1, "a"], [2, "b"]], dtype=object)

WORDING = {
    "npz": {
        "array": "array",
        "shape": "(3,)",
        "complex": "values of type complex128",
        "text": "has values of type <U1",
    },
    "mat": {"array": "matrix", "shape": "(1, 3)", "complex": "complex numbers, expected real", "text": "is text"},
}

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"Z": X}, 'has no {array} X, it has "Z"'),
    ({"X": X[:1]}, "has one row, expected at least 2"),
    ({"X": X[:0]}, "has names of columns but no rows"),
    ({"X": X[:, :0]}, "has no columns"),
    ({"X": np.zeros((2, 2**16 + 1), dtype=bool)}, "has 65537 columns, expected at most 65536"),
    ({"X": X + 1j}, "X has {complex}"),
    ({"X": X, "y": Y[:3]}, "y has the shape {shape}, expected (4,), a label for each row of X"),
    ({"X": X, "y": np.array(["a", "b", "c", "d"])}, "y {text}"),
    ({"X": X, "y": Y.reshape(2, 2)}, "y has the shape (2, 2), expected (4,)"),
    ({"X": X.reshape(2, 2, 3)}, "X has the shape (2, 2, 3), expected (rows, columns)"),
]


@pytest.mark.parametrize("suffix", ["npz", "mat"])
@pytest.mark.parametrize(("arrays", "said"), WRONG)
def test_arrays_that_can_t_be_used_are_named(suffix: str, arrays: dict[str, Any], said: str, tmp_path: Path) -> None:
    wording = WORDING[suffix]
    said = re.sub(r"\{(\w+)\}", lambda match: wording[match[1]], said)
    assert error_of(save(tmp_path / f"t.{suffix}", **arrays)).startswith(f"t.{suffix}: {said}")


def test_a_row_of_numbers_is_no_table(tmp_path: Path) -> None:
    assert error_of(save(tmp_path / "t.npz", X=X[0])) == "t.npz: X has the shape (3,), expected (rows, columns)"


class Trap:
    """Leaves a trace when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["X", "y"])
def test_nothing_is_unpickled(name: str, tmp_path: Path) -> None:
    trap = np.array([[Trap(tmp_path / "sprung")] * 3] * 4, dtype=object)
    path = tmp_path / "t.npz"
    arrays: dict[str, Any] = {"X": X, name: trap}
    np.savez(path, **arrays)
    assert error_of(path) == f"t.npz: {name} has values of type object, expected integers, booleans or floats"
    assert not (tmp_path / "sprung").exists()
    np.load(path, allow_pickle=True)[name]
    assert (tmp_path / "sprung").exists()


def test_cells_structures_text_and_sparse_matrices_are_no_matrices(tmp_path: Path) -> None:
    sparse = scipy.sparse.csc_matrix(X)
    for x, what in [
        (OBJECTS, "a cell array"),
        ({"a": 1}, "a structure"),
        (np.array(["ab", "cd"]), "text"),
        (sparse, "sparse"),
    ]:
        assert error_of(save(tmp_path / "t.mat", X=x)) == f"t.mat: X is {what}, expected a full matrix of numbers"


@pytest.mark.parametrize("suffix", ["npz", "mat"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_cut_files_are_named(suffix: str, share: float, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(500, 10))
    path = save(tmp_path / f"t.{suffix}", X=x)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert error_of(path).startswith(f"t.{suffix}: is {'no NPZ file' if suffix == 'npz' else 'cut short'}")


@pytest.mark.parametrize("suffix", ["npz", "mat"])
def test_bytes_that_were_changed_are_an_error_or_other_values(suffix: str, tmp_path: Path) -> None:
    content = save(tmp_path / f"t.{suffix}", X=np.random.default_rng(0).normal(size=(20, 3)), y=np.arange(20) % 2)
    path = tmp_path / f"broken.{suffix}"
    outcomes = set()
    whole = content.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 100)):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        path.write_bytes(broken)
        try:
            outcomes.add(len(read(open_table(path))) > 0)
        except TableError as error:
            outcomes.add(str(error).startswith(str(path)))
    assert outcomes == {True}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.npz", b"", "is empty"),
        ("t.mat", b"", "is empty"),
        ("t.npz", b"\x89PNG" + bytes(100), "is no NPZ file that can be read: File is not a zip file"),
        ("t.mat", b"\x89PNG" + bytes(200), "is no MATLAB file of version 5 to 7"),
        ("t.mat", b"MATLAB 5.0 MAT-file", "is no MATLAB file of version 5 to 7"),
        ("t.mat", b"MATLAB 5.0".ljust(126) + b"IM", "has no matrix X, it has none"),
        (
            "t.mat",
            b"MATLAB 7.3 MAT-file".ljust(512) + b"\x89HDF\r\n\x1a\n" + bytes(99),
            "is MATLAB 7.3 (HDF5), expected",
        ),
    ],
)
def test_other_files_are_named(name: str, content: bytes, said: str, write: Write) -> None:
    assert error_of(write(name, content)).startswith(f"{name}: {said}")
