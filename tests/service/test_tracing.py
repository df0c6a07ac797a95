"""Traces of requests, held by an exporter in memory and by a collector that a real process sends them to."""

import itertools
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from service.app import create_app
from service.errors import StartError
from service.exchange import Exchange
from service.keys import add_key
from service.settings import Settings
from service.tracing import Traces, exporting
from tests.server import MODELS, SECONDS, serving
from tests.service.conftest import wait_until_ready

ROW = [0.774193, 0.001132, 0.137571, 0.275701, 0.295775, 0.236066]
ONE = {"dataset": "thyroid", "vectors": [ROW]}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    """Keeps the spans that are exported."""
    return InMemorySpanExporter()


@pytest.fixture
def traced(exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., TestClient]]:
    """Makes a client of an application whose traces go to `exporter`."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("service.app.exporting", lambda: Traces(provider))
    clients: list[TestClient] = []

    def make(max_batch_rows: int = 1, keys: Path | None = None) -> TestClient:
        client = TestClient(
            create_app(Settings(models=MODELS, traces=True, max_batch_rows=max_batch_rows, keys=keys)),
            raise_server_exceptions=False,
        )
        clients.append(client.__enter__())
        return wait_until_ready(client)

    yield make
    for client in clients:
        client.__exit__(None, None, None)


def requests_of(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.kind is SpanKind.SERVER]


def stages_of(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.kind is not SpanKind.SERVER]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_request_is_a_span_with_its_id_and_what_is_known_of_it(
    traced: Callable[..., TestClient], exporter: InMemorySpanExporter
) -> None:
    answer = traced().post("/score", json=ONE, headers={"x-request-id": "order-7"}).json()
    [span] = requests_of(exporter)
    assert span.name == "POST /score"
    assert attributes(span) == {
        "http.request.method": "POST",
        "http.route": "/score",
        "http.response.status_code": 200,
        "url.path": "/score",
        "client.address": "testclient",
        "radogaga.request_id": "order-7",
        "radogaga.dataset": "thyroid",
        "radogaga.version": answer["version"],
        "radogaga.rows": 1,
        "radogaga.anomalies": sum(answer["anomalies"]),
    }
    assert span.status.status_code is StatusCode.UNSET


def test_the_parts_of_its_way_lie_below_it_one_behind_the_other(
    traced: Callable[..., TestClient], exporter: InMemorySpanExporter
) -> None:
    traced().post("/score", json=ONE)
    [whole], stages = requests_of(exporter), stages_of(exporter)
    assert [stage.name for stage in stages] == ["read", "parse", "infer", "write"]
    assert {stage.parent.span_id for stage in stages if stage.parent} == {whole.context.span_id}
    assert stages[0].start_time == whole.start_time
    for before, after in itertools.pairwise(stages):
        assert before.end_time == after.start_time
    assert abs(int(stages[-1].end_time or 0) - int(whole.end_time or 0)) < 100  # nanoseconds, each rounded down


def test_waiting_for_a_micro_batch_lies_between_reading_and_the_graph(
    traced: Callable[..., TestClient], exporter: InMemorySpanExporter
) -> None:
    traced(max_batch_rows=8).post("/score", json=ONE)
    assert [stage.name for stage in stages_of(exporter)] == ["read", "parse", "queue", "infer", "write"]


def test_waiting_for_a_thread_lies_before_reading_rows(
    traced: Callable[..., TestClient], exporter: InMemorySpanExporter
) -> None:
    rows = {"dataset": "thyroid", "vectors": [[value / 3 for value in ROW]] * 16_384}
    assert len(json.dumps(rows)) > 2**20
    assert traced().post("/score", json=rows).status_code == 200
    assert [stage.name for stage in stages_of(exporter)] == ["read", "queue", "parse", "infer", "write"]


def test_it_goes_on_with_the_trace_of_its_caller_and_the_log_names_it(
    traced: Callable[..., TestClient], exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr("service.logs.AccessLog.write", lambda _, found: lines.extend(found))
    traced().post("/score", json=ONE, headers={"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1"})
    [span] = requests_of(exporter)
    assert f"{span.context.trace_id:032x}" == TRACE
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == PARENT
    assert dict(span.context.trace_state) == {"vendor": "1"}
    assert [line["trace_id"] for line in lines if line["path"] == "/score"] == [TRACE]


def test_a_request_whose_caller_does_not_sample_leaves_no_span(
    traced: Callable[..., TestClient], exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr("service.logs.AccessLog.write", lambda _, found: lines.extend(found))
    traced().post("/score", json=ONE, headers={"traceparent": f"00-{TRACE}-{PARENT}-00"})
    assert exporter.get_finished_spans() == ()
    assert [line for line in lines if "trace_id" in line] == []


@pytest.mark.parametrize("sent", ["", "nonsense", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{PARENT}", "\xff" * 55])
def test_a_header_that_names_no_trace_begins_one(
    traced: Callable[..., TestClient], exporter: InMemorySpanExporter, sent: str
) -> None:
    header = {b"traceparent": sent.encode("latin-1")}
    assert traced().post("/score", json=ONE, headers=header).status_code == 200
    [span] = requests_of(exporter)
    assert span.parent is None


def test_a_trace_s_state_that_is_too_long_is_left_out(
    traced: Callable[..., TestClient], exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    header = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "a" * 4000}
    assert traced().post("/score", json=ONE, headers=header).status_code == 200
    [span] = requests_of(exporter)
    assert f"{span.context.trace_id:032x}" == TRACE
    assert dict(span.context.trace_state) == {}
    assert "aaaa" not in caplog.text


def test_an_error_is_named_and_only_the_services_own_make_the_span_one(
    traced: Callable[..., TestClient], exporter: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = traced()
    client.post("/score", json={"dataset": "nobody", "vectors": [ROW]})
    client.get("/nowhere")
    monkeypatch.setattr(Exchange, "read", lambda *_: 1 / 0)
    client.post("/score", json=ONE)
    unknown, nowhere, unforeseen = requests_of(exporter)
    assert attributes(unknown)["error.type"] == "dataset_not_found"
    assert "radogaga.dataset" not in attributes(unknown)
    assert (nowhere.name, attributes(nowhere)["url.path"]) == ("GET other", "/nowhere")
    assert "http.route" not in attributes(nowhere)
    assert attributes(unforeseen)["error.type"] == "internal"
    failed = [span.status.status_code is StatusCode.ERROR for span in (unknown, nowhere, unforeseen)]
    assert failed == [False, False, True]


def test_no_key_gets_into_a_trace(
    traced: Callable[..., TestClient], exporter: InMemorySpanExporter, tmp_path: Path
) -> None:
    path = tmp_path / "keys"
    key = add_key(path, "ci", ["score"])
    client = traced(keys=path)
    for sent in (key, f"{key}x"):
        for headers in ({"x-api-key": sent}, {"authorization": f"Bearer {sent}", "tracestate": f"k={sent}"}):
            client.post("/score", json=ONE, headers=headers)
    assert [attributes(span)["http.response.status_code"] for span in requests_of(exporter)] == [200, 200, 401, 401]
    for span in exporter.get_finished_spans():
        assert key not in span.to_json()


def test_what_watches_the_service_is_not_traced(
    traced: Callable[..., TestClient], exporter: InMemorySpanExporter
) -> None:
    client = traced()
    for path in ("/health/live", "/health/ready", "/metrics", "/v2/health/live", "/v2/health/ready"):
        assert client.get(path).status_code == 200
    client.get("/datasets")
    assert [span.name for span in requests_of(exporter)] == ["GET /datasets"]


def test_nothing_of_the_sdk_is_imported_unless_it_is_asked_for() -> None:
    code = "import sys, service.__main__; sys.exit(any(name.startswith('opentelemetry.sdk') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(StartError, match=r"RADOGAGA_TRACES is true, but opentelemetry\.sdk\.trace is not installed"):
        exporting()


def test_a_wrong_variable_that_the_sdk_can_not_do_without_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    with pytest.raises(StartError, match=r"a variable OTEL_\* is wrong: .*max_queue_size"):
        exporting()


class Collector(ThreadingHTTPServer):
    """Takes traces by OTLP over HTTP; `held` makes it keep its callers waiting."""

    daemon_threads = True

    def __init__(self) -> None:
        self.received: list[ResourceSpans] = []
        self.held = threading.Event()
        self.free = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        """Keeps what is sent."""
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.server.held.is_set():
            self.server.free.wait(SECONDS)
            return
        assert self.path == "/v1/traces"
        self.server.received += ExportTraceServiceRequest.FromString(body).resource_spans
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name in the base class
        """Says nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector on this machine."""
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.free.set()
        server.shutdown()
        thread.join()


@contextmanager
def sending_to(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Starts a service that sends its traces to an address."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
    with serving(tmp_path / "log", traces="true") as server:
        yield server


def test_a_process_sends_its_traces_to_a_collector_and_the_last_ones_at_its_end(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
    with sending_to(collector.url, tmp_path, monkeypatch) as server:
        with server.client() as client:
            for number in range(20):
                answer = client.post("/score", json=ONE, headers={"x-request-id": f"r{number}"})
                assert answer.status_code == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(SECONDS) == 0
    [resource] = {part.resource.SerializeToString(): part.resource for part in collector.received}.values()
    told = {pair.key: pair.value.string_value for pair in resource.attributes}
    assert told["service.name"] == "radogaga"
    assert told["deployment.environment"] == "test"
    assert re.fullmatch(r"\d+\.\d+\.\d+", told["service.version"])
    spans = [span for part in collector.received for scope in part.scope_spans for span in scope.spans]
    ids = {pair.value.string_value for span in spans for pair in span.attributes if pair.key == "radogaga.request_id"}
    assert ids == {f"r{number}" for number in range(20)}
    assert sum(span.name == "infer" for span in spans) == 20


def test_a_collector_that_hangs_holds_up_neither_answers_nor_the_end_for_long(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collector.held.set()
    with sending_to(collector.url, tmp_path, monkeypatch) as server:
        with server.client() as client:
            assert [client.post("/score", json=ONE).status_code for _ in range(10)] == [200] * 10
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(SECONDS / 4) == 0  # the SDK alone would wait for 30 s


def test_a_collector_that_is_not_there_is_logged_and_changes_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        with sending_to(f"http://127.0.0.1:{taken.getsockname()[1]}", tmp_path, monkeypatch) as server:
            with server.client() as client:
                assert [client.post("/score", json=ONE).status_code for _ in range(10)] == [200] * 10
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(SECONDS / 4) == 0
    assert [line for line in server.lines() if line["logger"].startswith("opentelemetry")]
