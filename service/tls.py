"""HTTPS: the certificate and its key from two files, which are read again when they are renewed."""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import uvloop

from service.errors import StartError
from service.settings import Settings

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 1.0
"""How long a renewed certificate may go unnoticed; new connections get it, those that are open keep theirs."""

HEADER = ("strict-transport-security", "max-age=31536000")
"""Tells clients that have come by HTTPS once not to come by HTTP for a year."""

Times = tuple[int, ...]


def loop() -> asyncio.AbstractEventLoop:
    """Returns the event loop of a service with HTTPS, which gives handshakes no more time than headers."""
    made = uvloop.new_event_loop()
    patient = partial(made.create_server, ssl_handshake_timeout=Settings().header_seconds)
    made.create_server = patient  # type: ignore[method-assign]
    return made


def https(settings: Settings) -> ssl.SSLContext | None:
    """Returns how connections are encrypted; nothing if they aren't to be.

    Raises:
        StartError: A certificate is set without its key or the other way round, or they can't be used together.
    """
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None and key is None:
        return None
    if key is None:
        raise StartError(f"RADOGAGA_TLS_CERTIFICATE is '{certificate}', and RADOGAGA_TLS_KEY is not set")
    if certificate is None:
        raise StartError(f"RADOGAGA_TLS_KEY is '{key}', and RADOGAGA_TLS_CERTIFICATE is not set")
    return Certificate(certificate, key).context


class Certificate:
    """A certificate, its key, and the context of connections that use them.

    Whether the files were changed is looked at when a client connects.

    Arguments:
        certificate: The file with the chain (PEM).
        key: The file with the key (PEM).
        clock: Tells seconds.

    Attributes:
        context: What new connections begin with.

    Raises:
        StartError: A file can't be read or is none of these, or the key is encrypted or another certificate's.
    """

    def __init__(self, certificate: Path, key: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._files = (certificate, key)
        self._clock = clock
        self._due = clock() + SECONDS_BETWEEN_LOOKS
        self._times = self._look()
        self.context = self._current = self._load()
        self.context.sni_callback = self._renew  # called for every client, whether it names a server or not

    def _look(self) -> Times:
        return tuple(time for path in self._files for time in times_of(path))

    def _load(self) -> ssl.SSLContext:
        certificate, key = self._files
        for path in self._files:
            if problem := problem_of(path):
                raise StartError(f"RADOGAGA_TLS_{'KEY' if path is key else 'CERTIFICATE'} is '{path}': {problem}")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        try:
            context.load_cert_chain(certificate, key, password=ask_nobody)
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or str(error)
            both = f"RADOGAGA_TLS_CERTIFICATE '{certificate}' and RADOGAGA_TLS_KEY '{key}'"
            raise StartError(f"{both} can't be used together: {reason}") from None
        return context

    def _renew(self, connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
        now = self._clock()
        if now >= self._due:
            self._due = now + SECONDS_BETWEEN_LOOKS
            times = self._look()
            if times != self._times:
                self._times = times
                self._reload()
        connection.context = self._current

    def _reload(self) -> None:
        try:
            self._current = self._load()
        except StartError as error:
            logger.error("%s; the certificate of before is used", error)
        else:
            logger.info("certificate read")


def times_of(path: Path) -> Times:
    """Returns what tells whether a file was changed, or that it isn't there."""
    try:
        status = path.stat()
    except OSError:
        return (0,)
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def problem_of(path: Path) -> str | None:
    """Returns why a file can't be read, if it can't."""
    try:
        with path.open("rb"):
            return None
    except OSError as error:
        return error.strerror


def ask_nobody() -> str:
    """Stands in for a prompt on a terminal that nobody sits at.

    Raises:
        ValueError: Always.
    """
    raise ValueError("the key is encrypted")
