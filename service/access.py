"""Who may ask for what: a request's key is looked up, and held against what its path needs.

What is looked up is the SHA-256 of what a client sent. How long that takes depends on the length of what was sent, and
on nothing that could be found out step by step: a guess that shares all but one letter with a key has an unrelated
hash. The last comparison takes the same time wherever two hashes differ, and is made whether or not there was
anything to compare with.
"""

import hmac
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from service.errors import Forbidden, Unauthorized
from service.keys import ADMIN, METRICS, SCORE, Key, KeysError, Signature, digest_of, read_keys, signature_of

logger = logging.getLogger(__name__)

OPEN = ""
"""Needs no key."""

ANY = "any"
"""Needs a key, whatever its scopes."""

PATHS = {
    "/health/live": OPEN,  # container engines and balancers ask, and learn nothing but that
    "/health/ready": OPEN,
    "/v2/health/live": OPEN,
    "/v2/health/ready": OPEN,
    "/docs": OPEN,  # the same for everybody who has this program
    "/openapi.json": OPEN,
    "/metrics": METRICS,
    "/score": SCORE,
    "/encode": SCORE,
    "/decode": SCORE,
    "/datasets": SCORE,
    "/v2": SCORE,
}
"""What paths need."""

BELOW = {"/v2/": SCORE, "/datasets/": SCORE, "/static-offline-docs/": OPEN}
"""What paths need that begin so. All that isn't named needs a key, and then isn't there."""

SECONDS_BETWEEN_LOOKS = 0.5
"""How long a change of the file may go unnoticed."""

SETTLED_SECONDS = 2.0
"""A file that was changed less long ago may have been changed twice in one tick of its file system's clock."""

MOST_KEY_BYTES = 256
"""Nothing longer is a key; it is refused unread, so that nobody can make the service hash megabytes."""

NOBODY = Key("", frozenset(), bytes(32))
"""What a wrong key is compared with. No key is known whose hash is all zeros."""


class Access:
    """The keys in a file, which is read again when it changes.

    Arguments:
        path: The file.
        clock: Tells seconds.

    Attributes:
        stale: Whether the file can't be used as it is now, so that the keys of before hold.

    Raises:
        KeysError: The file can't be used, or has no key: nobody could ever be let in, which can't be meant.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._keys: dict[bytes, Key] = {}
        self._signature: Signature | None = None
        self._failed: str | None = None
        self._due = clock() + SECONDS_BETWEEN_LOOKS
        self._read()
        if not self._keys:
            raise KeysError(f"RADOGAGA_KEYS: {path}: has no keys; `python -m service key add NAME` adds one")

    @property
    def stale(self) -> bool:
        """Whether the file can't be used as it is now, so that the keys of before hold."""
        return self._failed is not None

    def __repr__(self) -> str:
        return f"Access({str(self._path)!r}, {len(self._keys)} keys)"

    def admit(self, path: str, headers: Mapping[bytes, bytes]) -> str:
        """Returns the name of the key that a request has; nothing if its path needs none.

        Arguments:
            path: Its path, decoded.
            headers: Its header, names in lower case.

        Raises:
            Unauthorized: Its key is missing, wrong, revoked or expired.
            Forbidden: Its key is not good for this.
        """
        scope = scope_of(path)
        if scope == OPEN:
            return ""
        return self.holder(scope, headers)

    def holder(self, scope: str, headers: Mapping[bytes, bytes]) -> str:
        """Returns the name of the key that a request has.

        Arguments:
            scope: What it has to be good for.
            headers: The request's header, names in lower case.

        Raises:
            Unauthorized: It is missing, wrong, revoked or expired.
            Forbidden: It is good for other things.
        """
        self.follow()
        key = self.find(sent_key(headers))
        if key is None:
            raise Unauthorized
        if key.until <= time.time():
            raise Unauthorized(key.name)
        if scope not in key.scopes and scope != ANY and ADMIN not in key.scopes:
            raise Forbidden(key.name, scope, key.scopes)
        return key.name

    def find(self, sent: bytes) -> Key | None:
        """Returns what is known of a key that was sent, expired or not; nothing if it is no key."""
        if not 0 < len(sent) <= MOST_KEY_BYTES:
            return None
        digest = digest_of(sent)
        found = self._keys.get(digest, NOBODY)
        return found if hmac.compare_digest(found.digest, digest) else None

    def follow(self) -> None:
        """Reads the file again if it has changed, but does not look more often than every half second.

        A file that can't be used changes nothing, and is logged once. One without keys revokes all.
        """
        now = self._clock()
        if now < self._due:
            return
        self._due = now + SECONDS_BETWEEN_LOOKS
        try:
            if not self._changed():
                return
            self._read()
        except (KeysError, OSError) as error:
            if str(error) != self._failed:
                logger.error("%s; the keys of before hold", error)
            self._failed = str(error)

    def _changed(self) -> bool:
        status = self._path.stat()
        recent = time.time() - max(status.st_mtime, status.st_ctime) < SETTLED_SECONDS
        return recent or self.stale or signature_of(status) != self._signature

    def _read(self) -> None:
        keys, self._signature = read_keys(self._path)
        self._failed = None
        before, self._keys = self._keys, {key.digest: key for key in keys}
        if self._keys != before:
            logger.info("keys read", extra={"fields": {"keys": sorted(key.name for key in keys)}})


def scope_of(path: str) -> str:
    """Returns what a path needs, one of the scopes, `OPEN` or `ANY`."""
    scope = PATHS.get(path)
    if scope is not None:
        return scope
    return next((scope for beginning, scope in BELOW.items() if path.startswith(beginning)), ANY)


def sent_key(headers: Mapping[bytes, bytes]) -> bytes:
    """Returns the key in a request's header, by either of the names that it may have; nothing if there is none."""
    sent = headers.get(b"authorization", b"")
    if sent[:7].lower() == b"bearer ":
        return sent[7:].strip()
    return headers.get(b"x-api-key", b"")
