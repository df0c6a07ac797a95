"""A model's files are read once, with bounds, and only where they are what they should be."""

import os
import socket
from pathlib import Path

import pytest

from service.detector import Detector
from service.errors import StartError
from service.files import open_folder, read_file
from service.manifest import read_manifest
from service.runtime import Runtime

CPU = Runtime("cpu")


def read(path: Path, limit: int = 100) -> bytes:
    return read_file(path, limit)


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    assert read(tmp_path / "a") == b"x" * 100
    with pytest.raises(StartError, match=f"{tmp_path}/a: has 100 bytes, at most 99 are read"):
        read(tmp_path / "a", 99)


def test_a_file_without_bytes_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert read(tmp_path / "a", 0) == b""


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, real = tmp_path / "a", os.read
    path.write_bytes(b"x" * 100)

    def growing(descriptor: int, count: int) -> bytes:
        with path.open("ab") as stream:
            stream.write(b"y" * 50)
        return real(descriptor, count)

    monkeypatch.setattr(os, "read", growing)
    with pytest.raises(StartError, match="a: has grown while it was read, at most 120 bytes are read"):
        read(path, 120)


def test_a_file_that_can_not_be_read_to_its_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"x")

    def failing(_: int, __: int) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "read", failing)
    with pytest.raises(StartError, match=r"a: can't be read \(Input/output error\)"):
        read(tmp_path / "a")


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        with pytest.raises(StartError, match="pipe: is a pipe, expected a regular file"):
            read(tmp_path / "pipe")
        with pytest.raises(StartError, match="folder: is a folder, expected a regular file"):
            read(tmp_path / "folder")
        with pytest.raises(StartError, match="socket: can't be read"):
            read(tmp_path / "socket")
    with pytest.raises(StartError, match="/dev/null: is a device, expected a regular file"):
        read(Path("/dev/null"))


@pytest.mark.parametrize("target", ["beside", "/etc/hostname", "nowhere"])
def test_links_are_not_followed(tmp_path: Path, target: str) -> None:
    (tmp_path / "beside").write_bytes(b"x")
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(StartError, match=f"{tmp_path}/link: is a symbolic link, expected a regular file"):
        read(tmp_path / "link")


@pytest.mark.parametrize("name", ["manifest.json", "scorer.onnx", "mixture.npz", "examples.json"])
def test_a_models_files_are_no_links_not_even_inside_of_it(folder: Path, name: str) -> None:
    (folder / name).rename(folder / f"real-{name}")
    (folder / name).symlink_to(f"real-{name}")
    with pytest.raises(StartError, match=f"{folder}/{name}: is a symbolic link, expected a regular file"):
        Detector.load(folder, CPU)


@pytest.mark.parametrize("name", ["manifest.json", "encoder.onnx"])
def test_a_pipe_in_a_model_folder_does_not_hold_up_the_start(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(StartError, match=f"{folder}/{name}: is a pipe, expected a regular file"):
        Detector.load(folder, CPU)


@pytest.mark.parametrize(
    ("name", "size", "limit"),
    [
        ("manifest.json", 4 * 2**20 + 1, 4 * 2**20),
        ("scorer.onnx", 64 * 2**20 + 1, 64 * 2**20),
        ("mixture.npz", 20_000, 13_456),
        ("examples.json", 100_000, 84_992),
    ],
)
def test_files_are_no_larger_than_the_manifest_explains(folder: Path, name: str, size: int, limit: int) -> None:
    with (folder / name).open("r+b") as stream:
        stream.truncate(size)  # a hole: nothing is written, and nothing would be read
    with pytest.raises(StartError, match=f"{folder}/{name}: has {size} bytes, at most {limit} are read"):
        Detector.load(folder, CPU)


@pytest.mark.parametrize("link", ["1", ""])
def test_a_version_or_dataset_that_leads_out_of_the_models_is_refused(folder: Path, tmp_path: Path, link: str) -> None:
    real = tmp_path / "elsewhere"
    (folder if link else folder.parent).rename(real)
    (folder if link else folder.parent).symlink_to(real)
    with pytest.raises(StartError, match=f"{folder}: leads to {real}.*, which is not inside of {tmp_path}/models"):
        read_manifest(folder)


def test_a_version_may_lead_to_another_place_among_the_models(folder: Path, models: Path) -> None:
    folder.rename(models / ".kept-1")
    folder.symlink_to(models / ".kept-1")
    assert Detector.load(folder, CPU).manifest.version == 1


def test_the_folder_of_all_models_may_be_a_link(models: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(models)
    assert read_manifest(tmp_path / "current" / "thyroid" / "1").version == 1


def test_a_folder_by_its_name_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    assert read_manifest(Path("1")).version == 1


def test_files_come_from_the_folder_that_was_opened(folder: Path, tmp_path: Path) -> None:
    with open_folder(folder) as opened:
        folder.rename(tmp_path / "moved")
        folder.mkdir()
        (folder / "manifest.json").write_text("another's")
        assert opened.read("manifest.json", 2**20).startswith(b"{")


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(StartError, match=r"a: can't be read \(Not a directory\)"), open_folder(tmp_path / "a"):
        pass


def test_nothing_stays_open(folder: Path) -> None:
    Detector.load(folder, CPU)
    before = len(list(Path("/proc/self/fd").iterdir()))
    Detector.load(folder, CPU)
    (folder / "scorer.onnx").unlink()
    with pytest.raises(StartError):
        Detector.load(folder, CPU)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
