"""uvicorn's protocol, guarded: against long headers, slow clients and more connections than there may be."""

import asyncio
import socket
import struct
from typing import Any, cast

import httptools
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.connections import RESERVE, RESERVE_SECONDS
from service.errors import HeaderTooLarge, ServiceError
from service.inference import Service
from service.ledger import Observation
from service.observation import problem_of

NO_LINGERING = struct.pack("ii", 1, 0)
"""The value of SO_LINGER with which a connection is reset, and not kept until its client has taken all."""

MOST_MILLISECONDS = 2**31 - 1

MOST_HEADER_BYTES = 2**15
"""Bytes of a request's URL and header, or of the trailer behind a chunked body; what was read at once may be more."""

MOST_HEADERS = 100

MOST_PATH_BYTES = 256
"""Bytes of the path that are logged if a header is too long."""


class GuardedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits, without other protocols, and with one timer per connection, not per request."""

    _header_bytes: int | None = None
    """Bytes that have come of a header or a trailer that is incomplete, if one is, behind those it began with."""

    _defaults: list[tuple[bytes, bytes]] | None = None
    """What every answer's header begins with."""

    _default_lines = b""
    """The same as it is sent."""

    _long_read = False
    """Whether more bytes were read at once than a header may have."""

    _too_large = False
    """Whether a header is longer than is read."""

    _idle_since: float | None = None
    """When the last answer was sent, by the event loop's clock, if nothing has come since."""

    _offers_upgrade = False
    """Whether the header that was read offers to speak another protocol; it is then read again without."""

    _service: Service

    _surplus: bool = False
    """Whether this is a connection more than there may be."""

    _owes: object = None
    _owes_since: float = 0.0
    """The last request that was there when this connection was seen to wait for its client, and when that was."""

    _stuck_since: float | None = None
    """When this connection was first seen with an answer that its client doesn't take."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins with a connection, if there may be one more."""
        super().connection_made(cast(asyncio.Transport, transport))
        self._service = self.app.state.service
        self._service.gate.welcome()
        connections = self._service.connections
        connections.watch(self.loop, cast(Any, self.connections))
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # the same limit for what the kernel still has for the client
            milliseconds = min(int(1000 * connections.write_seconds), MOST_MILLISECONDS)
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
        if len(self.connections) > connections.most:
            self._surplus = True
            if len(self.connections) > connections.most + RESERVE:
                connections.count_cut("too_many")
                self._hang_up(connections.refusal(), "", "")

    def late(self, now: float) -> str | None:
        """Returns why the client is to be cut off by now, if it is."""
        guard = self._service.connections
        if self.transport.get_write_buffer_size():
            self._stuck_since = self._stuck_since or now
            return "slow_answer" if now - self._stuck_since > guard.write_seconds else None
        self._stuck_since = None
        cycle = self.cycle
        if self._idle_since is not None or not (cycle is None or cycle.response_complete):
            self._owes_since = 0.0
        elif self._owes is not cycle or not self._owes_since:
            self._owes, self._owes_since = cycle, now
        elif now - self._owes_since > (RESERVE_SECONDS if self._surplus else guard.header_seconds):
            return "slow_header"
        return None

    def cut_off(self) -> None:
        """Closes the connection without further ado; the kernel forgets, too, what the client did not take."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGERING)
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Reads bytes, as many headers as there may be."""
        self._long_read = len(data) > MOST_HEADER_BYTES
        if self._header_bytes is not None:
            self._header_bytes += len(data)
        self._unset_keepalive_if_required()
        rest: bytes | None = data
        while rest is not None:
            rest = self._parse(rest)
        if self._header_bytes is not None and self._header_bytes > MOST_HEADER_BYTES:
            self._refuse_header()

    def _parse(self, data: bytes) -> bytes | None:
        """Parses bytes, and returns what is to be parsed next."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            text = "Invalid HTTP request received."
            self.logger.warning(text)
            self.send_400_response(text)
        except httptools.HttpParserUpgrade as stopped:
            if self._offers_upgrade:
                return self._without_upgrade() + data[stopped.args[0] :]
            self._unsupported_upgrade_warning()  # of CONNECT
        return None

    def _without_upgrade(self) -> bytes:
        """Returns a request's header as it came, but for the offer to speak another protocol, which may be ignored.

        The parser takes what follows such an offer for the other protocol (RFC 9110, section 7.8), and not for a body.
        """
        self._offers_upgrade = False
        first = b"%b %b HTTP/%b\r\n" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        lines = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        return b"".join((first, *lines, b"\r\n"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends with a connection."""
        super().connection_lost(exc)
        if isinstance(exc, TimeoutError):  # the kernel gave up first
            self._service.connections.count_cut("slow_answer")
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()

    def on_message_begin(self) -> None:
        """Begins a request; its scope is made if it needs one."""
        self.url = b""
        self.expect_100_continue = False
        self.headers = []
        self._header_bytes = 0

    def on_headers_complete(self) -> None:
        """Begins with a request, unless its header is too long or is to be read again.

        Raises:
            HeaderTooLarge: It has too many headers, or too many bytes in them.
        """
        in_parts, self._header_bytes = self._header_bytes, None
        if len(self.headers) > MOST_HEADERS or (
            (in_parts or self._long_read) and self._header_length() > MOST_HEADER_BYTES
        ):
            self._too_large = True
            raise HeaderTooLarge(MOST_HEADERS, MOST_HEADER_BYTES)
        if self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT":
            self._offers_upgrade = True
        else:
            self.begin_request()

    def begin_request(self) -> None:
        """Begins with a request whose header has been read."""
        self._begin_asgi()

    def on_chunk_header(self) -> None:
        """Counts what comes behind a chunk's length, which is a trailer if the length is 0."""
        self._header_bytes = 0

    def on_chunk_complete(self) -> None:
        """Ends counting."""
        self._header_bytes = None

    def on_body(self, body: bytes) -> None:
        """Takes a part of a body, which is what came behind a chunk's length."""
        self._header_bytes = None
        self.take_body(body)

    def take_body(self, body: bytes) -> None:
        """Passes on a part of a body."""
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Ends a request, unless its header is to be read again."""
        if not self._offers_upgrade:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Goes on with what the client has sent meanwhile, or begins to wait for it.

        uvicorn makes a timer behind every answer and cancels it with the next byte; here one is enough, which looks
        whether the connection was idle all the time.
        """
        if self.pipeline:
            super().on_response_complete()
            return
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self._idle_since = self.loop.time()
            if self.timeout_keep_alive_task is None:
                self._close_later(self.timeout_keep_alive)

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None

    def _close_later(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self._close_if_idle)

    def _close_if_idle(self) -> None:
        self.timeout_keep_alive_task = None
        if self._idle_since is not None:
            left = self._idle_since + self.timeout_keep_alive - self.loop.time()
            if left > 0:
                self._close_later(left)
            else:
                self.timeout_keep_alive_handler()

    def _begin_asgi(self) -> None:
        """Lets uvicorn begin with a request whose header has been read."""
        url, headers, expect = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expect
        self.headers += headers  # the very list that uvicorn's scope has
        super().on_headers_complete()
        if self._surplus or self._service.draining:
            self.cycle.keep_alive = False
        self.headers = []  # a trailer says nothing about a request that has begun

    def send_400_response(self, msg: str) -> None:
        """Answers what is no HTTP, or is too long."""
        if self._too_large:
            self._refuse_header()
        elif self._reads_body() or self.cycle is None or self.cycle.response_complete:
            super().send_400_response(msg)
        else:  # the client would take it for the answer to the request before
            self.transport.close()

    def _reads_body(self) -> bool:
        """Tells whether what comes now belongs to a request that is the next one to be answered."""
        return not self.pipeline and bool(getattr(self.cycle, "more_body", False))

    def _header_length(self) -> int:
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _refuse_header(self) -> None:
        """Hangs up on a client whose header or trailer is too long, and says so unless another answer is due first."""
        path = self.url.partition(b"?")[0][:MOST_PATH_BYTES].decode("latin-1")
        error = HeaderTooLarge(MOST_HEADERS, MOST_HEADER_BYTES)
        self._hang_up(error, self.parser.get_method().decode("latin-1"), path)

    def _hang_up(self, error: ServiceError, method: str, path: str) -> None:
        """Answers what was not read to its end, unless another answer is due first, and closes."""
        if self.transport.is_closing():
            return
        seen = self._service.observer.begin(method, path, self.client, {})
        response = problem_of(error, seen)
        seen.status = response.status_code
        if self.cycle is None or self.cycle.response_complete:
            self._send(response, seen, keep_alive=False)
        self.transport.close()
        self._service.observer.end(seen)

    def _may_stay(self) -> bool:
        return bool(self.parser.should_keep_alive()) and self.parser.get_http_version() != "1.0"

    def _send(self, response: Response, seen: Observation, keep_alive: bool) -> None:
        self.transport.write(self._written(response, seen, keep_alive))

    def _written(self, response: Response, seen: Observation, keep_alive: bool) -> bytes:
        defaults = self.server_state.default_headers
        if defaults is not self._defaults:  # uvicorn makes a new list every second
            self._defaults = defaults
            self._default_lines = b"".join(b"%b: %b\r\n" % header for header in defaults)
        parts = [STATUS_LINE[response.status_code], self._default_lines]
        for name, value in response.raw_headers:
            parts += (name, b": ", value, b"\r\n")
        parts += (b"x-request-id: ", seen.request_id.encode(), b"\r\n")
        parts += (b"\r\n" if keep_alive else b"connection: close\r\n\r\n", bytes(response.body))
        return b"".join(parts)
