"""Tensors as the protocol writes them: numbers in JSON, flat or row by row, or bytes behind the JSON."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidField, InvalidValue
from service.formats.rows import TOO_LARGE, as_float32, refuse_value
from service.graphs import Matrix
from service.quotes import describe

DATATYPES: dict[str, np.dtype[Any]] = {
    **{f"FP{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
    **{f"INT{8 * size}": np.dtype(f"<i{size}") for size in (1, 2, 4, 8)},
    **{f"UINT{8 * size}": np.dtype(f"<u{size}") for size in (1, 2, 4, 8)},
}
"""What numbers may come as."""

WRITTEN: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"), "BOOL": np.dtype("?")}
"""What results are written as."""

Shape = tuple[int, int]


def from_bytes(name: str, datatype: str, shape: Shape, content: memoryview) -> Matrix:
    """Returns the rows in a tensor's bytes, of which there are as many as its shape needs.

    Raises:
        InvalidValue: A value is not finite, or too large for a float32.
    """
    values: NDArray[Any] = np.frombuffer(content, dtype=DATATYPES[datatype]).reshape(shape)
    if not values.flags.aligned:  # they begin wherever the JSON happens to end
        values = values.copy()
    return as_float32(values, name)


def from_numbers(name: str, datatype: str, shape: Shape, numbers: NDArray[np.float64]) -> Matrix:
    """Returns the rows in a tensor's numbers, which come flat or as a matrix.

    Raises:
        InvalidField: There are more or fewer than its shape says.
        InvalidValue: A value is not what the datatype has, or too large for a float32.
    """
    if numbers.ndim == 1:
        _check_count(name, len(numbers), shape)
        numbers = numbers.reshape(shape)
    else:
        _check_rows(name, len(numbers), shape)
        _check_row(name, 0, numbers.shape[1], shape)
    _check_integers(name, datatype, numbers)
    return as_float32(numbers, name)


def from_values(name: str, datatype: str, shape: Shape, data: list[Any]) -> Matrix:
    """Returns the rows in a tensor's data, looking at every value.

    Raises:
        InvalidField: There are more or fewer than its shape says, or something is not a row.
        InvalidValue: A value is not a number, not what the datatype has, or too large for a float32.
    """
    width = shape[1]
    if data and isinstance(data[0], list):
        _check_rows(name, len(data), shape)
        for i, row in enumerate(data):
            if not isinstance(row, list):
                raise InvalidField(f"{name}[{i}]", f"is {describe(row)}", f"a list of {width} numbers, as the first is")
            _check_row(name, i, len(row), shape)
        flat = [value for row in data for value in row]
    else:
        _check_count(name, len(data), shape)
        flat = data
    for i, value in enumerate(flat):
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < TOO_LARGE:
            refuse_value(name, i // width, i % width, value)
    return from_numbers(name, datatype, shape, np.array(flat, dtype=np.float64))


def _check_count(name: str, count: int, shape: Shape) -> None:
    if count != shape[0] * shape[1]:
        expected = f"{shape[0] * shape[1]} by its shape {[*shape]}"
        raise InvalidField(f"{name}.data", f"has {count} values", expected)


def _check_rows(name: str, count: int, shape: Shape) -> None:
    if count != shape[0]:
        raise InvalidField(f"{name}.data", f"has {count} rows", f"{shape[0]} by its shape {[*shape]}")


def _check_row(name: str, row: int, count: int, shape: Shape) -> None:
    if count != shape[1]:
        raise InvalidField(f"{name}[{row}]", f"has {count} values", f"{shape[1]} by its shape {[*shape]}")


def _check_integers(name: str, datatype: str, numbers: NDArray[np.float64]) -> None:
    dtype = DATATYPES[datatype]
    if dtype.kind == "f":
        return
    limits = np.iinfo(dtype)
    fits = (numbers == np.trunc(numbers)) & (numbers >= float(limits.min)) & (numbers < float(int(limits.max) + 1))
    if not fits.all():
        row, column = (int(i) for i in np.argwhere(~fits)[0])
        value = describe(numbers[row, column].item())
        raise InvalidValue(f"{name}[{row}][{column}]", f"is {value}", f"an integer that fits {datatype}")
