"""Full matrices of numbers in MATLAB's files of version 5 to 7.

SciPy reads more, but a damaged file can end the process in it. Here nothing is trusted: whatever a file says of sizes
is held against the bytes that there are.

References:
    MAT-File Format (The MathWorks), chapter 1, level 5
"""

import zlib
from collections.abc import Container, Iterator
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Matrix = np.ndarray[Any, Any]

HEADER_BYTES = 128
HDF5 = b"\x89HDF\r\n"
HDF5_AT = 512
"""Where HDF5 begins, in a file of version 7.3."""

TAG_BYTES = 8
NAMED_WITHIN = 4096
"""Bytes of a compressed matrix within which its name has to stand."""

MATRIX, COMPRESSED = 14, 15
INT8, INT32, UINT32 = 1, 5, 6

STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", INT32: "i4", UINT32: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""How numbers are stored; a matrix may be stored in a smaller type than its own."""

CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
OTHER_CLASSES = {1: "a cell array", 2: "a structure", 3: "an object", 4: "text", 5: "sparse", 16: "a function"}

LOGICAL, COMPLEX = 0x0200, 0x0800


class MatlabError(Exception):
    """A file is no MATLAB file that can be read; the text says why, and doesn't name it."""


class Element(NamedTuple):
    """A piece of a file.

    Attributes:
        type: What is stored.
        data: Its bytes.
    """

    type: int
    data: memoryview


def read_matlab(path: Path, wanted: Container[str]) -> tuple[dict[str, Matrix], list[str]]:
    """Reads matrices, and the names of all that is in a file.

    Arguments:
        path: The file.
        wanted: The names of those to read.

    Returns:
        The matrices, by name, in column-major order as they are stored; and all names.

    Raises:
        MatlabError: The file is of another kind or version, is broken, or something that is wanted is no full matrix of
            real numbers.
    """
    content = memoryview(path.read_bytes())
    if not content:
        raise MatlabError("is empty")
    if content[:6] == HDF5 or content[HDF5_AT : HDF5_AT + 6] == HDF5:
        raise MatlabError("is MATLAB 7.3 (HDF5), expected version 5 to 7: save it with -v7")
    order = {b"IM": "<", b"MI": ">"}.get(bytes(content[126:HEADER_BYTES]))
    if bytes(content[:6]) != b"MATLAB" or order is None:
        raise MatlabError("is no MATLAB file of version 5 to 7")
    matrices: dict[str, Matrix] = {}
    names: list[str] = []
    for element in _elements(content[HEADER_BYTES:], order):
        if element.type == COMPRESSED:
            name = _name(_inflated(element.data, NAMED_WITHIN)[TAG_BYTES:], order)
        elif element.type == MATRIX:
            name = _name(element.data, order)
        else:
            raise MatlabError(f"is broken: there is an element of type {element.type}, expected a matrix")
        if not name:  # what functions and objects leave behind
            continue
        names.append(name)
        if name in wanted:
            data = element.data
            if element.type == COMPRESSED:
                inflated = list(_elements(_inflated(data), order))
                if len(inflated) != 1:
                    raise MatlabError(f"is broken: {name} has more than one matrix")
                data = inflated[0].data
            matrices[name] = _matrix(name, list(_elements(data, order)), order)
    return matrices, names


def _elements(content: memoryview, order: str) -> Iterator[Element]:
    """Divides bytes into elements."""
    start = 0
    while start < len(content):
        if len(content) - start < TAG_BYTES:
            raise MatlabError("is cut short")
        first, size = (int(word) for word in np.frombuffer(content[start : start + TAG_BYTES], f"{order}u4"))
        if small := first >> 16:  # four bytes at most, inside the tag
            yield Element(first & 0xFFFF, content[start + 4 : start + 4 + min(small, 4)])
            start += TAG_BYTES
            continue
        start += TAG_BYTES
        if size > len(content) - start:
            raise MatlabError(f"is cut short: {size - len(content) + start} bytes of a matrix are missing")
        yield Element(first, content[start : start + size])
        start += size if first == COMPRESSED else -(-size // 8) * 8


def _inflated(data: memoryview, most: int = 0) -> memoryview:
    """Inflates data, all of it or some bytes of its beginning."""
    stream = zlib.decompressobj()
    try:
        inflated = stream.decompress(data, most)
    except zlib.error as error:
        raise MatlabError(f"is broken: {error}") from error
    if not most and not stream.eof:
        raise MatlabError("is cut short: a compressed matrix has no end")
    return memoryview(inflated)


def _name(data: memoryview, order: str) -> str:
    """Returns a matrix's name, of which the beginning is enough."""
    parts = _elements(data, order)
    try:
        flags, dimensions, name = next(parts), next(parts), next(parts)
    except StopIteration:
        raise MatlabError("is broken: a matrix has no name") from None
    if (flags.type, dimensions.type, name.type) != (UINT32, INT32, INT8):
        raise MatlabError("is broken: a matrix has no name")
    return bytes(name.data).decode("latin-1")


def _matrix(name: str, parts: list[Element], order: str) -> Matrix:
    flags = int(np.frombuffer(parts[0].data[:4].tobytes().ljust(4, b"\0"), f"{order}u4")[0])
    kind = flags & 0xFF
    if kind not in CLASSES:
        is_what = OTHER_CLASSES.get(kind, "an object")
        raise MatlabError(f"{name} is {is_what}, expected a full matrix of numbers")
    if flags & COMPLEX:
        raise MatlabError(f"{name} has complex numbers, expected real ones")
    if len(parts) < 4 or parts[3].type not in STORED or len(parts[1].data) % 4:
        raise MatlabError(f"is broken: {name} has no values")
    shape = tuple(int(size) for size in np.frombuffer(parts[1].data, f"{order}i4"))
    stored = np.dtype(f"{order}{STORED[parts[3].type]}")
    if min(shape, default=-1) < 0 or prod(shape) * stored.itemsize != len(parts[3].data):
        raise MatlabError(f"is broken: {name} has {len(parts[3].data)} bytes, and the shape {shape}")
    values = np.frombuffer(parts[3].data, stored).reshape(shape, order="F")
    return values.astype(np.bool_ if flags & LOGICAL else CLASSES[kind], order="K", copy=False)
