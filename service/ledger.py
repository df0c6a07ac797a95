"""What is counted and logged about requests, once they are answered.

Doing it request by request, between an answer and the next question, costs more than doing it for all requests
that one turn of the event loop answered: code and data of the metrics and of the log are then at hand.
"""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.admission import INLINE_SECONDS
from service.detector import Detector
from service.graphs import Matrix
from service.logs import AccessLog
from service.metrics import Load, ServiceMetrics

OK = int(HTTPStatus.OK)

STAGES = ("read", "parse", "queue", "infer", "write")
"""The parts of a request with rows: its body arrives, becomes rows, waits for its micro-batch or for a thread, goes
through the graph, and the answer is written."""


MOST_UNSETTLED = 1024
"""Requests whose times and scores are kept one by one until they are sorted into buckets and bins together."""


MOST_VALUES = 32_768
"""Values that are kept until they are held against those of training together; one by one that takes many times as
long, for between two requests all of numpy has left the processor's caches."""


class Observation:
    """What is known about a request so far.

    Attributes:
        request_id: The id the client sent, or a new one.
        method: Its method.
        path: Its path.
        client: The address it came from.
        key: The name of its key, if keys are asked for.
        endpoint: The route that answers it.
        dataset: The dataset, once it was looked up and found.
        rows: The number of rows that were scored, encoded or decoded.
        anomalies: How many of them were called an anomaly.
        detector: Who did it.
        scores: Scores that are still to be sorted into their bins.
        sorted_scores: How many of other scores fell into each bin, (B,).
        vectors: Rows of feature values that are still to be held against those of training.
        outside: How many values of other rows are outside the training's range.
        unseen: How many categorical features of other rows have no category of the training's.
        kind: The kind of error it was answered with.
        status: The HTTP status of its answer.
        read: Seconds until its body was there.
        parse: Seconds until its rows were.
        queue: Seconds that they waited.
        infer: Seconds that the graph took; what was left of `seconds` it took to write the answer.
        waited_first: Whether it waited before its rows were read, and not behind that.
        started: When it came; `seconds` is how long it then took.
        trace_headers: What the caller says of the trace that this is a part of.
        trace_id: The trace's id, once it was recorded.
        deadline: When its client stops to wait, by `time.perf_counter`, if it says so.
        timeout_ms: How many milliseconds that are from its start.
    """

    key: str = ""
    endpoint: str = "other"
    dataset: str = ""
    rows: int = 0
    anomalies: int = 0
    detector: Detector | None = None
    scores: Sequence[float] = ()
    sorted_scores: NDArray[np.int64] | None = None
    vectors: Matrix | None = None
    outside: int = 0
    unseen: int = 0
    kind: str = ""
    status: int = 0
    seconds: float = 0.0
    read: float = 0.0
    parse: float = 0.0
    queue: float = 0.0
    infer: float = 0.0
    waited_first: bool = False
    trace_headers: Mapping[str, str] | None = None
    trace_id: str = ""
    deadline: float | None = None
    timeout_ms: float = 0.0

    def __init__(
        self, request_id: str, method: str, path: str, client: str | None, started: float | None = None
    ) -> None:
        self.request_id = request_id
        self.method = method
        self.path = path
        self.client = client
        self.started = self._lap = time.perf_counter() if started is None else started

    def lap(self) -> float:
        """Returns the seconds since this was called before, or since the start."""
        before, self._lap = self._lap, time.perf_counter()
        return self._lap - before

    def waited(self) -> None:
        """Notes that it waited for its turn until now, before its rows were read."""
        self.queue, self.waited_first = self.lap(), True

    def inferred(self, seconds: float) -> None:
        """Notes that a graph that had to be waited for took so long, and just ended."""
        self.infer = seconds
        self.queue += max(0.0, self.lap() - seconds)

    def stages(self) -> Iterator[tuple[str, float]]:
        """Yields the parts of an answered request that it went through, in their order, with their seconds."""
        laps = [("read", self.read), ("parse", self.parse), ("queue", self.queue), ("infer", self.infer)]
        if self.waited_first:
            laps[1:3] = reversed(laps[1:3])
        yield from (lap for lap in laps if lap[1])
        if self.status == OK and self.detector is not None:
            yield "write", max(0.0, self.seconds - sum(seconds for _, seconds in laps))


class Trace(Protocol):
    """Where requests are traced to."""

    def record(self, seen: Observation) -> None:
        """Traces a request that was answered."""

    def close(self) -> None:
        """Sends what is left."""


class Ledger:
    """Keeps what was observed until the end of the event loop's turn, and then counts and logs it.

    Arguments:
        metrics: What Prometheus scrapes.
        access_log: Where each request's line goes, if it is logged at all.

    Attributes:
        in_flight: The number of requests being answered right now.
        traces: Where requests are traced to, if they are.
        turn_ends: Until when this turn of the event loop answers requests where they are read, by `time.perf_counter`.
    """

    traces: Trace | None = None
    turn_ends: float = math.inf

    def __init__(self, metrics: ServiceMetrics, access_log: AccessLog | None) -> None:
        self.in_flight = 0
        self._metrics = metrics
        self._access_log = access_log
        self._kept: list[Observation] = []
        self._unsettled = self._values = 0
        self._vectors: dict[Detector, list[Matrix]] = defaultdict(list)
        self._stages: dict[str, list[tuple[float, ...]]] = defaultdict(list)
        self._scores: dict[Detector, list[float]] = defaultdict(list)

    def add(self, seen: Observation) -> None:
        """Keeps a request that was answered."""
        seen.seconds = time.perf_counter() - seen.started
        if not self._kept:
            asyncio.get_running_loop().call_soon(self.flush)
            self.turn_ends = seen.started + INLINE_SECONDS
        self._kept.append(seen)

    def flush(self) -> None:
        """Counts and logs what was kept."""
        kept, self._kept = self._kept, []
        self.turn_ends = math.inf
        if not kept:
            return
        for seen in kept:
            self._metrics.requests.values[seen.endpoint, seen.dataset, seen.status].append(seen.seconds)
            if seen.kind:
                self._metrics.errors.add((seen.kind,), 1)
            if seen.status == OK and seen.detector is not None:
                self._count(seen, seen.detector)
            if self.traces is not None:
                self.traces.record(seen)
        if self._access_log is not None:
            now = datetime.now(UTC)
            self._access_log.write(line_of(seen, now) for seen in kept)
        self._unsettled += len(kept)
        if self._unsettled >= MOST_UNSETTLED:
            self._settle()
        if self._values >= MOST_VALUES:
            self._compare()

    def publish(self, load: Load) -> None:
        """Brings the metrics up to date."""
        self.flush()
        self._settle()
        self._compare()
        self._metrics.publish(load)

    def _count(self, seen: Observation, detector: Detector) -> None:
        endpoint, metrics = seen.endpoint, self._metrics
        metrics.rows.add((endpoint, seen.dataset), seen.rows)
        if seen.anomalies:
            metrics.anomalies.add((seen.dataset,), seen.anomalies)
        self._stages[endpoint].append((seen.read, seen.parse, seen.queue, seen.infer, seen.seconds))
        if seen.scores:
            self._scores[detector] += seen.scores
        if seen.sorted_scores is not None:
            self._sort(detector, seen.sorted_scores)
        if seen.vectors is not None:
            self._vectors[detector].append(seen.vectors)
            self._values += seen.vectors.size
        if seen.outside or seen.unseen:
            self._deviate(detector, seen.outside, seen.unseen)

    def _deviate(self, detector: Detector, outside: int, unseen: int) -> None:
        if outside:
            self._metrics.outside.add((detector.manifest.dataset,), outside)
        if unseen:
            self._metrics.unseen.add((detector.manifest.dataset,), unseen)

    def _compare(self) -> None:
        for detector, parts in self._vectors.items():
            rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
            self._deviate(detector, detector.reference.count_outside(rows), detector.reference.count_unseen(rows))
        self._vectors.clear()
        self._values = 0

    def _settle(self) -> None:
        self._unsettled = 0
        for endpoint, requests in self._stages.items():
            *laps, whole = np.asarray(requests).T
            laps.append(whole - sum(laps))
            for stage, seconds in zip(STAGES, laps, strict=True):
                passed = seconds[seconds > 0] if stage == "queue" else seconds
                if len(passed):
                    self._metrics.stages.values[endpoint, stage] += passed.tolist()
        self._stages.clear()
        for detector, scores in self._scores.items():
            self._sort(detector, detector.reference.sort(np.asarray(scores)))
        self._scores.clear()
        self._metrics.settle()

    def _sort(self, detector: Detector, counts: NDArray[np.int64]) -> None:
        dataset, version = detector.manifest.dataset, detector.manifest.version
        for name, count in zip(detector.reference.bins, counts.tolist(), strict=True):
            if count:
                self._metrics.scores.add((dataset, version, name), count)


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
    if seen.key:
        line["key"] = seen.key
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
    if seen.trace_id:
        line["trace_id"] = seen.trace_id
    return line
