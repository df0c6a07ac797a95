"""The density's arrays are what the manifest says, which their headers tell; and the rate of a factorized density."""

import io
import math
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.density import FactorizedDensity, check_density, expected_shapes, most_bytes
from service.detector import Detector
from service.errors import StartError
from service.manifest import Factorized, Mixture, read_manifest
from service.runtime import Runtime
from tests.bounds import within
from tests.server import MODELS
from tests.service.test_detector import replace

FOLDERS = sorted(MODELS.glob("*/*"))
SMALL = Mixture(file="mixture.npz", sha256="0" * 64, kind="gaussian_mixture", members=1, components=2, dimensions=3)
ARRAYS = {"weights": np.ones(2), "means": np.ones((2, 3)), "covariances": np.ones((2, 3, 3))}


def npz(arrays: dict[str, NDArray[Any]], save: Callable[..., None] = np.savez) -> bytes:
    stream = io.BytesIO()
    save(stream, **arrays)
    return stream.getvalue()


def zipped(**entries: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.npy", content)
    return stream.getvalue()


def npy(array: NDArray[Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def header(shape: tuple[int, ...], descr: str = "<f8", version: tuple[int, int] = (1, 0)) -> bytes:
    stream = io.BytesIO()
    write = np.lib.format.write_array_header_1_0 if version == (1, 0) else np.lib.format.write_array_header_2_0
    write(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def spoiled(text: bytes) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def check(content: bytes, density: Mixture | Factorized = SMALL) -> None:
    check_density(content, density, "mixture.npz")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: "-".join(folder.parts[-2:]))
def test_shipped_densities_are_taken(folder: Path) -> None:
    density = read_manifest(folder).density
    content = (folder / density.file).read_bytes()
    check(content, density)
    assert len(content) <= most_bytes(density)


def test_centres_are_as_one_more_member() -> None:
    one = {name: array[None] for name, array in ARRAYS.items()}
    arrays = one | {
        "medians": np.ones(2),
        "ranges": np.ones(2),
        "centres": np.ones((4, 3)),
        "centre_variance": np.ones(1),
    }
    coded = SMALL.model_copy(update={"centres": 4})
    check(npz(arrays), coded)
    for wrong in (arrays | {"medians": np.ones(1)}, arrays | {"centres": np.ones((4, 2))}, one):
        with pytest.raises(StartError, match="expected .*'centres': \\(4, 3\\)"):
            check(npz(wrong), coded)
    with pytest.raises(StartError, match="'centres'"):
        check(npz(arrays))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_may_be_compressed(save: Callable[..., None]) -> None:
    check(npz(ARRAYS, save))


def test_the_second_version_of_numpys_header_is_read() -> None:
    arrays = {name: header(array.shape, version=(2, 0)) + array.tobytes() for name, array in ARRAYS.items()}
    check(zipped(**arrays))


WRONG = [
    (b"junk", "is no file of numpy arrays"),
    (b"", "is no file of numpy arrays"),
    (npz({"weights": np.ones(2)}), r"has {'weights': \(2,\)}, expected {'weights': \(2,\), 'means': "),
    (npz(ARRAYS | {"more": np.ones(1)}), r"has {.*'more': \(\)}, expected "),
    (npz({**ARRAYS, "weights": np.ones(3)}), r"has {'weights': \(3,\).*, expected {'weights': \(2,\)"),
    (npz({**ARRAYS, "weights": np.ones(2, np.float32)}), "weights.npy holds float32, expected float64"),
    (npz({**ARRAYS, "weights": np.array([{}, {}])}), "weights.npy holds object, expected float64"),
    (zipped(weights=b"no array"), "is no file of numpy arrays .*magic string"),
    (zipped(weights=b"\x93NUMPY\x03\x00"), r"weights.npy has version \(3, 0\)"),
    (zipped(weights=b"\x93NUMPY\x01\x00\xff\xff" + b" " * 65535), "is no file of numpy arrays .*[Hh]eader"),
    (zipped(weights=spoiled(b"(" * 100)), r"weights.npy has a header that can't be read .*EOF"),
    (zipped(weights=spoiled(b"  x\n y\n  z")), r"weights.npy has a header that can't be read .unindent"),
    (zipped(weights=spoiled(b"{1: 2, 'a': 3}")), r"weights.npy has a header that can't be read .*not supported"),
    (zipped(weights=header((2,)) + bytes(15)), r"weights.npy has 143 bytes for the shape \(2,\)"),
    (zipped(weights=header((2,)) + bytes(17)), r"weights.npy has 145 bytes for the shape \(2,\)"),
    (zipped(weights=header((-2, -1)) + bytes(16)), r"weights.npy has 144 bytes for the shape \(-2, -1\)"),
    (zipped(weights=header((10**12,))), r"weights.npy has 128 bytes for the shape \(1000000000000,\)"),
]


@pytest.mark.parametrize(("content", "message"), WRONG, ids=range(len(WRONG)))
def test_what_is_not_the_manifests_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(StartError, match=f"mixture.npz: .*{message}"):
        check(content)


def test_a_name_that_is_there_twice() -> None:
    stream = io.BytesIO(npz(ARRAYS))
    with zipfile.ZipFile(stream, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("weights.npy", npy(ARRAYS["weights"]))
    with pytest.raises(StartError, match="has a name twice"):
        check(stream.getvalue())


def test_what_would_inflate_to_gigabytes_is_not_inflated() -> None:
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open("weights.npy", "w") as entry,
    ):
        entry.write(header((2**24,)))
        for _ in range(128):
            entry.write(bytes(2**20))
    assert len(stream.getvalue()) < 200_000
    with within(megabytes=2), pytest.raises(StartError, match=r"has {'weights': \(16777216,\)}, expected "):
        check(stream.getvalue())


def test_a_header_that_claims_to_be_long_is_not_inflated() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(2**24))
    with within(megabytes=2), pytest.raises(StartError, match="is no file of numpy arrays .*array header"):
        check(stream.getvalue())


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_zipfile_would_unpack_without_a_bound_is_not_unpacked(method: int) -> None:
    """Of 16 MiB of zeros bzip2 leaves 50 bytes; LZMA has an error of its own for what is damaged."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr("weights.npy", bytes(2**24))
    with (
        within(megabytes=2),
        pytest.raises(StartError, match=rf"weights.npy is packed by ZIP's method {method}, expected 0 or 8"),
    ):
        check(stream.getvalue())


def test_a_file_of_the_folder_is_checked(folder: Path) -> None:
    replace(folder, ("density",), npz({"weights": np.ones(2)}))
    with pytest.raises(StartError, match=f"{folder}/mixture.npz: has {{'weights'"):
        Detector.load(folder, Runtime("cpu"))


def test_no_bytes_bring_the_check_to_another_end() -> None:
    generator = random.Random(0)
    for content in (npz(ARRAYS), npz(ARRAYS, np.savez_compressed)):
        for _ in range(1000):
            changed = bytearray(content)
            for _ in range(generator.randint(1, 4)):
                changed[generator.randrange(len(changed))] = generator.randrange(256)
            try:
                check(bytes(changed[: generator.choice([len(changed), generator.randint(0, len(changed))])]))
            except StartError:
                continue


LAYERED = Factorized(
    file="factorized.npz", sha256="0" * 64, kind="factorized", dimensions=3, filters=[3, 2], distortion_weight=1.0
)


def layers(seed: int = 0) -> dict[str, NDArray[np.float64]]:
    """Draws a density's arrays."""
    draw = np.random.default_rng(seed)
    low = {"matrices": 0.1, "biases": -1.0, "factors": -0.9}
    return {name: draw.uniform(low[name[:-2]], 0.9, shape) for name, shape in expected_shapes(LAYERED).items()}


def cumulative(arrays: dict[str, NDArray[np.float64]], dimension: int, z: float) -> float:
    """The distribution function of one latent feature, written a second way: number by number."""
    values = [z]
    for i in range(3):
        matrix, bias = arrays[f"matrices_{i}"][dimension], arrays[f"biases_{i}"][dimension]
        values = [sum(h * v for h, v in zip(row, values, strict=True)) + b for row, b in zip(matrix, bias, strict=True)]
        if i < 2:
            values = [v + a * math.tanh(v) for v, a in zip(values, arrays[f"factors_{i}"][dimension], strict=True)]
    return 1 / (1 + math.exp(-values[0]))


def test_a_factorized_densitys_arrays_are_checked() -> None:
    check(npz(layers()), LAYERED)
    assert len(npz(layers())) <= most_bytes(LAYERED)
    for wrong in (layers() | {"factors_2": np.zeros((3, 1))}, layers() | {"biases_1": np.zeros((3, 3))}, ARRAYS):
        with pytest.raises(StartError, match=r"expected {'matrices_0': \(3, 3, 1\), 'biases_0': \(3, 3\), 'factors_0'"):
            check(npz(wrong), LAYERED)


def test_a_rate_is_that_of_the_distribution_functions() -> None:
    arrays, z = layers(), np.random.default_rng(1).normal(scale=3, size=(20, 3))
    density = FactorizedDensity.of(npz(arrays), LAYERED, "factorized.npz")
    boxes = [[cumulative(arrays, i, v + 0.5) - cumulative(arrays, i, v - 0.5) for i, v in enumerate(row)] for row in z]
    assert density.rate(z) == pytest.approx(-np.log(boxes).sum(axis=1), rel=1e-9)


def test_boxes_tile_the_line() -> None:
    z = np.tile(np.arange(-400.0, 401.0)[:, None], 3)
    density = FactorizedDensity(layers())
    one = {name: array[:1] for name, array in layers().items()}
    assert np.exp(-FactorizedDensity(one).rate(z[:, :1])).sum() == pytest.approx(1, abs=1e-12)
    assert density.logits(z).shape == z.shape


def test_wide_networks_take_little_memory_for_many_rows() -> None:
    wide = LAYERED.model_copy(update={"filters": [256]})
    density = FactorizedDensity({name: np.full(shape, 0.1) for name, shape in expected_shapes(wide).items()})
    z = np.random.default_rng(0).normal(size=(5000, 3))
    with within(megabytes=16):  # a layer makes 30 of all rows
        rates = density.rate(z)
    assert rates == pytest.approx(np.concatenate([density.rate(row[None]) for row in z]), rel=1e-12)
    assert density.rate(z[:0]).shape == (0,)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_in_both_tails_a_rate_rises_as_a_logistics_does(sign: float) -> None:
    """There -log of a box is |u| - log(2 sinh(slope / 2)), and no float64 holds the box itself."""
    density = FactorizedDensity({"matrices_0": np.full((1, 1, 1), 0.7), "biases_0": np.array([[0.2]])})
    z = np.array([[10.0], [100.0], [1e4], [1e6]])
    expected = 0.7 * z[:, 0] + sign * 0.2 - math.log(2 * math.sinh(0.35))
    found = density.rate(sign * z)
    assert found == pytest.approx(expected, rel=2e-3)
    assert found[1:] == pytest.approx(expected[1:], rel=1e-9)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_where_numbers_end_a_rate_is_finite_and_rises(sign: float) -> None:
    """At 1e30 both ends of a box are the same number."""
    rates = FactorizedDensity(layers()).rate(sign * np.array([[1e3] * 3, [1e15] * 3, [1e30] * 3, [1e38] * 3]))
    assert np.isfinite(rates).all()
    assert (np.diff(rates) > 0).all()


@pytest.mark.parametrize(
    ("name", "value"), [("factors_0", 1.1), ("factors_1", -1.1), ("matrices_2", 0.0), ("biases_1", -np.inf)]
)
def test_a_distribution_function_that_does_not_rise_is_refused(name: str, value: float) -> None:
    arrays = layers()
    arrays[name].flat[0] = value
    with pytest.raises(StartError, match=rf"factorized.npz: {name}\[0, 0(, 0)?\] is {value}, expected a number from"):
        FactorizedDensity.of(npz(arrays), LAYERED, "factorized.npz")
