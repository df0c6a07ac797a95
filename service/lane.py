"""A fast lane beside ASGI for requests with rows.

All that is done with a few rows takes less time than the scope, the task, the events and the messages that ASGI needs
for a request. So such requests are answered where the last of their bytes is read; everything else (bodies that are
long, slow, compressed or without a length, other paths, clients that don't read) goes ASGI's way, as it would without
this. uvicorn makes its scope and its cycle of a request only when it goes there.
"""

import asyncio
import re
import socket
import struct
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

import httptools
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.access import Access
from service.connections import ALWAYS, RESERVE, RESERVE_SECONDS
from service.deadlines import ENVOY_TIMEOUT, TIMEOUT, check_deadline, set_deadline
from service.detector import Detector
from service.errors import BodyTooLarge, HeaderTooLarge, InternalError, Refused, ServiceError
from service.graphs import Matrix
from service.inference import INLINE_BYTES, Exchange, Operation, Service
from service.keys import SCORE
from service.ledger import Observation
from service.observation import CLIENT_CLOSED_REQUEST, is_of_protocol, log_unforeseen, problem_of
from service.routes import OPERATIONS

T = TypeVar("T")

SCORING = OPERATIONS["/score"]

BY_PATH = {path.encode(): (path, operation) for path, operation in OPERATIONS.items()}

INFER = re.compile(rb"/v2/models/[^/]+(?:/versions/[^/]+)?/infer")
"""The other paths that rows are posted to."""

INFER_ENDPOINT = "/v2/models/{model}/infer"
"""What they are counted as when they are refused unread."""

NO_LINGERING = struct.pack("ii", 1, 0)
"""The value of SO_LINGER with which a connection is reset, and not kept until its client has taken all."""

MOST_MILLISECONDS = 2**31 - 1

MOST_RENDERED = 64
"""Refusals that are kept to be used again."""

SOME_ID = "ID" * 16
"""Stands for a request's id in them, and has its length."""

MOST_DIGITS = 10
"""Digits of a length that is worth being looked at."""

HELD_SECONDS = 1.0
"""How long a request may stay in the lane before it is complete; ASGI's way has its own limit behind this."""

MOST_HEADER_BYTES = 2**15
"""Bytes of a request's URL and header, or of the trailer behind a chunked body; what was read at once may be more."""

MOST_HEADERS = 100

MOST_PATH_BYTES = 256
"""Bytes of the path that are logged if a header is too long."""


class Nobody:
    """Stands for uvicorn's event of a request that no task waits for."""

    def set(self) -> None:
        """Wakes nobody."""


class Held:
    """A request in the lane, in the place where uvicorn has the cycle of one that goes ASGI's way.

    Attributes:
        path: Its path, without the query.
        operation: What is asked for.
        query: Its query.
        headers: Its header, names in lower case.
        key: The name of its key, if keys are asked for.
        chunks: The parts of its body.
        keep_alive: Whether the connection stays open behind it.
        response_complete: Whether it was answered.
        disconnected: Whether the client hung up.
        started: When its header was complete, by `time.perf_counter`.
    """

    __slots__ = (
        "chunks",
        "disconnected",
        "headers",
        "keep_alive",
        "key",
        "operation",
        "path",
        "query",
        "response_complete",
        "started",
    )

    message_event = Nobody()

    def __init__(
        self, path: str, operation: Operation, query: bytes, headers: dict[bytes, bytes], key: str, keep_alive: bool
    ) -> None:
        self.path = path
        self.query = query
        self.operation = operation
        self.headers = headers
        self.key = key
        self.keep_alive = keep_alive
        self.started = time.perf_counter()
        self.chunks: list[bytes] = []
        self.response_complete = False
        self.disconnected = False


class LaneProtocol(HttpToolsProtocol):
    """uvicorn's protocol with the fast lane, and one timer per connection that outlives its requests."""

    _held: Held | None = None
    """A request of the lane whose body is still incomplete."""

    _timer: asyncio.TimerHandle | None = None

    _access: Access | None = None
    """Who may ask for what; everybody for everything, unless given."""

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
        self._access = self._service.observer.access
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
        """Reads bytes; a request that is incomplete with them may wait for the rest, but not for long."""
        self._long_read = len(data) > MOST_HEADER_BYTES
        if self._header_bytes is not None:
            self._header_bytes += len(data)
        self._unset_keepalive_if_required()
        rest: bytes | None = data
        while rest is not None:
            rest = self._parse(rest)
        if self._header_bytes is not None and self._header_bytes > MOST_HEADER_BYTES:
            self._refuse_header()
        held = self._held
        if held is not None and self._timer is None:
            declared = held.headers.get(b"content-length", b"")
            if declared.isdigit() and len(declared) < MOST_DIGITS and int(declared) <= INLINE_BYTES:
                self._timer = self.loop.call_later(HELD_SECONDS, self._leave_lane)
            else:
                self._leave_lane()

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
        """Lets ASGI find out about a request that will never be complete."""
        if self._held is not None:
            self._leave_lane()
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
        """Chooses the way of a request, or refuses it before its body is read.

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
            return
        path, _, query = self.url.partition(b"?")
        known = BY_PATH.get(path)
        before = self.cycle
        gate = self._service.gate
        if gate.under_way >= gate.limit or self._surplus:
            error = self._objection(path)
            if error is not None:
                self._refuse(path, error)
                return
        if (
            known is None
            or self.parser.get_method() != b"POST"
            or self.expect_100_continue
            or self.root_path
            or self.limit_concurrency is not None
            or not (before is None or before.response_complete)
            or b"#" in query
        ):
            self._begin_asgi()
            return
        headers, key = dict(self.headers), ""
        if self._access is not None:
            try:
                key = self._access.holder(SCORE, headers)
            except Refused:
                self._begin_asgi()  # which refuses it without waiting for its body
                return
        self._held = Held(*known, query, headers, key, self._may_stay())
        self.cycle = cast(Any, self._held)

    def on_chunk_header(self) -> None:
        """Counts what comes behind a chunk's length, which is a trailer if the length is 0."""
        self._header_bytes = 0

    def on_chunk_complete(self) -> None:
        """Ends counting."""
        self._header_bytes = None

    def on_body(self, body: bytes) -> None:
        """Keeps a part of a body."""
        self._header_bytes = None
        if self._held is None:
            super().on_body(body)
        else:
            self._held.chunks.append(body)

    def on_message_complete(self) -> None:
        """Answers a request that is held, now that it is complete."""
        held = self._held
        if held is None:
            if self._offers_upgrade:
                return
            super().on_message_complete()
            refused: Any = self.cycle
            if isinstance(refused, Held) and not refused.keep_alive:  # it was to be read to its end first
                self.transport.close()
            return
        body = held.chunks[0] if len(held.chunks) == 1 else b"".join(held.chunks)
        if len(body) > INLINE_BYTES or b"content-encoding" in held.headers or self.flow.write_paused:
            self._leave_lane()
            super().on_message_complete()
        else:
            self._let_go()
            self._answer(held, body)

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

    def _let_go(self) -> None:
        self._held = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _leave_lane(self) -> None:
        held = self._held
        self._let_go()
        if held is not None:
            self.headers = list(held.headers.items())
            held.response_complete = True  # for uvicorn, which would queue what comes behind an unanswered request
            self._begin_asgi()
            self.cycle.keep_alive = self.cycle.keep_alive and held.keep_alive
            for chunk in held.chunks:
                super().on_body(chunk)

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
        return self._held is not None or (not self.pipeline and getattr(self.cycle, "more_body", False))

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

    def _objection(self, path: bytes) -> ServiceError | None:
        """Returns why a request whose header was read is refused, if it is."""
        service = self._service
        if self._surplus and path not in ALWAYS:
            return service.connections.refusal()
        rows = path in BY_PATH or INFER.fullmatch(path)
        if rows and self.parser.get_method() == b"POST" and service.gate.under_way >= service.gate.limit:
            return service.gate.refusal()
        return None

    def _refuse(self, path: bytes, error: ServiceError) -> None:
        """Answers a request whose body was not read; it is not kept when it comes."""
        if not (self.cycle is None or self.cycle.response_complete):  # it is not this one's turn
            self._begin_asgi()
            return
        name, headers, service = path.decode("latin-1"), dict(self.headers), self._service
        stays = self._may_stay() and not (self._surplus or service.draining or self.expect_100_continue)
        held = Held(name, SCORING, b"", headers, "", stays)
        held.response_complete = True
        self.cycle = cast(Any, held)
        seen = service.observer.begin(self.parser.get_method().decode(), name, self.client, headers, held.started)
        if path in BY_PATH:
            seen.endpoint = name
        elif INFER.fullmatch(path):
            seen.endpoint = INFER_ENDPOINT
        seen.status, seen.kind = int(error.status), error.kind
        self.transport.write(self._rendered(error, seen, stays))
        if self.expect_100_continue:  # it may send another request in the place of the body that it kept back
            self.transport.close()
        self.on_response_complete()
        service.observer.end(seen)

    def _rendered(self, error: ServiceError, seen: Observation, keep_alive: bool) -> bytes:
        """Writes an answer that only differs in its id from others of the same second.

        While much is refused this is most of what a refusal costs, and it goes at the expense of what is not.
        """
        dates, known, given = self.server_state.default_headers, self._service.rendered, seen.request_id
        key = (id(dates), str(error), is_of_protocol(seen.path), keep_alive)
        if len(given) != len(SOME_ID):
            return self._written(problem_of(error, seen), seen, keep_alive)
        if key not in known:
            if len(known) >= MOST_RENDERED:
                known.clear()
            seen.request_id = SOME_ID
            known[key] = dates, self._written(problem_of(error, seen), seen, keep_alive)
            seen.request_id = given
        return known[key][1].replace(SOME_ID.encode(), given.encode())

    def _may_stay(self) -> bool:
        return bool(self.parser.should_keep_alive()) and self.parser.get_http_version() != "1.0"

    def _answer(self, held: Held, body: bytes) -> None:
        service = self._service
        seen = service.observer.begin("POST", held.path, self.client, held.headers, held.started)
        seen.endpoint, seen.key = held.path, held.key
        seen.read = seen.lap()
        gate = service.gate
        if gate.busy or held.started > service.ledger.turn_ends:
            waiting = partial(self._answer_after_waiting, held, body, seen)
            refused = answered(partial(gate.put, waiting), seen)
            if refused is not None:
                self._respond(held, seen, refused)
        else:
            self._answer_now(held, body, seen)

    def _answer_after_waiting(self, held: Held, body: bytes, seen: Observation) -> None:
        seen.waited()
        if held.disconnected:
            self._respond(held, seen, None)
        else:
            self._answer_now(held, body, seen)

    def _answer_now(self, held: Held, body: bytes, seen: Observation) -> None:
        service, headers, operation = self._service, held.headers, held.operation

        def work() -> Response | None:
            if TIMEOUT in headers or ENVOY_TIMEOUT in headers:
                set_deadline(seen, headers)
                check_deadline(seen)
            exchange = service.exchange(operation, headers, held.query, seen)
            limit = service.settings.max_body_bytes
            if len(body) > limit:
                raise BodyTooLarge(str(len(body)), limit)
            detector, rows = exchange.read(body)
            seen.parse = seen.lap()
            alone = len(self.connections) == 1
            elsewhere = service.elsewhere(detector, operation.graph, rows, len(body), alone)
            if elsewhere is None:
                if seen.deadline is not None:
                    check_deadline(seen)
                results = detector.run(operation.graph, rows)
                seen.infer = seen.lap()
                return exchange.write(detector, rows, results)
            service.gate.enter(long=False)
            elsewhere.add(rows, partial(finish, exchange, detector, rows), partial(check_wanted, held, seen))
            return None

        def finish(
            exchange: Exchange, detector: Detector, rows: Matrix, results: Matrix | Exception, seconds: float
        ) -> None:
            def write() -> Response:
                seen.inferred(seconds)
                if isinstance(results, Exception):
                    raise results
                return exchange.write(detector, rows, results)

            service.gate.leave(long=False)
            self._respond(held, seen, None if held.disconnected else answered(write, seen))

        response = answered(work, seen)
        if response is not None:
            self._respond(held, seen, response)

    def _respond(self, held: Held, seen: Observation, response: Response | None) -> None:
        """Sends an answer, or notes that there is nobody to send it to.

        Arguments:
            held: The request.
            seen: What is known about it.
            response: The answer; none if the client hung up before there was one.
        """
        held.response_complete = True
        if response is None or held.disconnected or self.transport.is_closing():  # also by what came behind it
            seen.status, seen.kind = CLIENT_CLOSED_REQUEST, "client_disconnected"
        else:
            seen.status = response.status_code
            if self._service.draining:
                held.keep_alive = False
            self._send(response, seen, held.keep_alive)
            if not held.keep_alive:
                self.transport.close()
            self.on_response_complete()
        self._service.observer.end(seen)

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


def check_wanted(held: Held, seen: Observation) -> None:
    """Checks that somebody waits for what a request asks for.

    Raises:
        ClientDisconnect: The client hung up.
        DeadlineExceeded: It waits no longer.
    """
    if held.disconnected:
        raise ClientDisconnect
    check_deadline(seen)


def answered(work: Callable[[], T], seen: Observation) -> T | Response:
    """Returns what some work does, or the answer to the error it ends in."""
    try:
        return work()
    except ServiceError as error:
        return problem_of(error, seen)
    except Exception:  # noqa: BLE001 - the log has it
        log_unforeseen(seen)
        return problem_of(InternalError(), seen)
