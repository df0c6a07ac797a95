"""CelebA's faces: the first 10,000 in half size, or the whole archive. Not to be passed on, nor models of them."""

import hashlib
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from training.datasets.files import DatasetFileError, RemoteFile, cache_folder, find_problem

Pixels = NDArray[np.uint8]

SOURCE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
"""Where CelebA is published, for research that is not commercial."""

SUBSET = RemoteFile(
    path="faces/celeba_000001-010000_89x109_jpeg.zip",
    url=SOURCE,
    sha256="0bc94fda181b8c09e82092b0bd825d6d03afda765a4fe47298152cba3ccdd091",
    size=28622932,
)
"""The images 000001 to 010000 in half size, 89 x 109."""

ARCHIVE = "faces/img_align_celeba.zip"

ARCHIVE_MD5 = "00d2c5bc6d35e252742224ab0c1e8fcb"
"""The digest of the whole archive, the only one that is published (as in torchvision's loader)."""

CROPS = {(89, 109): (0, 10, 89, 99), (178, 218): (0, 20, 178, 198)}
"""The square of the face, as the authors cut it, by an image's width and height."""

LARGEST_SIZE = 64

PARTS = {10_000: 9_000, 202_599: 162_770}
"""How many images, from the first one, are for training, as the archive's own list of parts has it; the rest is tested,
of the archive its validation part, too."""


@dataclass(frozen=True)
class Faces:
    """Images of faces.

    Attributes:
        name: A name for tables and lines.
        train: Images of the training part (N, 3, size, size), 0 to 255.
        test: Images of the test part (N, 3, size, size).
    """

    name: str
    train: Pixels
    test: Pixels


def faces(size: int = LARGEST_SIZE, cache: Path | None = None, report: Callable[[int], None] | None = None) -> Faces:
    """Loads CelebA: its first 10,000 images, 9,000 for training, or all 202,599 if the cache holds the archive alone.

    All images stay in memory as bytes: 120 MB at 64 x 64, or 2.5 GB of the whole archive.

    Arguments:
        size: The height and width of the images, at most 64.
        cache: The cache folder; the default one unless given.
        report: Told now and then how many images are read.

    Raises:
        DatasetFileError: There is neither file, or it can't be read, is cut short, altered, or holds something else.
        ValueError: The size is not from 1 to 64.
    """
    if not 1 <= size <= LARGEST_SIZE:
        raise ValueError(f"size is {size}, expected 1 to {LARGEST_SIZE}")
    folder = cache or cache_folder()
    subset, archive = folder / SUBSET.path, folder / ARCHIVE
    if subset.exists():
        try:
            problem = find_problem(SUBSET, subset)
        except OSError as error:
            raise DatasetFileError(f"{subset} can't be read ({error.strerror})") from error
        if problem:
            raise DatasetFileError(f"{subset} {problem}. Put the right file there.")
        return divided("celeba-10000", read_archive(subset, size, report))
    if archive.exists():
        return celeba(size, folder, report)
    raise DatasetFileError(
        f"{subset} is missing, and so is {archive}. CelebA is not downloaded, for its terms are to be agreed to:"
        f" get img_align_celeba.zip from {SOURCE} and put it at {archive}."
    )


def celeba(size: int = LARGEST_SIZE, cache: Path | None = None, report: Callable[[int], None] | None = None) -> Faces:
    """Loads all 202,599 images of CelebA from `img_align_celeba.zip`, 162,770 for training.

    Arguments:
        size: The height and width of the images, at most 64.
        cache: The cache folder; the default one unless given.
        report: Told now and then how many images are read.

    Raises:
        DatasetFileError: The archive is missing, can't be read, is cut short or altered, or holds something else.
    """
    path = (cache or cache_folder()) / ARCHIVE
    if not path.exists():
        raise DatasetFileError(f"{path} is missing. Get img_align_celeba.zip from {SOURCE} and put it there.")
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "md5").hexdigest()
    except OSError as error:
        raise DatasetFileError(f"{path} can't be read ({error.strerror})") from error
    if digest != ARCHIVE_MD5:
        raise DatasetFileError(
            f"{path} is not the published file: its md5 is {digest}, expected {ARCHIVE_MD5}. Delete it and get it anew."
        )
    return divided("celeba", read_archive(path, size, report))


def divided(name: str, pixels: Pixels) -> Faces:
    """Cuts images (N, 3, size, size) into their parts, as views."""
    train = PARTS.get(len(pixels), len(pixels) * 9 // 10)
    return Faces(name, pixels[:train], pixels[train:])


def read_archive(path: Path, size: int, report: Callable[[int], None] | None = None) -> Pixels:
    """Reads all JPEG images of a ZIP archive in the order of their names, one at a time.

    Arguments:
        path: The archive.
        size: The height and width that the squares of the faces are brought to.
        report: Told now and then how many images are read.

    Returns:
        Images of shape (N, 3, size, size).

    Raises:
        DatasetFileError: It is no ZIP archive, has no JPEG image, or one is damaged or of another size; it is named.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
            if not names:
                raise DatasetFileError(f"{path} holds no .jpg image")
            pixels = np.empty((len(names), 3, size, size), dtype=np.uint8)
            for index, name in enumerate(names):
                pixels[index] = read_face(archive.read(name), size, f"{name} in {path}")
                if report and (index + 1) % 1000 == 0:
                    report(index + 1)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, OSError) as error:
        raise DatasetFileError(f"{path} is no ZIP archive, or damaged ({error})") from error
    return pixels


def read_face(content: bytes, size: int, where: str) -> Pixels:
    """Returns the square of the face in a JPEG image, as pixels (3, size, size).

    Raises:
        DatasetFileError: The image is damaged, or neither 89 x 109 nor 178 x 218.
    """
    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as image:
            crop = CROPS.get(image.size)
            if crop is None:
                expected = " or ".join(f"{width} x {height}" for width, height in CROPS)
                raise DatasetFileError(f"{where} is of {image.width} x {image.height} pixels, expected {expected}")
            face = image.convert("RGB").crop(crop).resize((size, size), Image.Resampling.BILINEAR)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError) as error:
        raise DatasetFileError(f"{where} is no JPEG image, or damaged ({error})") from error
    return np.asarray(face, dtype=np.uint8).transpose(2, 0, 1)
