"""A fast lane beside ASGI for requests with rows.

All that is done with a few rows takes less time than the scope, the task, the events and the messages that ASGI needs
for a request. So such requests are answered where the last of their bytes is read; everything else (bodies that are
long, slow, compressed or without a length, other paths, clients that don't read) goes ASGI's way, as it would without
this. uvicorn makes its scope and its cycle of a request only when it goes there.
"""

import asyncio
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

from starlette.requests import ClientDisconnect
from starlette.responses import Response

from service.access import Access
from service.connections import ALWAYS
from service.deadlines import ENVOY_TIMEOUT, TIMEOUT, check_deadline, set_deadline
from service.detector import Detector
from service.errors import BodyTooLarge, InternalError, Refused, ServiceError
from service.exchange import Exchange, Operation
from service.graphs import Matrix
from service.inference import INLINE_BYTES
from service.keys import SCORE
from service.ledger import Observation
from service.observation import CLIENT_CLOSED_REQUEST, is_of_protocol, log_unforeseen, problem_of
from service.protocol import GuardedProtocol
from service.routes import OPERATIONS

T = TypeVar("T")

SCORING = OPERATIONS["/score"]

BY_PATH = {path.encode(): (path, operation) for path, operation in OPERATIONS.items()}

INFER = re.compile(rb"/v2/models/[^/]+(?:/versions/[^/]+)?/infer")
"""The other paths that rows are posted to."""

INFER_ENDPOINT = "/v2/models/{model}/infer"
"""What they are counted as when they are refused unread."""

MOST_RENDERED = 64
"""Refusals that are kept to be used again."""

SOME_ID = "ID" * 16
"""Stands for a request's id in them, and has its length."""

MOST_DIGITS = 10
"""Digits of a length that is worth being looked at."""

HELD_SECONDS = 1.0
"""How long a request may stay in the lane before it is complete; ASGI's way has its own limit behind this."""


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


class LaneProtocol(GuardedProtocol):
    """A guarded protocol with the fast lane."""

    _held: Held | None = None
    """A request of the lane whose body is still incomplete."""

    _timer: asyncio.TimerHandle | None = None

    _access: Access | None = None
    """Who may ask for what; everybody for everything, unless given."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins with a connection."""
        super().connection_made(transport)
        self._access = self._service.observer.access

    def data_received(self, data: bytes) -> None:
        """Reads bytes; a request that is incomplete with them may wait for the rest, but not for long."""
        super().data_received(data)
        held = self._held
        if held is not None and self._timer is None:
            declared = held.headers.get(b"content-length", b"")
            if declared.isdigit() and len(declared) < MOST_DIGITS and int(declared) <= INLINE_BYTES:
                self._timer = self.loop.call_later(HELD_SECONDS, self._leave_lane)
            else:
                self._leave_lane()

    def connection_lost(self, exc: Exception | None) -> None:
        """Lets ASGI find out about a request that will never be complete."""
        if self._held is not None:
            self._leave_lane()
        super().connection_lost(exc)

    def begin_request(self) -> None:
        """Chooses the way of a request, or refuses it before its body is read."""
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

    def take_body(self, body: bytes) -> None:
        """Keeps a part of a body."""
        if self._held is None:
            super().take_body(body)
        else:
            self._held.chunks.append(body)

    def on_message_complete(self) -> None:
        """Answers a request that is held, now that it is complete."""
        held = self._held
        if held is None:
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
                super().take_body(chunk)

    def _reads_body(self) -> bool:
        return self._held is not None or super()._reads_body()

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
