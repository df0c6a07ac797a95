"""What stands around all routes: every request gets an id and an answer, and is counted and logged.

A plain ASGI application: starlette's BaseHTTPMiddleware costs ten times as much as scoring a row.
"""

import asyncio
import itertools
import logging
import os
import re
from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import InternalError, ServiceError, ShuttingDown
from service.ledger import Ledger, Observation
from service.problems import problem

logger = logging.getLogger(__name__)

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
CLIENT_CLOSED_REQUEST = 499
"""The status under which a client that hung up is logged and counted; it never sees an answer."""

Shortcut = Callable[[Mapping[bytes, bytes], bytes, Receive, Observation], Awaitable[Response]]
"""What answers a request, given its headers, its query, its body and what is known about it."""


def observation(request: Request) -> Observation:
    """Returns what is known about a request so far, to be added to."""
    found: Observation = request.scope["observation"]
    return found


def problem_of(error: ServiceError, seen: Observation) -> Response:
    """Returns the answer to a request that ends in an error, and notes its kind."""
    seen.kind = error.kind
    return problem(error.status, str(error), error.kind, seen.request_id, error.headers)


class ObservationMiddleware:
    """Gives every request an id, and turns an unforeseen error into a logged 500.

    Arguments:
        app: The routes.
        ledger: Where requests are counted and logged.
        shortcuts: What answers requests of a method and path at once: routing, which finds no parameters in their
            paths, would cost as much as scoring a row.
    """

    def __init__(self, app: ASGIApp, ledger: Ledger, shortcuts: Mapping[tuple[str, str], Shortcut]) -> None:
        self.app = app
        self.ledger = ledger
        self.shortcuts = shortcuts
        self._ids = itertools.count()
        self._prefix = ""
        self._process = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers an ASGI request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method, path, client = scope["method"], scope["path"], scope.get("client")
        headers = dict(scope["headers"])
        sent_id = headers.get(b"x-request-id")
        seen = Observation(
            sent_id.decode() if sent_id and REQUEST_ID.fullmatch(sent_id) else self.new_id(),
            method,
            path,
            client[0] if client else None,
        )
        scope["observation"] = seen
        shortcut = self.shortcuts.get((method, path))
        self.ledger.in_flight += 1
        try:
            if shortcut is None:
                await self._route(scope, receive, send, seen)
            else:
                seen.endpoint = path
                await answer(await shortcut(headers, scope["query_string"], receive, seen), send, seen)
        except ServiceError as error:
            await answer(problem_of(error, seen), send, seen)
        except ClientDisconnect:
            seen.status, seen.kind = CLIENT_CLOSED_REQUEST, "client_disconnected"
        except asyncio.CancelledError:  # the time that SIGTERM leaves to requests under way is over
            await answer_if_none(ShuttingDown(), send, seen)
        except Exception:
            logger.exception("unforeseen error", extra={"fields": {"request_id": seen.request_id}})
            await answer_if_none(InternalError(), send, seen)
        finally:
            self.ledger.in_flight -= 1
            self.ledger.add(seen)

    def new_id(self) -> str:
        """Returns an id that no other request has: random for the process, and counted in it."""
        if self._process != os.getpid():
            self._process, self._prefix = os.getpid(), os.urandom(8).hex()
        return f"{self._prefix}{next(self._ids):016x}"

    async def _route(self, scope: Scope, receive: Receive, send: Send, seen: Observation) -> None:
        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", seen.request_id.encode())]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            seen.endpoint = getattr(scope.get("route"), "path", seen.endpoint)


async def answer(response: Response, send: Send, seen: Observation) -> None:
    """Sends a whole response, with the request's id."""
    seen.status = response.status_code
    headers = [*response.raw_headers, (b"x-request-id", seen.request_id.encode())]
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


async def answer_if_none(error: ServiceError, send: Send, seen: Observation) -> None:
    """Sends an error, unless something else was sent already."""
    if not seen.status:
        await answer(problem_of(error, seen), send, seen)
