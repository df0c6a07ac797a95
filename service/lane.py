"""A fast lane beside ASGI for requests with rows that arrive whole.

Most requests for a few rows come in one piece, and all that is done with them takes less time than the task, the
events and the messages that ASGI needs for each. They are answered where their bytes are read; everything else (bodies
in parts, compressed or long ones, other paths, clients that don't read) goes ASGI's way, as it would without this.
"""

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
from service.routes import SHORTCUTS

T = TypeVar("T")


class LaneProtocol(HttpToolsProtocol):
    """uvicorn's protocol with the fast lane."""

    _held: RequestResponseCycle | None = None
    """A request of the lane whose body may still be incomplete."""

    def data_received(self, data: bytes) -> None:
        """Reads bytes; a request that is not complete with them goes ASGI's way."""
        super().data_received(data)
        if self._held is not None:
            self._leave_lane(self._held)

    def on_message_complete(self) -> None:
        """Answers a request that is held, now that it is complete."""
        super().on_message_complete()
        cycle, self._held = self._held, None
        if cycle is None:
            return
        headers = dict(cycle.scope["headers"])
        if len(cycle.body) > INLINE_BYTES or b"content-encoding" in headers or self.flow.write_paused:
            self._leave_lane(cycle)
        else:
            self._answer(cycle, headers, SHORTCUTS[cycle.scope["method"], cycle.scope["path"]])

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:  # noqa: ANN401 - uvicorn's
        scope = cycle.scope
        if (scope["method"], scope["path"]) in SHORTCUTS and cycle.more_body and not cycle.waiting_for_100_continue:
            self._held = cycle
        else:
            super()._start_asgi_task(cycle, app)

    def _leave_lane(self, cycle: RequestResponseCycle) -> None:
        self._held = None
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
                detector, rows = exchange.read(bytes(cycle.body))
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
