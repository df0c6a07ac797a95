"""OpenTelemetry traces of requests, off unless RADOGAGA_TRACES asks for them; needs the extra `[traces]`.

A span is made of what was observed once its request has been answered, at the end of the event loop's turn: an answer
doesn't wait for it. A thread of the SDK sends spans on. Where to, and how many of them, is said by the variables OTEL_*
of the OpenTelemetry specification, such as OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_TRACES_SAMPLER.
"""

import threading
import time
from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING

from service.errors import StartError
from service.ledger import Observation

if TYPE_CHECKING:  # importing it takes half of the time that a start may take
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.util.types import AttributeValue

NANOSECONDS = 1_000_000_000

SECONDS_TO_SEND = 3.0
"""How long the end of the process waits for the last spans to be sent."""

UNTRACED = frozenset({"/health/live", "/health/ready", "/metrics", "/v2/health/live", "/v2/health/ready"})
"""Routes that are asked again and again by what watches the service."""


class Traces:
    """Makes spans of requests: one of kind server for each, with one below it for every part of its way.

    Arguments:
        provider: What the spans are handed to.
    """

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("radogaga", version("radogaga"))
        self._extract = TraceContextTextMapPropagator().extract
        self._below = set_span_in_context
        self._server, self._failed = SpanKind.SERVER, Status(StatusCode.ERROR)

    def record(self, seen: Observation) -> None:
        """Hands on the spans of a request that was answered, and notes the trace's id with it."""
        if seen.endpoint in UNTRACED:
            return
        since = time.time_ns() - int(time.perf_counter() * NANOSECONDS)
        start = since + int(seen.started * NANOSECONDS)
        caller = self._extract(seen.trace_headers) if seen.trace_headers else None
        span = self._tracer.start_span(
            f"{seen.method} {seen.endpoint}", caller, self._server, attributes=attributes_of(seen), start_time=start
        )
        if span.is_recording():
            seen.trace_id = f"{span.get_span_context().trace_id:032x}"
            if seen.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
                span.set_status(self._failed)
            below, moment = self._below(span), start
            for stage, seconds in seen.stages():
                part = self._tracer.start_span(stage, below, start_time=moment)
                moment += int(seconds * NANOSECONDS)
                part.end(moment)
        span.end(start + int(seen.seconds * NANOSECONDS))

    def close(self) -> None:
        """Sends what is left, for no longer than SECONDS_TO_SEND: the SDK itself would wait longer for a collector."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(SECONDS_TO_SEND)


def attributes_of(seen: Observation) -> "dict[str, AttributeValue]":
    """Returns what a request's span says of it; OpenTelemetry's names for HTTP where it has some."""
    attributes: dict[str, AttributeValue] = {
        "http.request.method": seen.method,
        "http.response.status_code": seen.status,
        "url.path": seen.path,
        "radogaga.request_id": seen.request_id,
    }
    if seen.endpoint != Observation.endpoint:
        attributes["http.route"] = seen.endpoint
    if seen.client:
        attributes["client.address"] = seen.client
    if seen.kind:
        attributes["error.type"] = seen.kind
    if seen.dataset:
        attributes["radogaga.dataset"] = seen.dataset
    if seen.detector is not None:
        attributes["radogaga.version"] = seen.detector.manifest.version
        attributes["radogaga.rows"] = seen.rows
        attributes["radogaga.anomalies"] = seen.anomalies
    return attributes


def exporting() -> Traces:
    """Makes traces that go to a collector by OTLP over HTTP.

    Raises:
        StartError: The extra `[traces]` is not installed, or the SDK refuses a variable OTEL_*.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise StartError(
            f"RADOGAGA_TRACES is true, but {error.name} is not installed: install radogaga[traces]"
        ) from error
    own = Resource.create({"service.name": "radogaga", "service.version": version("radogaga")})
    try:
        provider = TracerProvider(resource=own.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except ValueError as error:
        raise StartError(f"RADOGAGA_TRACES is true, but a variable OTEL_* is wrong: {error}") from error
    return Traces(provider)
