"""The density's arrays in a model folder: what is said of them is held against the manifest, and they are not read."""

import io
import zipfile
import zlib

import numpy as np

from service.errors import StartError
from service.manifest import Mixture

SPARE_BYTES = 4096
"""What a file may have for each array beside its values: names, headers, and zlib's own."""

MOST_HEADER_BYTES = 1024

FLOAT64 = np.dtype("<f8")


def expected_shapes(mixture: Mixture) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the arrays by their names; S members, K components, D dimensions, C centres."""
    k, d, members = mixture.components, mixture.dimensions, mixture.members
    shapes: dict[str, tuple[int, ...]] = {"weights": (k,), "means": (k, d), "covariances": (k, d, d)}
    voices = members + (mixture.centres > 0)
    if voices > 1:
        shapes = {name: (members, *shape) for name, shape in shapes.items()}
        shapes |= {"medians": (voices,), "ranges": (voices,)}
    if mixture.centres:
        shapes |= {"centres": (mixture.centres, d), "centre_variance": (1,)}
    return shapes


def most_bytes(mixture: Mixture) -> int:
    """Returns the most bytes that the file of such a density has."""
    return sum(FLOAT64.itemsize * _size(shape) + SPARE_BYTES for shape in expected_shapes(mixture).values())


def check_density(content: bytes, mixture: Mixture, path: object) -> None:
    """Checks that the density's arrays are what the manifest says; no more than their headers is unpacked.

    Raises:
        StartError: They can't be read, or have other names, types or shapes; the text names them.
    """
    expected = expected_shapes(mixture)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            if len(entries) != len(archive.infolist()):
                raise StartError(f"{path}: has a name twice, expected {', '.join(expected)}")
            found = {name: _shape_of(archive, entry) for name, entry in entries.items() if name in expected}
            found |= {name: () for name in entries if name not in expected}
    except (ValueError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise StartError(f"{path}: is no file of numpy arrays ({error})") from error
    if found != expected:
        raise StartError(f"{path}: has {found}, expected {expected} by the manifest")


def _shape_of(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[int, ...]:
    """Returns an array's shape by its header, once its file has as many bytes as that takes.

    Raises:
        ValueError: It is no array of float64, or has more or fewer bytes.
    """
    with archive.open(entry) as stream:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read is None:
            raise ValueError(f"{entry.filename} has version {version}")
        shape, _, dtype = read(stream, max_header_size=MOST_HEADER_BYTES)
        header = stream.tell()
    if dtype != FLOAT64:
        raise ValueError(f"{entry.filename} holds {dtype}, expected {FLOAT64}")
    if any(size < 0 for size in shape) or entry.file_size != header + _size(shape) * FLOAT64.itemsize:
        raise ValueError(f"{entry.filename} has {entry.file_size} bytes for the shape {shape}")
    return tuple(shape)


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
