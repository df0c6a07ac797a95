"""Files of the public datasets: taken from the cache folder, or downloaded into it, and never used unchecked."""

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx

TIMEOUT_SECONDS = 30.0


class DatasetFileError(Exception):
    """A dataset's file can't be had or can't be trusted; the text says what to do about it."""


@dataclass(frozen=True)
class RemoteFile:
    """A file at its official address.

    Attributes:
        path: Where it lies inside the cache folder.
        url: Where it is published.
        sha256: The digest of its bytes, in hexadecimal.
        size: Its length in bytes.
    """

    path: str
    url: str
    sha256: str
    size: int


def cache_folder() -> Path:
    """Returns the folder that is looked in first and downloaded into: RADOGAGA_DATA, or ~/.cache/radogaga."""
    configured = os.environ.get("RADOGAGA_DATA")
    return Path(configured) if configured else Path.home() / ".cache" / "radogaga"


def fetch(file: RemoteFile, cache: Path | None = None, transport: httpx.BaseTransport | None = None) -> Path:
    """Returns the path of a checked copy of `file`, downloading it if the cache has none.

    Arguments:
        file: The file to get.
        cache: The cache folder; `cache_folder()` unless given.
        transport: What carries the request; httpx's own unless given.

    Raises:
        DatasetFileError: The cached file is cut or altered, the address can't be reached or answers with an error,
            the cache can't be written, or what arrives is not the file that was published.
    """
    path = (cache or cache_folder()) / file.path
    if not path.exists():
        download(file, path, transport)
    elif problem := find_problem(file, path):
        raise DatasetFileError(f"{path} {problem}. Delete it and run again to download it afresh.")
    return path


def find_problem(file: RemoteFile, path: Path) -> str | None:
    """Says how the bytes at `path` differ from the published ones, or returns None."""
    size = path.stat().st_size
    if size < file.size:
        return f"is cut short: it has {size} of {file.size} bytes"
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != file.sha256:
        return f"is not the published file: its sha256 is {digest}, expected {file.sha256}"
    return None


def download(file: RemoteFile, path: Path, transport: httpx.BaseTransport | None = None) -> None:
    """Downloads `file` beside `path`, and renames it once all its bytes are there and right.

    Raises:
        DatasetFileError: The folder can't be written, or the download fails or brings something else.
    """
    by_hand = f"Put the file at {path} by hand, or set RADOGAGA_DATA to a folder that holds {file.path}."
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    except OSError as error:
        raise DatasetFileError(f"{path} is missing and can't be written ({error}). {by_hand}") from error
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            receive(file, stream, transport)
        if problem := find_problem(file, part):
            raise DatasetFileError(f"What {file.url} sent {problem}. Run again, or: {by_hand}")
        part.chmod(0o644)
        part.replace(path)
    except httpx.HTTPError as error:
        raise DatasetFileError(f"{path} is missing and {file.url} did not send it ({error}). {by_hand}") from error
    finally:
        part.unlink(missing_ok=True)


def receive(file: RemoteFile, stream: BinaryIO, transport: httpx.BaseTransport | None) -> None:
    """Writes what the address sends to `stream`, and no more of it than one byte over the published size.

    Raises:
        httpx.HTTPError: The address can't be reached, is cut off or answers with an error.
    """
    with (
        httpx.Client(transport=transport, follow_redirects=True, timeout=TIMEOUT_SECONDS) as client,
        client.stream("GET", file.url) as response,
    ):
        response.raise_for_status()
        received = 0
        for chunk in response.iter_bytes():
            stream.write(chunk)
            received += len(chunk)
            if received > file.size:
                return
