"""The density's arrays are what the manifest says, and nothing of them is unpacked to find that out."""

import io
import random
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.density import check_density, most_bytes
from service.detector import Detector
from service.errors import StartError
from service.manifest import Mixture, read_manifest
from service.runtime import Runtime
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


def check(content: bytes, mixture: Mixture = SMALL) -> None:
    check_density(content, mixture, "mixture.npz")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: "-".join(folder.parts[-2:]))
def test_shipped_densities_are_taken(folder: Path) -> None:
    density, content = read_manifest(folder).density, (folder / "mixture.npz").read_bytes()
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
    tracemalloc.start()
    with pytest.raises(StartError, match=r"has {'weights': \(16777216,\)}, expected "):
        check(stream.getvalue())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * 2**20


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
