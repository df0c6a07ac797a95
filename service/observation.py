"""What stands around all routes: every request gets an id and an answer, and is counted and logged.

A plain ASGI application: starlette's BaseHTTPMiddleware costs ten times as much as scoring a row.
"""

import asyncio
import itertools
import logging
import os
import re
from collections.abc import Mapping
from http import HTTPStatus

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access import Access
from service.errors import InternalError, Refused, ServiceError, ShuttingDown
from service.ledger import Ledger, Observation
from service.problems import problem, protocol_error

logger = logging.getLogger(__name__)

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
TRACE_HEADERS = (b"traceparent", b"tracestate")
"""Where a caller says which trace a request is a part of (W3C Trace Context)."""

MOST_TRACE_BYTES = 512
"""Longer ones are not looked at: the most that the recommendation wants to be passed on."""

PROTOCOL = "/v2"
"""Where the Open Inference Protocol's paths begin."""

CLIENT_CLOSED_REQUEST = 499
"""The status under which a client that hung up is logged and counted; it never sees an answer."""


CLOSED = "the handler is closed"
"""What uvloop says to a write on a connection that the client has just cut, before anybody is told of it."""


def observation(request: Request) -> Observation:
    """Returns what is known about a request so far, to be added to."""
    found: Observation = request.scope["observation"]
    return found


def problem_of(error: ServiceError, seen: Observation) -> Response:
    """Returns the answer to a request that ends in an error, and notes its kind."""
    return refusal(seen, error.status, str(error), error.kind, error.headers)


def refusal(seen: Observation, status: HTTPStatus, detail: str, kind: str, headers: dict[str, str]) -> Response:
    """Returns the answer that tells a client what is wrong, in the form its path stands for, and notes its kind."""
    seen.kind = kind
    if is_of_protocol(seen.path):
        return protocol_error(status, detail, headers)
    return problem(status, detail, kind, seen.request_id, headers)


def is_of_protocol(path: str) -> bool:
    """Tells whether a path is one of the Open Inference Protocol's."""
    return path == PROTOCOL or path.startswith(f"{PROTOCOL}/")


class Observer:
    """Gives requests their ids, and the ledger what became of them.

    Arguments:
        ledger: Where requests are counted and logged.
        access: Who may ask for what; everybody for everything, unless given.
    """

    def __init__(self, ledger: Ledger, access: Access | None = None) -> None:
        self.access = access
        self._ledger = ledger
        self._prefix = os.urandom(8).hex()
        self._ids = itertools.count()

    def begin(
        self,
        method: str,
        path: str,
        client: tuple[str, int] | None,
        headers: Mapping[bytes, bytes],
        started: float | None = None,
    ) -> Observation:
        """Begins to observe a request; its id is the client's own if that is harmless to log.

        Arguments:
            method: Its method.
            path: Its path.
            client: The address and port it comes from.
            headers: Its header, names in lower case.
            started: When its header was complete, by `time.perf_counter`; now, unless given.
        """
        sent = headers.get(b"x-request-id")
        new = sent is None or not REQUEST_ID.fullmatch(sent)
        self._ledger.in_flight += 1
        seen = Observation(
            f"{self._prefix}{next(self._ids):016x}" if new else sent.decode(),  # type: ignore[union-attr]
            method,
            path,
            client[0] if client else None,
            started,
        )
        if self._ledger.traces is not None:
            seen.trace_headers = {
                name.decode(): headers[name].decode("latin-1")
                for name in TRACE_HEADERS
                if len(headers.get(name, b"")) in range(1, MOST_TRACE_BYTES + 1)
            }
        return seen

    def end(self, seen: Observation) -> None:
        """Ends it."""
        self._ledger.in_flight -= 1
        self._ledger.add(seen)


class ObservationMiddleware:
    """Gives every request an id, refuses those that aren't let in, and turns an unforeseen error into a logged 500.

    Arguments:
        app: The routes.
        observer: What observes requests.
    """

    def __init__(self, app: ASGIApp, observer: Observer) -> None:
        self.app = app
        self.observer = observer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers an ASGI request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method, path, client = scope["method"], scope["path"], scope.get("client")
        headers = dict(scope["headers"])
        seen = scope["observation"] = self.observer.begin(method, path, client, headers)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", seen.request_id.encode())]
            try:
                await send(message)
            except RuntimeError as error:
                if CLOSED not in str(error):
                    raise
                raise ClientDisconnect from error

        try:
            if self.observer.access is not None:
                seen.key = self.observer.access.admit(path, headers)
            await self.app(scope, receive, send_with_id)
        except Refused as error:
            seen.key, answer = error.key, problem_of(error, seen)
            if b"expect" in headers:  # it may now send another request in the place of the body that it kept back
                answer.headers["connection"] = "close"
            await answer(scope, receive, send_with_id)
        except ClientDisconnect:
            seen.status, seen.kind = CLIENT_CLOSED_REQUEST, "client_disconnected"
        except asyncio.CancelledError:  # the time that SIGTERM leaves to requests under way is over
            await self._answer(ShuttingDown(), seen, scope, receive, send_with_id)
        except Exception:  # noqa: BLE001 - the log has it
            log_unforeseen(seen)
            await self._answer(InternalError(), seen, scope, receive, send_with_id)
        finally:
            seen.endpoint = getattr(scope.get("route"), "path", seen.endpoint)
            self.observer.end(seen)

    async def _answer(self, error: ServiceError, seen: Observation, scope: Scope, receive: Receive, send: Send) -> None:
        if not seen.status:
            await problem_of(error, seen)(scope, receive, send)


def log_unforeseen(seen: Observation) -> None:
    """Logs the exception that is being handled."""
    logger.exception("unforeseen error", extra={"fields": {"request_id": seen.request_id}})
