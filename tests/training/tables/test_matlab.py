"""Matrices are read as SciPy reads them, and damaged files are told."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from training.tables.matlab import HEADER_BYTES, MatlabError, read_matlab

TYPES = ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?")


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("dtype", TYPES)
def test_matrices_are_those_of_scipy(dtype: str, compressed: bool, tmp_path: Path) -> None:
    path = tmp_path / "t.mat"
    generator = np.random.default_rng(0)
    arrays = {
        "X": (100 * generator.random((7, 3))).astype(dtype),
        "y": (2 * generator.random((7, 1))).astype(dtype),
        "other": np.array(["text"]),
        "a_name_of_more_than_four_letters": np.eye(3),
    }
    scipy.io.savemat(path, arrays, do_compression=compressed)
    expected = scipy.io.loadmat(path)
    found, names = read_matlab(path, ("X", "y", "a_name_of_more_than_four_letters"))
    assert names == list(arrays)
    assert set(found) == set(arrays) - {"other"}
    for name, matrix in found.items():
        assert matrix.dtype == arrays[name].dtype
        assert np.array_equal(matrix, expected[name])


def big_endian_file(values: np.ndarray) -> bytes:
    """Writes a matrix of doubles as a machine of the other byte order does, stored as bytes as MATLAB does."""

    def element(type_: int, data: bytes) -> bytes:
        return struct.pack(">II", type_, len(data)) + data + bytes(-len(data) % 8)

    small = struct.pack(">HH4s", 1, 1, b"X")  # the size goes before the type
    matrix = element(6, struct.pack(">II", 6, 0)) + element(5, struct.pack(">ii", *values.shape)) + small
    matrix += element(2, values.astype(np.uint8).tobytes(order="F"))
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI" + element(14, matrix)


def test_the_other_byte_order_and_smaller_types_of_storage(tmp_path: Path) -> None:
    values = np.arange(12).reshape(3, 4)
    path = tmp_path / "t.mat"
    path.write_bytes(big_endian_file(values))
    matrix = read_matlab(path, ("X",))[0]["X"]
    assert matrix.dtype == np.float64
    assert np.array_equal(matrix, values)
    assert np.array_equal(scipy.io.loadmat(path)["X"], values)


def test_a_name_in_front_of_what_is_damaged_is_enough(tmp_path: Path) -> None:
    """Only what is wanted is inflated to its end."""
    path = tmp_path / "t.mat"
    scipy.io.savemat(
        path, {"other": np.random.default_rng(0).normal(size=(99, 99)), "X": np.eye(2)}, do_compression=True
    )
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert np.array_equal(read_matlab(path, ("X",))[0]["X"], np.eye(2))
    with pytest.raises(MatlabError, match="is broken: Error -3"):
        read_matlab(path, ("other",))


def tag(type_: int, data: bytes) -> bytes:
    return struct.pack("<II", type_, len(data)) + data + bytes(-len(data) % 8)


FLAGS, NAME = tag(6, struct.pack("<II", 6, 0)), tag(1, b"X")
SHAPE = tag(5, struct.pack("<ii", 2, 1))
VALUES = tag(9, bytes(16))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (tag(9, bytes(8)), "is broken: there is an element of type 9, expected a matrix"),
        (tag(14, FLAGS + SHAPE), "is broken: a matrix has no name"),
        (tag(14, FLAGS + SHAPE + VALUES), "is broken: a matrix has no name"),
        (tag(14, FLAGS + SHAPE + NAME), "is broken: X has no values"),
        (tag(14, FLAGS + SHAPE + NAME + tag(99, bytes(16))), "is broken: X has no values"),
        (tag(14, FLAGS + tag(5, bytes(6)) + NAME + VALUES), "is broken: X has no values"),
        (tag(14, FLAGS + SHAPE + NAME + tag(9, bytes(8))), "is broken: X has 8 bytes, and the shape (2, 1)"),
        (
            tag(14, FLAGS + tag(5, struct.pack("<ii", -2, -1)) + NAME + VALUES),
            "is broken: X has 16 bytes, and the shape (-2, -1)",
        ),
        (tag(14, FLAGS + tag(5, b"") + NAME + VALUES), "is broken: X has 16 bytes, and the shape ()"),
        (tag(14, tag(6, struct.pack("<II", 17, 0)) + SHAPE + NAME + VALUES), "X is an object, expected a full matrix"),
        (struct.pack("<II", 14, 1000) + bytes(100), "is cut short: 900 bytes of a matrix are missing"),
        (tag(14, FLAGS + SHAPE + NAME + VALUES) + b"abc", "is cut short"),
        (tag(15, b"nonsense"), "is broken: Error -3"),
        (
            tag(15, zlib.compress(tag(14, FLAGS + SHAPE + NAME + VALUES))[:-4]),
            "is cut short: a compressed matrix has no",
        ),
        (tag(15, zlib.compress(b"")), "is broken: a matrix has no name"),
        (tag(15, zlib.compress(2 * tag(14, FLAGS + SHAPE + NAME + VALUES))), "is broken: X has more than one matrix"),
    ],
)
def test_damage_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "t.mat"
    size = struct.unpack("<II", content[:8])[1]
    if struct.unpack("<I", content[:4])[0] == 15:
        content = content[: 8 + size]  # compressed data is not padded
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(HEADER_BYTES - 4) + b"\x00\x01IM" + content)
    with pytest.raises(MatlabError) as raised:
        read_matlab(path, ("X",))
    assert str(raised.value).startswith(said)
