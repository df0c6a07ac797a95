"""What lies in a folder of models, seen without opening a file."""

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from service.errors import DatasetNotFound, StartError, VersionNotFound

VERSION = re.compile(r"[1-9][0-9]{0,8}")

MANIFEST = "manifest.json"
"""The file that a version's folder has."""

NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Look:
    """How something looked when it was looked at; what changes about it changes this.

    Attributes:
        marks: Names, inodes, sizes and times.
        newest: When it changed last, in nanoseconds since 1970.
    """

    marks: tuple[tuple[str | int, ...], ...]
    newest: int

    def is_quiet(self, seconds: float) -> bool:
        """Tells whether it has not changed for so long; by another machine's clock it may change in the future."""
        return not 0 <= time.time_ns() - self.newest < seconds * NANOSECONDS


def look_at(path: Path, beside: Path | None = None) -> Look | None:
    """Looks at a file, or at a folder and what is in it; None if it is not there.

    Arguments:
        path: The file or folder.
        beside: A file that belongs to it, and need not be there.
    """
    try:
        marks = [_marks("", path)]
        if path.is_dir():
            marks += sorted(_marks(entry.name, Path(entry.path)) for entry in _entries(path))
    except OSError:
        return None
    if beside is not None:
        with suppress(OSError):
            marks.append(_marks(beside.name, beside))
    return Look(tuple(marks), max(max(mark[-2:]) for mark in marks))


def folders(parent: Path) -> list[Path]:
    """Returns the folders in a folder, in order; hidden ones are none.

    Raises:
        StartError: It can't be read.
    """
    try:
        return sorted(Path(entry.path) for entry in os.scandir(parent) if _is_folder(entry))
    except OSError as error:
        raise StartError(f"{parent}: can't be read ({error.strerror}) (RADOGAGA_MODELS)") from error


def find_folder(models: Path, dataset: str, version: int | None = None) -> Path:
    """Returns the folder of one version of a dataset's model, the newest unless it is named; nothing is loaded.

    Raises:
        StartError: The folder of models can't be read.
        DatasetNotFound: There is no such dataset in it.
        VersionNotFound: The dataset has no such version.
    """
    versions = {
        parent.name: {int(folder.name): folder for folder in folders(parent) if VERSION.fullmatch(folder.name)}
        for parent in folders(models)
    }
    known = versions.get(dataset)
    if not known:
        raise DatasetNotFound(dataset, [name for name, found in versions.items() if found])
    wanted = max(known) if version is None else version
    if wanted not in known:
        raise VersionNotFound(dataset, wanted, known)
    return known[wanted]


def find_version(folder: Path, version: int | None = None) -> Path:
    """Returns the folder of one version, given itself or its dataset's; the newest unless it is named.

    Raises:
        StartError: It is not there, is the folder of another version, or is called as no version is.
        DatasetNotFound: There is no version in it.
        VersionNotFound: The dataset has no such version.
    """
    folder = folder.absolute()
    if not folder.is_dir():
        raise StartError(f"{folder}: there is no such folder of a model")
    if not (folder / MANIFEST).exists():
        return find_folder(folder.parent, folder.name, version)
    if not VERSION.fullmatch(folder.name):
        raise StartError(f"{folder}: is called '{folder.name}', expected a version as the folder's name")
    if version not in (None, int(folder.name)):
        raise StartError(f"{folder}: is the folder of version {folder.name}, expected one of version {version}")
    return folder


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.is_dir()


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Returns what is in a folder; nothing of one that can't be read, which is refused with that reason."""
    try:
        return list(os.scandir(folder))
    except PermissionError:
        return []


def _marks(name: str, entry: Path) -> tuple[str, int, int, int, int, int]:
    try:
        found = entry.stat()
    except OSError:
        found = entry.lstat()  # a link to nothing, which is refused with that reason
    return name, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
