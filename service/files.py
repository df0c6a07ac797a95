"""Files of models, read once and with bounds: the bytes that are checked are the bytes that are used."""

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.errors import StartError

FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
"""A link is not followed, and a pipe that nobody writes into is not waited for."""

CHUNK = 2**20


class Folder:
    """A folder that is open, so that all its files come from the same one, whatever its path means by now.

    Arguments:
        path: What errors call it.
        descriptor: The open folder.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def read(self, name: str, limit: int) -> bytes:
        """Returns the bytes of a file in the folder.

        Arguments:
            name: The file's name, without any folder.
            limit: The most bytes that it may have.

        Raises:
            StartError: It is missing, a symbolic link or no regular file, has more bytes, or can't be read.
        """
        path = self.path / name
        try:
            descriptor = os.open(name, FLAGS, dir_fd=self._descriptor)
        except OSError as error:
            if self._is_link(name):
                raise StartError(f"{path}: is a symbolic link, expected a regular file") from None
            raise StartError(f"{path}: can't be read ({error.strerror})") from error
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise StartError(f"{path}: is a {_kind(found.st_mode)}, expected a regular file")
            if found.st_size > limit:
                raise StartError(f"{path}: has {found.st_size} bytes, at most {limit} are read")
            content = _read_up_to(descriptor, limit + 1)
        except OSError as error:
            raise StartError(f"{path}: can't be read ({error.strerror})") from error
        finally:
            os.close(descriptor)
        if len(content) > limit:
            raise StartError(f"{path}: has grown while it was read, at most {limit} bytes are read")
        return content

    def read_hashed(self, name: str, sha256: str, limit: int) -> bytes:
        """Returns the bytes of a file in the folder whose digest is known.

        Raises:
            StartError: As `read`, or the file has another digest.
        """
        content = self.read(name, limit)
        digest = hashlib.sha256(content).hexdigest()
        if digest != sha256:
            raise StartError(f"{self.path / name}: sha256 is {digest}, the manifest has {sha256}")
        return content

    def _is_link(self, name: str) -> bool:
        try:
            return stat.S_ISLNK(os.stat(name, dir_fd=self._descriptor, follow_symlinks=False).st_mode)
        except OSError:
            return False


@contextmanager
def open_folder(path: Path, inside: Path | None = None) -> Iterator[Folder]:
    """Yields an open folder.

    Arguments:
        path: The folder; may lead over symbolic links.
        inside: The folder that it has to lie in, wherever its links lead to.

    Raises:
        StartError: It is missing, is no folder, or lies elsewhere.
    """
    real = path.resolve()
    if inside is not None and not real.is_relative_to(inside.resolve()):
        raise StartError(f"{path}: leads to {real}, which is not inside of {inside}; links may not lead out of it")
    try:
        descriptor = os.open(real, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise StartError(f"{path}: can't be read ({error.strerror})") from error
    try:
        yield Folder(path, descriptor)
    finally:
        os.close(descriptor)


def read_file(path: Path, limit: int) -> bytes:
    """Returns the bytes of a file, at most `limit`.

    Raises:
        StartError: As `Folder.read`.
    """
    with open_folder(path.parent) as folder:
        return folder.read(path.name, limit)


def _read_up_to(descriptor: int, most: int) -> bytes:
    content = bytearray()
    while len(content) < most and (part := os.read(descriptor, min(CHUNK, most - len(content)))):
        content += part
    return bytes(content)


def _kind(mode: int) -> str:
    kinds = {stat.S_ISDIR: "folder", stat.S_ISFIFO: "pipe", stat.S_ISCHR: "device", stat.S_ISBLK: "device"}
    return next((name for test, name in kinds.items() if test(mode)), "special file")
