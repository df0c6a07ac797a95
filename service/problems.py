"""Errors as ``application/problem+json`` (RFC 9457), and as the Open Inference Protocol has them."""

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
        "detail": printable(detail),
        "kind": kind,
        "request_id": request_id,
    }
    return Response(orjson.dumps(body), status, headers, media_type="application/problem+json")


def protocol_error(status: HTTPStatus, detail: str, headers: dict[str, str] | None = None) -> Response:
    """Returns an error of the Open Inference Protocol, which knows but one status for what is wrong in a request.

    Arguments:
        status: The HTTP status that other answers would have.
        detail: One sentence, naming the tensor and the value it had.
        headers: Further headers.
    """
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        status = HTTPStatus.BAD_REQUEST
    return Response(orjson.dumps({"error": printable(detail)}), status, headers, media_type="application/json")


def printable(text: str) -> str:
    """Escapes a client's lone surrogates, which are not UTF-8."""
    return text.encode(errors="backslashreplace").decode()
