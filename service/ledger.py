"""What is counted and logged about requests, once they are answered.

Doing it request by request, between an answer and the next question, costs more than doing it for all requests
that one turn of the event loop answered: code and data of the metrics and of the log are then at hand.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import numpy as np

from service.detector import Detector
from service.graphs import Matrix
from service.logs import AccessLog
from service.metrics import ServiceMetrics

OK = int(HTTPStatus.OK)


class Observation:
    """What is known about a request so far.

    Attributes:
        request_id: The id the client sent, or a new one.
        method: Its method.
        path: Its path.
        client: The address it came from.
        endpoint: The route that answers it.
        dataset: The dataset, once it was looked up and found.
        rows: The number of rows that were scored, encoded or decoded.
        anomalies: How many of them were called an anomaly.
        vectors: Rows of feature values whose values outside the training's range are still to be counted, and by whom.
        outside: How many values of others are outside of it.
        kind: The kind of error it was answered with.
        status: The HTTP status of its answer.
        started: When it came; `seconds` is how long it then took.
    """

    endpoint: str = "other"
    dataset: str = ""
    rows: int = 0
    anomalies: int = 0
    vectors: tuple[Detector, Matrix] | None = None
    outside: int = 0
    kind: str = ""
    status: int = 0
    seconds: float = 0.0

    def __init__(self, request_id: str, method: str, path: str, client: str | None) -> None:
        self.request_id = request_id
        self.method = method
        self.path = path
        self.client = client
        self.started = time.perf_counter()


class Ledger:
    """Keeps what was observed until the end of the event loop's turn, and then counts and logs it.

    Arguments:
        metrics: What Prometheus scrapes.
        access_log: Where each request's line goes, if it is logged at all.

    Attributes:
        in_flight: The number of requests being answered right now.
    """

    def __init__(self, metrics: ServiceMetrics, access_log: AccessLog | None) -> None:
        self.in_flight = 0
        self._metrics = metrics
        self._access_log = access_log
        self._kept: list[Observation] = []

    def add(self, seen: Observation) -> None:
        """Keeps a request that was answered."""
        seen.seconds = time.perf_counter() - seen.started
        if not self._kept:
            asyncio.get_running_loop().call_soon(self.flush)
        self._kept.append(seen)

    def flush(self) -> None:
        """Counts and logs what was kept."""
        kept, self._kept = self._kept, []
        metrics = self._metrics
        metrics.in_flight.set(self.in_flight)
        rows: Counter[tuple[str, str]] = Counter()
        anomalies: Counter[str] = Counter()
        for seen in kept:
            metrics.request(seen.endpoint, seen.dataset, seen.status).observe(seen.seconds)
            if seen.kind:
                metrics.errors(seen.kind).inc()
            if seen.status == OK:
                rows[seen.endpoint, seen.dataset] += seen.rows
                anomalies[seen.dataset] += seen.anomalies
        for (endpoint, dataset), count in rows.items():
            if count:
                metrics.rows(endpoint, dataset).inc(count)
        for dataset, count in anomalies.items():
            if count:
                metrics.anomalies(dataset).inc(count)
        self._count_outside(seen for seen in kept if seen.status == OK)
        if self._access_log is not None and kept:
            now = datetime.now(UTC)
            self._access_log.write(line_of(seen, now) for seen in kept)

    def _count_outside(self, kept: Iterable[Observation]) -> None:
        rows: dict[Detector, list[Matrix]] = defaultdict(list)
        for seen in kept:
            if seen.outside:
                self._metrics.outside(seen.dataset).inc(seen.outside)
            if seen.vectors:
                rows[seen.vectors[0]].append(seen.vectors[1])
        for detector, parts in rows.items():
            whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
            outside = detector.count_outside_training_range(whole)
            if outside:
                self._metrics.outside(detector.manifest.dataset).inc(outside)


def line_of(seen: Observation, now: datetime) -> dict[str, Any]:
    """Returns a request's line of the access log; what there is nothing to say about is left out."""
    line: dict[str, Any] = {
        "time": now,
        "level": "info",
        "logger": "service.access",
        "message": "request",
        "request_id": seen.request_id,
    }
    if seen.client:
        line["client"] = seen.client
    line |= {
        "method": seen.method,
        "path": seen.path,
        "status": seen.status,
        "milliseconds": round(1000 * seen.seconds, 3),
    }
    if seen.dataset:
        line["dataset"] = seen.dataset
    if seen.rows:
        line["rows"] = seen.rows
    if seen.kind:
        line["error"] = seen.kind
    return line
