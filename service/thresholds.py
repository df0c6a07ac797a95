"""Thresholds that were changed after training: an overlay beside a dataset's versions, which are never rewritten.

`models/<dataset>/thresholds.json` holds every change with its reason, the oldest first; the last one for a version is
in force.
"""

import fcntl
import getpass
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, AwareDatetime, Field, ValidationError

from service.errors import StartError
from service.files import read_file
from service.manifest import Count, Label, Manifest, Name, Sha256, Strict, sentences
from service.seals import UNSEALED, check_seal, sealed
from service.signatures import SUFFIX, Signers

THRESHOLDS = "thresholds.json"

MOST_BYTES = 2**22
"""The longest file of changes that is read; some ten thousand of them."""


def _in_one_line(text: str) -> str:
    if text.strip() != text or not text.isprintable():
        raise ValueError("expected one line of text without blanks around it")
    return text


Line = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_in_one_line)]


class Change(Strict):
    """A threshold from one moment on.

    Attributes:
        version: The version whose threshold it is.
        threshold: The score from which a row is called an anomaly; None for the one in the manifest.
        why: The reason.
        by: Who changed it.
        at: When.
    """

    version: Count
    threshold: float | None
    why: Line
    by: Label
    at: AwareDatetime


class Thresholds(Strict):
    """All changes of a dataset's thresholds, the oldest first."""

    format_version: Literal[1] = 1
    dataset: Name
    changes: tuple[Change, ...] = ()
    sha256: Sha256 = UNSEALED

    def of(self, version: int) -> Change | None:
        """Returns the change that is in force for a version; None if the manifest's threshold is."""
        last = next((change for change in reversed(self.changes) if change.version == version), None)
        return last if last is not None and last.threshold is not None else None

    def history(self, version: int) -> list[Change]:
        """Returns the changes of one version, the oldest first."""
        return [change for change in self.changes if change.version == version]


def threshold_in_force(manifest: Manifest, change: Change | None) -> float:
    """Returns the score from which a row is called an anomaly: the changed one, or else the manifest's."""
    return manifest.threshold if change is None or change.threshold is None else change.threshold


def read_thresholds(folder: Path, signers: Signers | None = None) -> Thresholds:
    """Reads the changes in the folder of a dataset; there are none if there is no file.

    Arguments:
        folder: The folder of the dataset.
        signers: Who has to have signed the file, if signatures are demanded.

    Raises:
        StartError: The file can't be read, is too long, breaks the contract, was altered since it was written, has no
            valid signature, or belongs to another dataset; the text names the file, the field and the value it had.
    """
    path = folder / THRESHOLDS
    if not os.path.lexists(path):
        return Thresholds(dataset=folder.name)
    content = read_file(path, MOST_BYTES)
    if signers is not None:
        signers.check(content, path.with_name(THRESHOLDS + SUFFIX))
    try:
        found = Thresholds.model_validate_json(content)
        check_seal(content, found.sha256)
    except ValidationError as error:
        raise StartError(f"{path}: {sentences(error)}") from error
    except ValueError as error:
        raise StartError(f"{path}: {error}") from error
    if found.dataset != folder.name:
        raise StartError(f"{path}: dataset is '{found.dataset}', expected '{folder.name}' as the folder is called")
    return found


def change_threshold(folder: Path, version: int, threshold: float | None, why: str) -> Thresholds:
    """Adds a change to those in the folder of a dataset, and returns them all. The file is replaced as a whole.

    Arguments:
        folder: The folder of the dataset.
        version: Whose threshold.
        threshold: The new one, or None for the manifest's.
        why: The reason, a line of text.

    Raises:
        StartError: What is there can't be read, the folder can't be written to, or a value is not one that the file
            may hold; it is named.
    """
    with _locked(folder):
        before = read_thresholds(folder)
        try:
            change = Change(version=version, threshold=threshold, why=why, by=_user(), at=datetime.now(UTC))
        except ValidationError as error:
            raise StartError(sentences(error)) from error
        after = before.model_copy(update={"changes": (*before.changes, change), "sha256": UNSEALED})
        text = sealed(json.dumps(after.model_dump(mode="json"), indent=2) + "\n")
        if len(text.encode()) > MOST_BYTES:
            raise StartError(f"{folder / THRESHOLDS}: has no room for more changes, {MOST_BYTES} bytes at most")
        _replace(folder / THRESHOLDS, text)
    return after


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise StartError(f"{folder}: can't be opened ({error.strerror})") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(path: Path, text: str) -> None:
    try:
        descriptor, written = tempfile.mkstemp(prefix=".thresholds-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
            Path(written).replace(path)
        except BaseException:
            Path(written).unlink()
            raise
    except OSError as error:
        raise StartError(f"{path}: can't be written ({error.strerror})") from error


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        return str(os.getuid())
