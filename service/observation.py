"""What is measured and logged about every request, around all routes.

A plain ASGI application: starlette's BaseHTTPMiddleware costs ten times as much as scoring a row.
"""

import asyncio
import logging
import re
import time
import uuid
from dataclasses import dataclass, field
from http import HTTPStatus

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import InternalError, ServiceError, ShuttingDown
from service.metrics import ServiceMetrics
from service.problems import problem

logger = logging.getLogger(__name__)
access_log = logging.getLogger("service.access")

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
CLIENT_CLOSED_REQUEST = 499
"""The status under which a client that hung up is logged and counted; it never sees an answer."""

OTHER = "other"
"""The endpoint label of requests that match no route."""


def request_id(sent: str | None) -> str:
    """Returns the client's request id if it is harmless to log, else a new one."""
    return sent if sent and REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex


@dataclass
class Observation:
    """What is known about a request so far.

    Attributes:
        request_id: The id the client sent, or a new one.
        dataset: The dataset, once it was looked up and found.
        rows: The number of rows that were scored, encoded or decoded.
        kind: The kind of error it was answered with.
        status: The HTTP status of its answer.
    """

    request_id: str
    dataset: str = ""
    rows: int = 0
    kind: str = ""
    status: int = 0
    started: float = field(default_factory=time.perf_counter)


def observation(request: Request) -> Observation:
    """Returns what is known about a request so far, to be added to."""
    found: Observation = request.scope["observation"]
    return found


def problem_of(error: ServiceError, seen: Observation) -> Response:
    """Returns the answer to a request that ends in an error, and notes its kind."""
    seen.kind = error.kind
    return problem(error.status, str(error), error.kind, seen.request_id, error.headers)


class ObservationMiddleware:
    """Times every request, counts it, logs it and gives it an id; turns an unforeseen error into a logged 500."""

    def __init__(self, app: ASGIApp, metrics: ServiceMetrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers an ASGI request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent_id = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), None)
        seen = scope["observation"] = Observation(request_id(sent_id))

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", seen.request_id.encode())]
            await send(message)

        with self.metrics.in_flight.track_inprogress():
            try:
                await self.app(scope, receive, send_with_id)
            except ClientDisconnect:
                seen.status, seen.kind = CLIENT_CLOSED_REQUEST, "client_disconnected"
            except asyncio.CancelledError:  # the time that SIGTERM leaves to requests under way is over
                await self._answer(ShuttingDown(), seen, scope, receive, send_with_id)
            except Exception:
                logger.exception("unforeseen error", extra={"fields": {"request_id": seen.request_id}})
                await self._answer(InternalError(), seen, scope, receive, send_with_id)
            finally:
                self._record(scope, seen)

    async def _answer(self, error: ServiceError, seen: Observation, scope: Scope, receive: Receive, send: Send) -> None:
        if not seen.status:
            await problem_of(error, seen)(scope, receive, send)

    def _record(self, scope: Scope, seen: Observation) -> None:
        seconds = time.perf_counter() - seen.started
        endpoint = getattr(scope.get("route"), "path", OTHER)
        self.metrics.request_seconds.labels(endpoint, seen.dataset, str(seen.status)).observe(seconds)
        if seen.status == HTTPStatus.OK and seen.rows:
            self.metrics.rows.labels(endpoint, seen.dataset).inc(seen.rows)
        if seen.kind:
            self.metrics.errors.labels(seen.kind).inc()
        if not access_log.isEnabledFor(logging.INFO):
            return
        client = scope.get("client")
        fields = {
            "request_id": seen.request_id,
            "client": client[0] if client else None,
            "method": scope["method"],
            "path": scope["path"],
            "status": seen.status,
            "milliseconds": round(1000 * seconds, 3),
            "dataset": seen.dataset,
            "rows": seen.rows or None,
            "error": seen.kind,
        }
        access_log.info(
            "request", extra={"fields": {name: value for name, value in fields.items() if value not in ("", None)}}
        )
