"""A fast lane beside ASGI for requests with rows.

All that is done with a few rows takes less time than the task, the events and the messages that ASGI needs for a
request. So such requests are answered where the last of their bytes is read; everything else (bodies that are long,
slow, compressed or without a length, other paths, clients that don't read) goes ASGI's way, as it would without this.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

from starlette.responses import Response
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from service.detector import Detector, Matrix
from service.errors import BodyTooLarge, InternalError, ServiceError
from service.inference import INLINE_BYTES, Exchange, Operation, Service
from service.ledger import Observation
from service.observation import CLIENT_CLOSED_REQUEST, log_unforeseen, problem_of
from service.routes import OPERATIONS

T = TypeVar("T")

COPIED_BYTES = 2**16
"""Shorter bodies are read faster from a copy, for simdjson takes bytes at once and a bytearray in a roundabout way."""

MOST_DIGITS = 10
"""Digits of a length that is worth being looked at."""


HELD_SECONDS = 1.0
"""How long a request may stay in the lane before it is complete; ASGI's way has its own limit behind this."""


class LaneProtocol(HttpToolsProtocol):
    """uvicorn's protocol with the fast lane."""

    _held: RequestResponseCycle | None = None
    """A request of the lane whose body is still incomplete."""

    _timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Reads bytes; a request that is incomplete with them may wait for the rest, but not for long."""
        super().data_received(data)
        if self._held is not None and self._timer is None:
            declared = dict(self._held.scope["headers"]).get(b"content-length", b"")
            if declared.isdigit() and len(declared) < MOST_DIGITS and int(declared) <= INLINE_BYTES:
                self._timer = self.loop.call_later(HELD_SECONDS, self._leave_lane)
            else:
                self._leave_lane()

    def connection_lost(self, exc: Exception | None) -> None:
        """Lets ASGI find out about a request that will never be complete."""
        super().connection_lost(exc)
        if self._held is not None:
            self._leave_lane()

    def on_body(self, body: bytes) -> None:
        """Keeps a part of a body."""
        if self._held is None:
            super().on_body(body)
        else:
            self._held.body += body

    def on_message_complete(self) -> None:
        """Answers a request that is held, now that it is complete."""
        super().on_message_complete()
        cycle = self._held
        if cycle is None:
            return
        headers = dict(cycle.scope["headers"])
        if len(cycle.body) > INLINE_BYTES or b"content-encoding" in headers or self.flow.write_paused:
            self._leave_lane()
        else:
            self._let_go()
            self._answer(cycle, headers, OPERATIONS[cycle.scope["path"]])

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401 - uvicorn's
        scope = cycle.scope
        rows = scope["method"] == "POST" and scope["path"] in OPERATIONS
        if rows and cycle.more_body and not cycle.waiting_for_100_continue:
            self._held = cycle
        else:
            super()._start_asgi_task(cycle, app)

    def _let_go(self) -> None:
        self._held = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _leave_lane(self) -> None:
        cycle = self._held
        self._let_go()
        if cycle is not None:
            cycle.message_event.set()
            super()._start_asgi_task(cycle, self.app)

    def _answer(self, cycle: RequestResponseCycle, headers: dict[bytes, bytes], operation: Operation) -> None:
        service: Service = self.app.state.service
        seen = service.observer.begin(cast(Scope, cycle.scope), headers)
        seen.endpoint = seen.path

        def work() -> Response | None:
            exchange = service.exchange(operation, headers, cycle.scope["query_string"], seen)
            limit = service.settings.max_body_bytes
            if len(cycle.body) > limit:
                raise BodyTooLarge(str(len(cycle.body)), limit)
            service.admit()
            batcher = None
            try:
                short = len(cycle.body) <= COPIED_BYTES
                detector, rows = exchange.read(bytes(cycle.body) if short else cycle.body)
                batcher = service.batcher(detector, operation.graph, rows)
                if batcher is None:
                    return exchange.write(detector, rows, detector.run(operation.graph, rows))
            finally:
                if batcher is None:
                    service.under_way -= 1
            batcher.add(rows, partial(finish, exchange, detector, rows))
            return None

        def finish(exchange: Exchange, detector: Detector, rows: Matrix, results: Matrix | Exception) -> None:
            def write() -> Response:
                if isinstance(results, Exception):
                    raise results
                return exchange.write(detector, rows, results)

            service.under_way -= 1
            self._respond(cycle, service, seen, answered(write, seen))

        response = answered(work, seen)
        if response is not None:
            self._respond(cycle, service, seen, response)

    def _respond(self, cycle: RequestResponseCycle, service: Service, seen: Observation, response: Response) -> None:
        cycle.response_started = cycle.response_complete = True
        if cycle.disconnected:
            seen.status, seen.kind = CLIENT_CLOSED_REQUEST, "client_disconnected"
        else:
            seen.status = response.status_code
            parts = [STATUS_LINE[seen.status]]
            for name, value in (*self.server_state.default_headers, *response.raw_headers):
                parts += (name, b": ", value, b"\r\n")
            parts += (b"x-request-id: ", seen.request_id.encode(), b"\r\n")
            parts += (b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n", bytes(response.body))
            self.transport.write(b"".join(parts))
            if not cycle.keep_alive:
                self.transport.close()
            self.on_response_complete()
        service.observer.end(seen)


def answered(work: Callable[[], T], seen: Observation) -> T | Response:
    """Returns what some work does, or the answer to the error it ends in."""
    try:
        return work()
    except ServiceError as error:
        return problem_of(error, seen)
    except Exception:  # noqa: BLE001 - the log has it
        log_unforeseen(seen)
        return problem_of(InternalError(), seen)
