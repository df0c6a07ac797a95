"""Until when a request's work may begin, by the request's own word."""

import math
import time
from collections.abc import Mapping

from service.errors import DeadlineExceeded, InvalidHeader
from service.ledger import Observation
from service.quotes import shorten

TIMEOUT = b"x-request-timeout-ms"
"""The header that says how many milliseconds a client waits for its answer."""

ENVOY_TIMEOUT = b"x-envoy-expected-rq-timeout-ms"
"""What Envoy, and with it Istio, tells a service of the same; a client's own word goes first."""


def set_deadline(seen: Observation, headers: Mapping[bytes, bytes]) -> None:
    """Notes until when work for a request may begin, if its header says so.

    Arguments:
        seen: The request.
        headers: Its header, names in lower case.

    Raises:
        InvalidHeader: It is no number of milliseconds above 0.
    """
    name = TIMEOUT if TIMEOUT in headers else ENVOY_TIMEOUT
    sent = headers.get(name)
    if sent is None:
        return
    text = sent.decode("latin-1")
    milliseconds = float(text) if text.isascii() and text.replace(".", "", 1).isdecimal() else math.nan
    if not 0 < milliseconds < math.inf:
        raise InvalidHeader(name.decode(), shorten(text), "a number of milliseconds above 0")
    seen.timeout_ms = milliseconds
    seen.deadline = seen.started + milliseconds / 1000


def check_deadline(seen: Observation) -> None:
    """Checks that work for a request may begin.

    Raises:
        DeadlineExceeded: Its client waits no longer.
    """
    if seen.deadline is not None and time.perf_counter() > seen.deadline:
        raise DeadlineExceeded(seen.timeout_ms)
