"""The faces' loader on archives of drawn images: crops, parts, and every way in which a file can be wrong."""

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.datasets import faces as module
from training.datasets.faces import ARCHIVE, SUBSET, celeba, faces, read_archive, read_face
from training.datasets.files import DatasetFileError, RemoteFile


def jpeg(width: int = 89, height: int = 109, seed: int = 0) -> bytes:
    """A smooth image whose colours tell where in it a pixel lies."""
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([255 * rows / height, 255 * columns / width, np.full(rows.shape, 10 * seed)], axis=-1)
    stream = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def enlarged(content: bytes) -> bytes:
    """An image whose header claims 65,535 x 65,535 pixels."""
    size = content.index(b"\xff\xc0") + 5
    return content[:size] + b"\xff" * 4 + content[size + 4 :]


def archive(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", method) as written:
        for name, content in members.items():
            written.writestr(name, content)
    return path


def published(path: Path) -> RemoteFile:
    content = path.read_bytes()
    return RemoteFile(SUBSET.path, SUBSET.url, hashlib.sha256(content).hexdigest(), len(content))


@pytest.mark.parametrize(("width", "height"), [(89, 109), (178, 218)])
def test_the_square_of_the_face_is_cut_out(width: int, height: int) -> None:
    face = read_face(jpeg(width, height), 64, "an image").astype(float)
    assert face.shape == (3, 64, 64)
    # from 10/109 of the height to 99/109, and all of the width
    down, across = face[0].mean(axis=1), face[1].mean(axis=0)
    assert down[0] == pytest.approx(255 * 10 / 109, abs=3)
    assert down[-1] == pytest.approx(255 * 98 / 109, abs=3)
    assert across[0] == pytest.approx(0, abs=3)
    assert across[-1] == pytest.approx(255 * 88 / 89, abs=4)


def test_both_sizes_give_the_same_face() -> None:
    small, large = (read_face(jpeg(*size), 32, "").astype(float) for size in ((89, 109), (178, 218)))
    assert np.abs(small - large).max() < 5


def test_it_is_the_authors_crop() -> None:
    content = jpeg()
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(image.crop((0, 10, 89, 99)).resize((64, 64), Image.Resampling.BILINEAR))
    assert np.array_equal(read_face(content, 64, ""), expected.transpose(2, 0, 1))


def test_images_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    members = {f"img_align_celeba/{index:06}.jpg": jpeg(seed=index) for index in (3, 1, 2)}
    pixels = read_archive(archive(tmp_path / "a.zip", {**members, "img_align_celeba/": b"", "readme.txt": b""}), 8)
    assert pixels.shape == (3, 3, 8, 8)
    assert pixels[:, 2].mean(axis=(1, 2)) == pytest.approx([10, 20, 30], abs=2)


def test_the_subset_is_checked_and_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {f"{index:06}.jpg": jpeg(seed=index) for index in range(1, 11)}
    monkeypatch.setattr(module, "SUBSET", published(archive(tmp_path / SUBSET.path, members)))
    found = faces(16, tmp_path)
    assert found.train.shape == (9, 3, 16, 16)
    assert found.test.shape == (1, 3, 16, 16)
    assert found.train.dtype == np.uint8


def test_the_archive_stands_in_for_the_subset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {f"img_align_celeba/{index:06}.jpg": jpeg(178, 218, index) for index in range(1, 11)}
    path, seen = archive(tmp_path / ARCHIVE, members), list[int]()
    monkeypatch.setattr(module, "ARCHIVE_MD5", hashlib.md5(path.read_bytes()).hexdigest())  # noqa: S324
    assert faces(8, tmp_path).train.shape == (9, 3, 8, 8)
    assert celeba(8, tmp_path, seen.append).name == "celeba"
    assert seen == []  # told once in a thousand


def test_parts_are_the_published_ones() -> None:
    def sizes(images: int) -> tuple[int, int]:
        found = module.divided("", np.empty((images, 0), dtype=np.uint8))
        return len(found.train), len(found.test)

    assert sizes(10_000) == (9_000, 1_000)
    assert sizes(202_599) == (162_770, 39_829)


def test_neither_file(tmp_path: Path) -> None:
    with pytest.raises(DatasetFileError) as caught:
        faces(64, tmp_path)
    assert f"{tmp_path / SUBSET.path} is missing, and so is {tmp_path / ARCHIVE}" in str(caught.value)
    with pytest.raises(DatasetFileError, match="img_align_celeba.zip is missing. Get img_align_celeba.zip from https:"):
        celeba(64, tmp_path)


def test_a_subset_that_is_cut_or_altered(tmp_path: Path) -> None:
    path = archive(tmp_path / SUBSET.path, {"000001.jpg": jpeg()})
    with pytest.raises(DatasetFileError, match=f"is cut short: it has .* of {SUBSET.size} bytes. Put the right file"):
        faces(64, tmp_path)
    with path.open("ab") as stream:
        stream.truncate(SUBSET.size)
    with pytest.raises(DatasetFileError, match="is not the published file: its sha256 is .*, expected 0bc94fda"):
        faces(64, tmp_path)


def test_an_archive_that_is_altered(tmp_path: Path) -> None:
    archive(tmp_path / ARCHIVE, {"000001.jpg": jpeg()})
    with pytest.raises(DatasetFileError, match="its md5 is .*, expected 00d2c5bc6d35e252742224ab0c1e8fcb"):
        faces(64, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (jpeg(64, 64), "000001.jpg in .* is of 64 x 64 pixels, expected 89 x 109 or 178 x 218"),
        (b"no image", "000001.jpg in .* is no JPEG image, or damaged"),
        (jpeg()[:600], "000001.jpg in .* is no JPEG image, or damaged"),
        (enlarged(jpeg()), "000001.jpg in .* is no JPEG image, or damaged .*pixels"),
    ],
)
def test_an_image_that_is_none(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DatasetFileError, match=message):
        read_archive(archive(tmp_path / "a.zip", {"000001.jpg": content}), 8)


def test_an_archive_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"no archive")
    with pytest.raises(DatasetFileError, match="a.zip is no ZIP archive, or damaged"):
        read_archive(tmp_path / "a.zip", 8)
    with pytest.raises(DatasetFileError, match="b.zip holds no .jpg image"):
        read_archive(archive(tmp_path / "b.zip", {"a.txt": b""}), 8)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_that_is_damaged_however_it_is_packed(tmp_path: Path, method: int) -> None:
    path = archive(tmp_path / "a.zip", {"000001.jpg": jpeg()}, method)
    content = bytearray(path.read_bytes())
    content[60:70] = b"\xff" * 10
    path.write_bytes(content)
    with pytest.raises(DatasetFileError, match="a.zip is no ZIP archive, or damaged"):
        read_archive(path, 8)


def test_an_archive_with_a_password(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {"000001.jpg": jpeg()})
    content = bytearray(path.read_bytes())
    for flags in (6, content.index(b"PK\x01\x02") + 8):
        content[flags] |= 1
    path.write_bytes(content)
    with pytest.raises(DatasetFileError, match="a.zip is no ZIP archive, or damaged .*password"):
        read_archive(path, 8)


def test_a_folder_in_place_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ARCHIVE).mkdir(parents=True)
    with pytest.raises(DatasetFileError, match=f"{ARCHIVE} can't be read .Is a directory"):
        faces(8, tmp_path)
    (tmp_path / SUBSET.path).mkdir()
    monkeypatch.setattr(module, "SUBSET", RemoteFile(SUBSET.path, SUBSET.url, "", size=0))
    with pytest.raises(DatasetFileError, match=f"{SUBSET.path} can't be read .Is a directory"):
        faces(8, tmp_path)


@pytest.mark.parametrize("size", [0, -1, 65])
def test_a_size_that_can_not_be(tmp_path: Path, size: int) -> None:
    with pytest.raises(ValueError, match=f"size is {size}, expected 1 to 64"):
        faces(size, tmp_path)


@pytest.mark.data
def test_the_subset_itself() -> None:
    found = faces(64)
    assert found.train.shape == (9000, 3, 64, 64)
    assert found.test.shape == (1000, 3, 64, 64)
    assert found.train.mean() == pytest.approx(111.1, abs=0.5)
