"""Errors as ``application/problem+json`` (RFC 9457)."""

from http import HTTPStatus

import orjson
from starlette.responses import Response

TITLES = {
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Content Too Large",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Unprocessable Content",
}
"""RFC 9110's phrases where Python's depend on its version."""


def problem(
    status: HTTPStatus, detail: str, kind: str, request_id: str, headers: dict[str, str] | None = None
) -> Response:
    """Returns the answer that tells a client what is wrong.

    Arguments:
        status: The HTTP status, whose phrase is the title.
        detail: One sentence, naming the field and the value it had.
        kind: A word for machines.
        request_id: The id under which the log has the request.
        headers: Further headers.
    """
    body = {
        "type": "about:blank",
        "title": TITLES.get(status, status.phrase),
        "status": status,
        "detail": detail.encode(errors="backslashreplace").decode(),  # a client's lone surrogates are not UTF-8
        "kind": kind,
        "request_id": request_id,
    }
    return Response(orjson.dumps(body), status, headers, media_type="application/problem+json")
