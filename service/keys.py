"""The file of API keys, a line for each, with the hash of the key and never the key itself.

For example::

    # name   scopes          SHA-256 of the key                expires
    ci       score           sha256:9f86d081884c7d65...        2027-01-01
    scraper  metrics         sha256:60303ae22b998861...

A key is 256 random bits. So its hash needs no salt and no slow function: nobody can list the keys that might be behind
it, as one can with passwords. A slow hash would instead let anybody spend the service's time by sending nonsense.
"""

import fcntl
import hashlib
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from math import inf
from pathlib import Path

from service.errors import StartError

SCORE, METRICS, ADMIN = SCOPES = ("score", "metrics", "admin")
"""What a key may be good for; admin is good for everything."""

PREFIX = "rdg_"
"""How keys begin, so that whoever finds one, a scanner of repositories for example, knows what it is."""

RANDOM_BYTES = 32

KEY_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
DIGEST = re.compile(r"sha256:([0-9a-f]{64})")

MOST_BYTES = 2**20
"""A longer file is taken for a mistake, and not read."""

FIRST_LINE = "# name scopes sha256:... [expires]; written by `python -m service key`, and read again when it changes\n"

Signature = tuple[int, int, int, int, int]
"""What tells whether a file changed: its device, inode, size and times."""


class KeysError(StartError):
    """The file of keys can't be used, or not changed as asked; the text names file, line and value, and no key."""


@dataclass(frozen=True)
class Key:
    """What is known of a key.

    Attributes:
        name: What it is called in the log.
        scopes: What it is good for.
        digest: The SHA-256 of it, 32 bytes.
        expires: The first day (UTC) on which it isn't good any more, if there is one.
        until: When that day begins, in seconds since 1970; infinity if there is none.
    """

    name: str
    scopes: frozenset[str]
    digest: bytes = field(repr=False)
    expires: date | None = None
    until: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        midnight = datetime.min.time()
        until = datetime.combine(self.expires, midnight, UTC).timestamp() if self.expires else inf
        object.__setattr__(self, "until", until)

    def line(self) -> str:
        """Returns its line in the file."""
        scopes = ",".join(scope for scope in SCOPES if scope in self.scopes)
        expires = f" {self.expires}" if self.expires else ""
        return f"{self.name} {scopes} sha256:{self.digest.hex()}{expires}\n"


def digest_of(key: bytes) -> bytes:
    """Returns the hash under which a key is kept, 32 bytes."""
    return hashlib.sha256(key).digest()


def read_keys(path: Path) -> tuple[list[Key], Signature]:
    """Returns the keys in a file, and what tells whether it was changed since.

    Raises:
        KeysError: It can't be read, others may write it, or a line in it is wrong.
    """
    try:
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            text = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise KeysError(f"RADOGAGA_KEYS: {path}: {error.strerror}") from None
    if status.st_mode & stat.S_IWOTH:
        raise KeysError(f"RADOGAGA_KEYS: {path}: everybody may write it (mode {stat.S_IMODE(status.st_mode):04o})")
    if len(text) > MOST_BYTES:
        raise KeysError(f"RADOGAGA_KEYS: {path}: has more than {MOST_BYTES} bytes")
    return list(parse(text, path)), signature_of(status)


def signature_of(status: os.stat_result) -> Signature:
    """Returns what tells whether a file changed."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def parse(text: bytes, path: Path) -> Iterator[Key]:
    """Yields the keys in a file's text.

    Arguments:
        text: The text.
        path: The file, for messages.

    Raises:
        KeysError: A line is wrong, or two of them have one name or one key.
    """
    names: dict[str, int] = {}
    digests: dict[bytes, int] = {}
    for number, line in enumerate(lines_of(text, path), 1):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        where = f"RADOGAGA_KEYS: {path}, line {number}"
        key = key_of(fields, where)
        for what, first in (("name", names.get(key.name)), ("key", digests.get(key.digest))):
            if first is not None:
                raise KeysError(f"{where}: the {what} of '{key.name}' is that of line {first}")
        names[key.name] = digests[key.digest] = number
        yield key


def lines_of(text: bytes, path: Path) -> list[str]:
    """Returns the lines of a file with their ends.

    Raises:
        KeysError: It is not UTF-8.
    """
    try:
        return text.decode().splitlines(keepends=True)
    except UnicodeDecodeError as error:
        raise KeysError(f"RADOGAGA_KEYS: {path}: byte {error.start} is not UTF-8") from None


def key_of(fields: list[str], where: str) -> Key:
    """Returns the key that a line's fields are about.

    Arguments:
        fields: They.
        where: The file and line, for messages.

    Raises:
        KeysError: One is missing or wrong.
    """
    if not 3 <= len(fields) <= 4:
        raise KeysError(f"{where}: has {len(fields)} fields, expected name, scopes, hash and perhaps a date")
    name, scopes, digest, *expires = fields
    if not KEY_NAME.fullmatch(name):
        raise KeysError(
            f"{where}: the name is {name!r}, expected up to 64 letters, digits, dots, dashes or underscores"
        )
    if not (found := DIGEST.fullmatch(digest)):  # which is not shown, for it may be a key
        raise KeysError(
            f"{where}: the hash of '{name}' has {len(digest)} characters, expected sha256: and 64 hex digits"
        )
    day = date_of(expires[0], where) if expires else None
    return Key(name, scopes_of(scopes, where), bytes.fromhex(found[1]), day)


def scopes_of(text: str, where: str) -> frozenset[str]:
    """Returns the scopes in a list with commas.

    Raises:
        KeysError: One is unknown.
    """
    for scope in (scopes := text.split(",")):
        if scope not in SCOPES:
            raise KeysError(f"{where}: a scope is {scope!r}, expected {', '.join(SCOPES)}")
    return frozenset(scopes)


def date_of(text: str, where: str) -> date:
    """Returns a date.

    Raises:
        KeysError: It is none.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise KeysError(f"{where}: the date is {text!r}, expected one like 2027-01-01") from None


def add_key(path: Path, name: str, scopes: Iterable[str], expires: date | None = None) -> str:
    """Adds a new key to a file, which is made if it isn't there, and returns the key: nobody can find it out later.

    Raises:
        KeysError: There is a key of that name, or the file can't be read or written.
    """
    new = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    key = Key(name, frozenset(scopes), digest_of(new.encode()), expires)

    def add(lines: list[str], keys: list[Key]) -> list[str]:
        if name in {known.name for known in keys}:
            raise KeysError(f"RADOGAGA_KEYS: {path}: there is a key called '{name}'; revoke it, or take another name")
        if lines and not lines[-1].endswith("\n"):
            lines[-1] += "\n"
        return [*(lines or [FIRST_LINE]), key.line()]

    rewrite(path, add)
    return new


def revoke_key(path: Path, name: str) -> None:
    """Takes a key out of a file.

    Raises:
        KeysError: There is none of that name, or the file can't be read or written.
    """

    def revoke(lines: list[str], keys: list[Key]) -> list[str]:
        if name not in (known := {key.name for key in keys}):
            raise KeysError(
                f"RADOGAGA_KEYS: {path}: no key is called '{name}', only {', '.join(sorted(known)) or 'none'}"
            )
        return [line for line in lines if line.partition("#")[0].split()[:1] != [name]]

    rewrite(path, revoke)


def rewrite(path: Path, change: Callable[[list[str], list[Key]], list[str]]) -> None:
    """Replaces a file by a changed one, so that at any time it is there in full; other lines stay as they are.

    Its mode stays, and is 0600 if it is new.

    Arguments:
        path: The file.
        change: From its lines and keys to its new lines.

    Raises:
        KeysError: It can't be read or written.
    """
    try:
        path = path.resolve()
        with locked(path.parent):
            there = path.exists()
            keys = read_keys(path)[0] if there else []
            status = path.stat() if there else None
            lines = change(lines_of(path.read_bytes(), path) if there else [], keys)
            descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # with mode 0600
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                    stream.write("".join(lines))
                    if status is not None:
                        os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
                        if os.geteuid() == 0:
                            os.fchown(descriptor, status.st_uid, status.st_gid)
                    stream.flush()
                    os.fsync(descriptor)
                Path(draft).replace(path)
            finally:
                Path(draft).unlink(missing_ok=True)
    except OSError as error:
        raise KeysError(f"RADOGAGA_KEYS: {path}: {error.strerror}") from None


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lets one process at a time change files in a folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
