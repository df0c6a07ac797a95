"""What is measured and logged about every request, around all routes.

A plain ASGI application: starlette's BaseHTTPMiddleware costs ten times as much as scoring a row.
"""

import asyncio
import logging
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import InternalError, ServiceError, ShuttingDown
from service.logs import AccessLog
from service.metrics import ServiceMetrics
from service.problems import problem

logger = logging.getLogger(__name__)

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
CLIENT_CLOSED_REQUEST = 499
"""The status under which a client that hung up is logged and counted; it never sees an answer."""

OTHER = "other"
"""The endpoint label of requests that match no route."""


def request_id(sent: bytes | None) -> str:
    """Returns the client's request id if it is harmless to log, else a new one."""
    return sent.decode() if sent and REQUEST_ID.fullmatch(sent) else os.urandom(16).hex()


@dataclass(slots=True)
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


Endpoint = Callable[[Request], Awaitable[Response]]


class ObservationMiddleware:
    """Times every request, counts it, logs it and gives it an id; turns an unforeseen error into a logged 500.

    Arguments:
        app: The routes.
        metrics: What Prometheus scrapes.
        access_log: Where each request's line goes, if it is logged at all.
        shortcuts: Endpoints by method and path that are called at once: routing, which finds no parameters in their
            paths, would cost as much as scoring a row.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: ServiceMetrics,
        access_log: AccessLog | None,
        shortcuts: Mapping[tuple[str, str], Endpoint],
    ) -> None:
        self.app = app
        self.metrics = metrics
        self.access_log = access_log
        self.shortcuts = shortcuts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers an ASGI request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        seen = scope["observation"] = Observation(request_id(dict(scope["headers"]).get(b"x-request-id")))

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", seen.request_id.encode())]
            await send(message)

        endpoint = self.shortcuts.get((scope["method"], scope["path"]))
        self.metrics.in_flight.inc()
        try:
            if endpoint is None:
                await self.app(scope, receive, send_with_id)
            else:
                await (await self._respond(endpoint, scope, receive, seen))(scope, receive, send_with_id)
        except ClientDisconnect:
            seen.status, seen.kind = CLIENT_CLOSED_REQUEST, "client_disconnected"
        except asyncio.CancelledError:  # the time that SIGTERM leaves to requests under way is over
            await self._answer(ShuttingDown(), seen, scope, receive, send_with_id)
        except Exception:
            logger.exception("unforeseen error", extra={"fields": {"request_id": seen.request_id}})
            await self._answer(InternalError(), seen, scope, receive, send_with_id)
        finally:
            self.metrics.in_flight.dec()
            self._record(scope, seen, endpoint is not None)

    async def _respond(self, endpoint: Endpoint, scope: Scope, receive: Receive, seen: Observation) -> Response:
        try:
            return await endpoint(Request(scope, receive))
        except ServiceError as error:
            return problem_of(error, seen)

    async def _answer(self, error: ServiceError, seen: Observation, scope: Scope, receive: Receive, send: Send) -> None:
        if not seen.status:
            await problem_of(error, seen)(scope, receive, send)

    def _record(self, scope: Scope, seen: Observation, short: bool) -> None:
        seconds = time.perf_counter() - seen.started
        endpoint = scope["path"] if short else getattr(scope.get("route"), "path", OTHER)
        self.metrics.request(endpoint, seen.dataset, seen.status).observe(seconds)
        if seen.status == HTTPStatus.OK and seen.rows:
            self.metrics.rows(endpoint, seen.dataset).inc(seen.rows)
        if seen.kind:
            self.metrics.errors(seen.kind).inc()
        if self.access_log is None:
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
        self.access_log.add({name: value for name, value in fields.items() if value not in ("", None)})
