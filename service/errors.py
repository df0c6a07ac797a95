"""Everything that can go wrong, with the sentence that says so.

A request takes the path::

    request -> *read* -> body -> *parse* -> rows -> *look up* -> detector -> *run* -> scores -> answer
                 |                  |                  |                        |
 401 403 406 408 413 415 503  400 413 422           404                  422 504

Each step raises one of the errors below; one handler turns them into ``application/problem+json`` (RFC 9457).
Anything else is a logged 500 that gives nothing away. A `StartError` keeps the service from becoming ready.
"""

from collections.abc import Iterable
from http import HTTPStatus

from service.quotes import describe, shorten


class ServiceError(Exception):
    """An error whose text may be shown to the client.

    Attributes:
        status: The HTTP status of the answer.
        kind: A word for machines, stable across releases; also a metric's label.
        headers: What the answer's header says beside.
    """

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    kind = "internal"
    headers: dict[str, str] = {}  # noqa: RUF012 - never written


class InternalError(ServiceError):
    """Something unforeseen; the log has it."""

    def __init__(self) -> None:
        super().__init__("internal error")


class Refused(ServiceError):
    """A request is not let in.

    Attributes:
        key: The name of the key it has, if it is known; for the log.
    """

    key = ""


class Unauthorized(Refused):
    """A request's key is missing, wrong, revoked or expired; the client isn't told which.

    Arguments:
        key: The name of the key, if it expired.
    """

    status = HTTPStatus.UNAUTHORIZED
    kind = "unauthorized"
    headers = {"WWW-Authenticate": "Bearer"}  # noqa: RUF012 - never written

    def __init__(self, key: str = "") -> None:
        super().__init__("A valid key is needed, as 'Authorization: Bearer <key>' or 'X-API-Key: <key>'.")
        self.key = key


class Forbidden(Refused):
    """A request's key is good for other things."""

    status = HTTPStatus.FORBIDDEN
    kind = "forbidden"

    def __init__(self, key: str, scope: str, scopes: Iterable[str]) -> None:
        super().__init__(f"The key '{key}' has the scope {', '.join(sorted(scopes))}, and this needs {scope}.")
        self.key = key


class UnsupportedMediaType(ServiceError):
    """The body is declared as something that isn't read here."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    kind = "unsupported_media_type"

    def __init__(self, content_type: str, known: Iterable[str]) -> None:
        found = f"is '{shorten(content_type)}'" if content_type else "is missing"
        super().__init__(f"Content-Type {found}, expected {', '.join(known)}; text in UTF-8.")


class NotAcceptable(ServiceError):
    """The client takes no format that answers are written in."""

    status = HTTPStatus.NOT_ACCEPTABLE
    kind = "not_acceptable"

    def __init__(self, accept: str, known: Iterable[str]) -> None:
        super().__init__(f"Accept is '{shorten(accept)}', answers are written as {', '.join(known)}.")


class UnsupportedEncoding(ServiceError):
    """The body is compressed in a way that isn't read here."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    kind = "unsupported_encoding"

    def __init__(self, encoding: str, known: Iterable[str]) -> None:
        super().__init__(f"Content-Encoding is '{shorten(encoding)}', expected {', '.join(known)} or none.")


class BodyTooSlow(ServiceError):
    """The body did not arrive in time."""

    status = HTTPStatus.REQUEST_TIMEOUT
    kind = "body_too_slow"
    headers = {"Connection": "close"}  # noqa: RUF012 - never written

    def __init__(self, seconds: float) -> None:
        super().__init__(f"The body did not arrive within {seconds:g} seconds.")


class BodyTooLarge(ServiceError):
    """The body has more bytes than the service reads."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    kind = "body_too_large"

    def __init__(self, found: str, limit: int) -> None:
        super().__init__(f"The body has {found} bytes, at most {limit} are read. Send fewer rows per request.")


class HeaderTooLarge(ServiceError):
    """A request has more headers, or more bytes of them, than the service reads."""

    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    kind = "header_too_large"

    def __init__(self, most: int, most_bytes: int) -> None:
        super().__init__(f"At most {most} headers with {most_bytes} bytes together are read.")


class TooManyRows(ServiceError):
    """There are more rows than one request may carry."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    kind = "too_many_rows"

    def __init__(self, field: str, rows: int | str, limit: int) -> None:
        super().__init__(f"{field} has {rows} rows, at most {limit} are taken per request.")


class MalformedBody(ServiceError):
    """The body is not what it is declared as, or not such that every reader understands it alike."""

    status = HTTPStatus.BAD_REQUEST
    kind = "malformed_body"


class InvalidHeader(ServiceError):
    """A line of the request's header has a value that can't be meant."""

    status = HTTPStatus.BAD_REQUEST
    kind = "invalid_header"

    def __init__(self, name: str, found: str, expected: str) -> None:
        super().__init__(f"{name} is '{found}', expected {expected}.")


class InvalidField(ServiceError):
    """A field of the request is missing, unknown or of the wrong type."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    kind = "invalid_field"

    def __init__(self, field: str, found: str, expected: str) -> None:
        super().__init__(f"{field} {found}, expected {expected}.")


class WrongWidth(InvalidField):
    """A row has another number of values than the model has features."""

    kind = "wrong_width"


class InvalidValue(InvalidField):
    """A value in a row is not a number, or not one a float32 can hold."""

    kind = "invalid_value"


class ResultNotFinite(ServiceError):
    """A row of finite values lies so far out that its score, latent or reconstruction is beyond float32."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    kind = "result_not_finite"

    def __init__(self, field: str, row: int) -> None:
        super().__init__(f"{field}[{row}] has values so large that its result is not a finite number.")


class DatasetNotFound(ServiceError):
    """No model is served under that name."""

    status = HTTPStatus.NOT_FOUND
    kind = "dataset_not_found"

    def __init__(self, dataset: str, known: Iterable[str]) -> None:
        super().__init__(f"No model for dataset {describe(dataset)}. Known datasets: {', '.join(sorted(known))}.")


class VersionNotFound(ServiceError):
    """The dataset has no such version."""

    status = HTTPStatus.NOT_FOUND
    kind = "version_not_found"

    def __init__(self, dataset: str, version: int | str, known: Iterable[int]) -> None:
        versions = ", ".join(map(str, sorted(known)))
        super().__init__(f"No version {describe(version)} of dataset {describe(dataset)}. Known versions: {versions}.")


class ModelNotFound(ServiceError):
    """No model of the Open Inference Protocol has that name."""

    status = HTTPStatus.NOT_FOUND
    kind = "model_not_found"

    def __init__(self, model: str, known: Iterable[str]) -> None:
        super().__init__(f"No model {describe(model)}. Known models: {', '.join(known)}.")


class NotReady(ServiceError):
    """The models are not loaded yet."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    kind = "not_ready"
    headers = {"Retry-After": "1"}  # noqa: RUF012 - never written

    def __init__(self) -> None:
        super().__init__("The models are being loaded. Try again in a second.")


class DeadlineExceeded(ServiceError):
    """The time that the request's client waits was over before its work began."""

    status = HTTPStatus.GATEWAY_TIMEOUT
    kind = "deadline_exceeded"

    def __init__(self, milliseconds: float) -> None:
        super().__init__(f"The work did not begin within the {milliseconds:g} milliseconds that the header allows.")


class Overloaded(ServiceError):
    """The service has as much to do as it takes at once."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    kind = "overloaded"
    headers = {"Retry-After": "1"}  # noqa: RUF012 - never written

    def __init__(self, limit: int, what: str = "requests are under way") -> None:
        super().__init__(f"{limit} {what}, more are not taken at once. Try again in a second.")


class ShuttingDown(ServiceError):
    """The service ends: it is not ready for more, or a request took longer than it is waited for."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    kind = "shutting_down"

    def __init__(self) -> None:
        super().__init__("The service is shutting down.")


class StartError(Exception):
    """The service can't become ready; the text names the folder or setting, the field and the value it had."""


def kinds() -> list[str]:
    """Returns the kinds of all errors that requests with rows are answered with."""
    found: list[type[ServiceError]] = list(ServiceError.__subclasses__())
    for error in found:
        found += error.__subclasses__()
    return sorted({error.kind for error in found})
