"""HTTP as bytes, so that requests may be as wrong as they like."""

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

PIECE = 2**18

END_OF_HEADER = b"\r\n\r\n"


CONTINUE = 100


class Hang(Exception):
    """Nothing was answered in time, and the connection was not closed."""


class Malformed(Exception):
    """What came back is no HTTP."""


@dataclass(frozen=True)
class Reply:
    """An answer.

    Attributes:
        status: Its status.
        headers: Its header, names in lower case.
        body: Its body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class Wire:
    """A connection.

    Arguments:
        url: Where to.
        seconds: How long anything may take.
    """

    def __init__(self, url: str, seconds: float) -> None:
        address = urlsplit(url)
        self.seconds = seconds
        self._socket = socket.create_connection((address.hostname, address.port), timeout=seconds)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._read = b""

    def send(self, data: bytes) -> None:
        """Sends bytes, as far as the other side takes them: it may hang up before it has read all.

        Raises:
            Hang: It neither reads nor hangs up.
        """
        try:
            self._socket.sendall(data)
        except TimeoutError:
            raise Hang("a request is not read") from None
        except OSError:
            return

    def reply(self, seconds: float | None = None, method: str = "POST") -> Reply | None:
        """Reads an answer, or returns None if the connection was closed instead.

        Arguments:
            seconds: How long it may take, unless that is said of everything.
            method: The request's, for answers to HEAD have no body.

        Raises:
            Hang: There is none in time.
            Malformed: It is no HTTP.
        """
        deadline = time.monotonic() + (self.seconds if seconds is None else seconds)
        while (found := self._answer(deadline, method)) and found.status == CONTINUE:
            pass
        return found

    def close(self) -> None:
        """Hangs up."""
        self._socket.close()

    def _answer(self, deadline: float, method: str) -> Reply | None:
        while (end := self._read.find(END_OF_HEADER)) < 0:
            if not self._more(deadline):
                if self._read:
                    raise Malformed(f"cut: {self._read[:80]!r}")
                return None
        first, *lines = self._read[:end].decode("latin-1").split("\r\n")
        self._read = self._read[end + len(END_OF_HEADER) :]
        words = first.split(" ", 2)
        if len(words) < 2 or words[0] not in ("HTTP/1.1", "HTTP/1.0") or not words[1].isdecimal():
            raise Malformed(f"no status line: {first!r}")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status = int(words[1])
        if status == CONTINUE or method == "HEAD":
            body = b""
        elif "content-length" in headers:
            length = int(headers["content-length"])
            while len(self._read) < length:
                if not self._more(deadline):
                    raise Malformed(f"{len(self._read)} bytes of {length}")
            body, self._read = self._read[:length], self._read[length:]
        elif headers.get("transfer-encoding") == "chunked":
            body = self._chunks(deadline)
        else:
            while self._more(deadline):
                pass
            body, self._read = self._read, b""
        return Reply(status, headers, body)

    def _chunks(self, deadline: float) -> bytes:
        parts = []
        while True:
            while (end := self._read.find(b"\r\n")) < 0:
                if not self._more(deadline):
                    raise Malformed("cut within chunks")
            size = int(self._read[:end], 16)
            while len(self._read) < end + 4 + size:
                if not self._more(deadline):
                    raise Malformed("cut within a chunk")
            parts.append(self._read[end + 2 : end + 2 + size])
            self._read = self._read[end + 4 + size :]
            if not size:
                return b"".join(parts)

    def _more(self, deadline: float) -> bool:
        left = deadline - time.monotonic()
        try:
            self._socket.settimeout(max(left, 1e-3))
            part = self._socket.recv(PIECE)
        except TimeoutError:
            raise Hang("no answer") from None
        except ConnectionError:
            part = b""
        finally:
            self._socket.settimeout(self.seconds)
        self._read += part
        return bool(part)


def request(method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    """Writes a request, whose length is said unless its headers say something of it."""
    lines = [f"{method} {target} HTTP/1.1", "host: localhost", *(f"{name}: {value}" for name, value in headers.items())]
    if not {"content-length", "transfer-encoding"} & headers.keys() and (body or method == "POST"):
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1", errors="replace") + END_OF_HEADER + body
