"""The density's arrays in a model folder: what is said of them is held against the manifest.

Those of a mixture are not read. Of a factorized density they are, for what it says of the examples is their score.
"""

import io
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from service.errors import StartError
from service.manifest import Factorized, Mixture

Array = NDArray[np.float64]

SPARE_BYTES = 4096
"""What a file may have for each array beside its values: names, headers, and zlib's own."""

MOST_BYTES_BEFORE_HEADER, MOST_HEADER_BYTES = 12, 1024

BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""How entries may be packed. Of other ways zipfile unpacks all there is, however little is asked for."""

MOST_AT_ONCE = 2**18
"""Numbers that the widest layer makes of the rows that go through it at once, 2 MiB; one row may have more."""

FLOAT64 = np.dtype("<f8")

SMALLEST, LARGEST = float(np.finfo(FLOAT64).tiny), float(np.finfo(FLOAT64).max)

RISING = {"matrices": (SMALLEST, LARGEST), "biases": (-LARGEST, LARGEST), "factors": (-1.0, 1.0)}
"""Between which bounds the values of a factorized density's arrays are, by the kind of array."""


LEAST_STEP = 1e-6
"""The least difference of the logarithms of c at the two ends of a box; far out, floating point numbers have none."""


def expected_shapes(density: Mixture | Factorized) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the arrays by their names.

    Of a mixture they are for S members, K components, D dimensions and C centres. Of a factorized density, for L
    dimensions and layers with I inputs and O outputs, they are ``matrices_i`` (L, O, I), ``biases_i`` (L, O) and, but
    for the last layer, ``factors_i`` (L, O).
    """
    if density.kind == "factorized":
        return _shapes_of_layers(density)
    k, d, members = density.components, density.dimensions, density.members
    shapes: dict[str, tuple[int, ...]] = {"weights": (k,), "means": (k, d), "covariances": (k, d, d)}
    voices = members + (density.centres > 0)
    if voices > 1:
        shapes = {name: (members, *shape) for name, shape in shapes.items()}
        shapes |= {"medians": (voices,), "ranges": (voices,)}
    if density.centres:
        shapes |= {"centres": (density.centres, d), "centre_variance": (1,)}
    return shapes


def _shapes_of_layers(density: Factorized) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (inputs, outputs) in enumerate(pairwise([1, *density.filters, 1])):
        shapes[f"matrices_{i}"] = (density.dimensions, outputs, inputs)
        shapes[f"biases_{i}"] = (density.dimensions, outputs)
        if i < len(density.filters):
            shapes[f"factors_{i}"] = (density.dimensions, outputs)
    return shapes


def most_bytes(density: Mixture | Factorized) -> int:
    """Returns the most bytes that the file of such a density has."""
    return sum(FLOAT64.itemsize * _size(shape) + SPARE_BYTES for shape in expected_shapes(density).values())


def check_density(content: bytes, density: Mixture | Factorized, path: object) -> None:
    """Checks that the density's arrays are what the manifest says; no more than their headers is unpacked.

    Raises:
        StartError: They can't be read, or have other names, types or shapes; the text names them.
    """
    expected = expected_shapes(density)
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
        ValueError: It is no array of float64, has more or fewer bytes, or is packed in another way than `BOUNDED`.
    """
    if entry.compress_type not in BOUNDED:
        raise ValueError(f"{entry.filename} is packed by ZIP's method {entry.compress_type}, expected 0 or 8")
    with archive.open(entry) as packed:
        stream = io.BytesIO(packed.read(MOST_BYTES_BEFORE_HEADER + MOST_HEADER_BYTES))  # numpy would read any length
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"{entry.filename} has version {version}")
    try:
        shape, _, dtype = read(stream, max_header_size=MOST_HEADER_BYTES)
    except (SyntaxError, TypeError, tokenize.TokenError) as error:  # numpy lets them pass
        raise ValueError(f"{entry.filename} has a header that can't be read ({error})") from error
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


class FactorizedDensity:
    r"""Creates a density of latents whose features are independent, each with a network for its distribution.

    .. math:: c = \sigma \circ f_K \circ \dots \circ f_1, \quad f_i(x) = g_i(H_i x + b_i),
        \quad g_i(x) = x + a_i \odot \tanh(x)

    without :math:`g_K`; H are the ``matrices``, b the ``biases``, a the ``factors``. The matrices are above 0 and the
    factors not below -1, so that c rises.

    References:
        Variational Image Compression with a Scale Hyperprior (Balle et al., 2018), appendix 6.1

    Arguments:
        arrays: Those of `expected_shapes`.

    Raises:
        ValueError: An array has a value that a rising c has not, or that is not finite; name, place and value are told.
    """

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        for name, array in arrays.items():
            lower, upper = RISING[name.partition("_")[0]]
            wrong = np.argwhere(~((array >= lower) & (array <= upper))).tolist()
            if wrong:
                value = array[tuple(wrong[0])]
                raise ValueError(f"{name}{wrong[0]} is {value}, expected a number from {lower:g} to {upper:g}")
        self._layers = [
            (arrays[f"matrices_{i}"], arrays[f"biases_{i}"], arrays.get(f"factors_{i}"))
            for i in range(sum(name.startswith("matrices_") for name in arrays))
        ]

    @classmethod
    def of(cls, content: bytes, density: Factorized, path: object) -> "FactorizedDensity":
        """Reads the file of a density, which `check_density` has let pass.

        Raises:
            StartError: An array is damaged, or has a value that none may have.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return cls({name: arrays[name] for name in expected_shapes(density)})
        except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
            raise StartError(f"{path}: {error}") from error

    def logits(self, z: Array) -> Array:
        """Returns the logits (N, L) of c at latents (N, L)."""
        y = z.T[:, None]
        for matrices, biases, factors in self._layers:
            y = matrices @ y + biases[..., None]
            if factors is not None:
                y = y + factors[..., None] * np.tanh(y)
        return y[:, 0].T

    def rate(self, z: Array) -> Array:
        r"""Returns what latents (N, L) cost, (N,), in nats: minus the logarithm of the density convolved with a box.

        .. math:: -\sum_i \log \left( c_i(z_i + 1/2) - c_i(z_i - 1/2) \right)

        Where 1 - c is the smaller one, its difference is taken, and of logarithms, so that nothing cancels in either
        tail. Rows go through in parts: what a wide network makes of many would fill the memory.
        """
        widest = max(biases.size for _, biases, _ in self._layers)
        rows = max(1, MOST_AT_ONCE // widest)
        return np.concatenate([self._rate_of_few(z[start : start + rows]) for start in range(0, len(z) or 1, rows)])

    def _rate_of_few(self, z: Array) -> Array:
        upper, lower = self.logits(z + 0.5), self.logits(z - 0.5)
        left = upper < -lower
        larger = -np.logaddexp(0, -np.where(left, upper, -lower))
        smaller = -np.logaddexp(0, -np.where(left, lower, -upper))
        boxes = larger + np.log(-np.expm1(-np.maximum(larger - smaller, LEAST_STEP)))
        rate: Array = -boxes.sum(axis=1)
        return rate


def check_scores(
    content: bytes, density: Factorized, path: object, rows: Mapping[str, Array], tolerance: float
) -> None:
    """Checks that a density gives the score of examples, ``rate(z) + distortion_weight |x - x_hat|^2``.

    Arguments:
        content: The file of the density, which `check_density` has let pass.
        density: What the manifest says of it.
        path: What the file is called.
        rows: ``x`` (N, M), ``z`` (N, L), ``x_hat`` (N, M) and ``score`` (N,).
        tolerance: How far it may be off, relative to 1 or the score's size.

    Raises:
        StartError: As `FactorizedDensity.of`, or a score is another one.
    """
    of_file = FactorizedDensity.of(content, density, path)
    with np.errstate(over="ignore", invalid="ignore"):  # such a score is refused below
        distortion = np.square(rows["x"] - rows["x_hat"]).sum(axis=1)
        scores = of_file.rate(rows["z"]) + density.distortion_weight * distortion
    off = ~(np.abs(scores - rows["score"]) <= tolerance * np.maximum(1, np.abs(rows["score"])))
    if off.any():
        i = int(np.argmax(off))
        raise StartError(f"{path}: score[{i}] is {scores[i]} by the density, the examples have {rows['score'][i]}")
