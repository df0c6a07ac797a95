"""What is done with rows: read them, run a graph on them, write what it says."""

import asyncio
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive

from service.admission import Gate
from service.aside import Aside, Threads, cores
from service.batching import Batcher, Elsewhere
from service.body import Patience, Room, read_body
from service.connections import Connections
from service.deadlines import check_deadline, set_deadline
from service.detector import Detector, GraphName
from service.errors import NotReady, ResultNotFinite, ShuttingDown
from service.formats import JSON, Answer, Body, Context, Format, format_of, wanted_format
from service.graphs import Matrix
from service.ledger import Ledger, Observation
from service.metrics import Load, ServiceMetrics
from service.observation import Observer
from service.repository import ModelRepository
from service.settings import Settings
from service.trimming import Trimmer

INLINE_BYTES = 2**20
"""Longer bodies are answered in a thread: the way there and back costs as much as a few rows, and keeps others waiting
less than they would for the work itself."""

ASIDE_BYTES = 2**17
"""Of longer bodies the graph runs in a thread if there is a core to spare."""

BODIES_HELD = 4
"""So many bodies of the largest size that is allowed are held at once, and of smaller ones as many bytes."""

FEW = 16
"""So few numbers are dealt with one by one before numpy would have begun."""

LATER_VALUES = 4096
"""Rows with more values are looked through where they are scored, which may be a thread; of fewer, those of several
requests are looked through together, on the event loop."""


@dataclass(frozen=True)
class Operation:
    """One of the things that can be done with rows.

    Attributes:
        field: The name of the rows in a request.
        graph: The graph that does it.
        columns: Returns the names of a row's values.
        answer: Returns what is answered.
    """

    field: str
    graph: GraphName
    columns: Callable[[Detector], Sequence[str]]
    answer: Callable[[Detector, Matrix], Answer]


def answer_scores(detector: Detector, scores: Matrix) -> Answer:
    """Answers scores (N,) and the decisions that follow from them."""
    fields = name_of(detector)
    fields["threshold"] = detector.threshold
    if len(scores) <= FEW:
        few, anomalies = detector.decide_few(scores)
        return Answer(fields, {"scores": few, "anomalies": anomalies})
    decided = detector.decide(scores)
    return Answer(fields, {"scores": decided.scores, "anomalies": decided.anomalies})


def answer_latents(detector: Detector, latents: Matrix) -> Answer:
    """Answers latents (N, L)."""
    return Answer(name_of(detector), {"latents": latents}, detector.latent_columns)


def answer_vectors(detector: Detector, vectors: Matrix) -> Answer:
    """Answers rows (N, M)."""
    return Answer(name_of(detector), {"vectors": vectors}, detector.columns)


def name_of(detector: Detector) -> dict[str, object]:
    """Returns the fields that every answer begins with."""
    return {"dataset": detector.manifest.dataset, "version": detector.manifest.version}


SCORE = Operation("vectors", "scorer", lambda detector: detector.columns, answer_scores)
ENCODE = Operation("vectors", "encoder", lambda detector: detector.columns, answer_latents)
DECODE = Operation("latents", "decoder", lambda detector: detector.latent_columns, answer_vectors)


@dataclass
class Service:
    """What the routes share: one per application.

    Attributes:
        settings: What the operator set.
        metrics: What Prometheus scrapes.
        ledger: Where requests are counted and logged.
        observer: What observes them.
        repository: The models, once they are loaded.
        draining: Whether the service is about to end, and wants no more requests.
        gate: Counts the requests with rows that are answered at once.
        room: Counts the bytes of their bodies, as far as they don't take the lane.
        connections: Counts and bounds clients' connections.
        rendered: Refusals as they were sent lately, without their ids.
        patience: Ends the reading of bodies that take too long.
        trimmer: Gives the memory of long bodies back.
    """

    settings: Settings
    metrics: ServiceMetrics
    ledger: Ledger
    observer: Observer
    repository: ModelRepository | None = None
    draining: bool = False
    gate: Gate = field(init=False)
    room: Room = field(init=False)
    connections: Connections = field(init=False)
    rendered: dict[tuple[object, ...], tuple[object, bytes]] = field(default_factory=dict)
    patience: Patience = field(init=False)
    trimmer: Trimmer = field(init=False)
    _long_bodies: ThreadPoolExecutor = field(init=False)
    _long_bodies_queued: int = 0
    _text_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _graphs: Threads = field(init=False)
    _batchers: dict[tuple[Detector, GraphName], Batcher] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.gate = Gate(self.settings.max_in_flight)
        self.room = Room(BODIES_HELD * self.settings.max_body_bytes)
        self.connections = Connections(self.settings, self.metrics)
        self.patience = Patience(self.settings.body_seconds)
        self._long_bodies = ThreadPoolExecutor(max(2, cores()), thread_name_prefix="long-bodies")
        self.trimmer = Trimmer(self._long_bodies)
        spare = max(0, cores() // self.settings.workers - 1)  # the event loop has a core for itself
        self._graphs = Threads(spare, self.settings.max_in_flight // 2)  # so none is refused on their account

    def models(self) -> ModelRepository:
        """Returns the models.

        Raises:
            NotReady: They are not loaded yet.
        """
        if self.repository is None:
            raise NotReady
        return self.repository

    def serve(self, repository: ModelRepository) -> None:
        """Answers with these models from now on; what was read for others is answered by them."""
        self.repository = repository
        for detector, graph in [key for key in self._batchers if not repository.serves(key[0])]:
            self._batchers.pop((detector, graph)).flush()

    def ready(self) -> ModelRepository:
        """Returns the models, if requests are to come.

        Raises:
            ShuttingDown: The service is about to end.
            NotReady: They are not loaded yet.
        """
        if self.draining:
            raise ShuttingDown
        return self.models()

    def close(self) -> None:
        """Publishes what was counted last, sends the last traces, and lets go of the threads."""
        self.publish_metrics()
        if self.ledger.traces is not None:
            self.ledger.traces.close()
        self.trimmer.close()
        self._long_bodies.shutdown(wait=False)
        self._graphs.close()

    async def answer(
        self, operation: Operation, headers: Mapping[bytes, bytes], query: bytes, receive: Receive, seen: Observation
    ) -> Response:
        """Answers a request with rows.

        Arguments:
            operation: What to do with them.
            headers: The request's headers, their names in lower case.
            query: The request's query, for the formats that have no place for the dataset.
            receive: Gives the body.
            seen: What is known about the request, to be added to.

        Raises:
            ServiceError: The request is refused; `service.errors` draws where.
        """
        exchange = self.exchange(operation, headers, query, seen)
        return await self.carry_out(exchange, headers, receive)

    async def carry_out(self, work: "Work", headers: Mapping[bytes, bytes], receive: Receive) -> Response:
        """Reads a request's body, and does what it asks for where that suits its length.

        Arguments:
            work: How to read and to answer it.
            headers: The request's headers, their names in lower case.
            receive: Gives the body.

        Raises:
            ServiceError: The request is refused; `service.errors` draws where.
            ClientDisconnect: The client hung up before the work began.
        """
        seen = work.seen
        self.gate.check()  # before the body is read
        set_deadline(seen, headers)
        body = await read_body(headers, receive, self.settings.max_body_bytes, self.patience, self.room)
        long = len(body) > INLINE_BYTES
        try:
            seen.read = seen.lap()
            self.gate.enter(long)
            try:
                return await (self._answer_long if long else self._answer_short)(work, body, receive)
            finally:
                self.gate.leave(long)
        finally:
            self.room.taken -= len(body)
            if long:
                self.trimmer.ask()

    async def _answer_short(self, work: "Work", body: Body, receive: Receive) -> Response:
        graph, seen = work.operation.graph, work.seen
        if self.gate.busy or time.perf_counter() > self.ledger.turn_ends:
            await self.gate.turn()
            seen.waited()
            await check_connected(receive)
        check_deadline(seen)
        detector, rows = work.read(body)
        seen.parse = seen.lap()
        elsewhere = self.elsewhere(detector, graph, rows, len(body))
        if elsewhere:
            results = await elsewhere(rows, seen.inferred, partial(check_deadline, seen))
        else:
            check_deadline(seen)
            results = detector.run(graph, rows)
            seen.infer = seen.lap()
        return work.write(detector, rows, results)

    async def _answer_long(self, work: "Work", body: Body, receive: Receive) -> Response:
        """Answers a long body in threads.

        Reading and writing text keeps all of Python waiting. It is done for one body at a time, in the order in which
        they came, and between two of them the event loop has a turn for short ones.
        """
        seen = work.seen
        run = asyncio.get_running_loop().run_in_executor
        self._long_bodies_queued += 1
        try:
            await self._text_lock.acquire()
        finally:
            self._long_bodies_queued -= 1
        try:
            seen.waited()
            await check_connected(receive)
            check_deadline(seen)
            detector, rows = await run(self._long_bodies, work.read, body)
            seen.parse = seen.lap()
        finally:
            self._text_lock.release()
        results = await run(self._long_bodies, work.infer, detector, rows)
        async with self._text_lock:
            return await run(self._long_bodies, work.write, detector, rows, results)

    def publish_metrics(self) -> None:
        """Brings what Prometheus scrapes up to date."""
        rows = self._graphs.rows_waiting + sum(batcher.rows for batcher in self._batchers.values())
        if self.observer.access is not None:
            self.observer.access.follow()
            self.metrics.describe_keys(self.observer.access.stale)
        self.ledger.publish(Load(self.ledger.in_flight, rows, self._long_bodies_queued, self.connections.number))

    def exchange(
        self, operation: Operation, headers: Mapping[bytes, bytes], query: bytes, seen: Observation
    ) -> "Exchange":
        """Begins to answer a request with rows.

        Raises:
            NotReady: The models are not loaded yet.
            UnsupportedMediaType: The body is in no format that is read.
            NotAcceptable: The client takes no format that answers are written in.
        """
        models = self.models()
        reads, writes = format_of(headers.get(b"content-type", b"")), wanted_format(headers.get(b"accept", b"*/*"))
        return Exchange(operation, reads, writes, Context(query, operation.field, self.settings.max_rows), models, seen)

    def elsewhere(
        self, detector: Detector, graph: GraphName, rows: Matrix, length: int, alone: bool = False
    ) -> Elsewhere | None:
        """Returns where a graph runs on rows (N, *), if that is not where they were read.

        Arguments:
            detector: Whose graph.
            graph: Which.
            rows: The rows.
            length: Bytes of the body that they were read from.
            alone: Whether there is no other client whose rows could go with these.
        """
        if length > ASIDE_BYTES and self._graphs.have_room:
            return Aside(self._graphs, partial(detector.run, graph))
        most = self.settings.max_batch_rows
        if alone or len(rows) >= most or (self.repository and not self.repository.serves(detector)):
            return None
        batcher = self._batchers.get((detector, graph))
        if batcher is None:
            run, wait = partial(detector.run, graph), self.settings.max_wait_us / 1e6
            batcher = Batcher(run, most, wait, lambda count: self.metrics.batch_rows.values[()].append(count))
            self._batchers[detector, graph] = batcher
        return batcher


class Work(ABC):
    """A request with rows, from its body to its answer, apart from where the graph runs.

    Attributes:
        operation: What to do with the rows.
        seen: What is known about the request, to be added to.
    """

    __slots__ = ()

    operation: Operation
    seen: Observation

    def infer(self, detector: Detector, rows: Matrix) -> Matrix:
        """Runs the graph, if the client still waits for it.

        Raises:
            DeadlineExceeded: It doesn't.
        """
        check_deadline(self.seen)
        results = detector.run(self.operation.graph, rows)
        self.seen.infer = self.seen.lap()
        return results

    @abstractmethod
    def read(self, body: Body) -> tuple[Detector, Matrix]:
        """Reads a body's rows, and finds the model they are for."""

    @abstractmethod
    def write(self, detector: Detector, rows: Matrix, results: Matrix) -> Response:
        """Writes what the graph made of the rows."""


def conclude(operation: Operation, detector: Detector, rows: Matrix, results: Matrix, seen: Observation) -> Answer:
    """Makes an answer of what a graph made of rows, and notes what there was to answer.

    Raises:
        ResultNotFinite: A row's result is not; the row is named.
    """
    refuse_infinite(results, operation.field)
    answer = operation.answer(detector, results)
    seen.rows = len(rows)
    seen.detector = detector
    if operation is SCORE:
        seen.anomalies = count_true(answer.arrays["anomalies"])
        if isinstance(answer.arrays["scores"], list):
            seen.scores = answer.arrays["scores"]
        else:
            seen.sorted_scores = detector.reference.sort(answer.arrays["scores"])
    if operation is not DECODE:
        if rows.size <= LATER_VALUES:
            seen.vectors = rows
        else:
            seen.outside = detector.reference.count_outside(rows)
            seen.unseen = detector.reference.count_unseen(rows)
    return answer


@dataclass(slots=True)
class Exchange(Work):
    """A request whose body and answer are in one of the formats.

    Attributes:
        operation: What to do with the rows.
        reads: The format of the body.
        writes: The format of the answer.
        context: What the reader needs beside the body.
        models: What is served.
        seen: What is known about the request, to be added to.
    """

    operation: Operation
    reads: Format
    writes: Format
    context: Context
    models: ModelRepository
    seen: Observation

    def read(self, body: Body) -> tuple[Detector, Matrix]:
        """Reads a body's rows, and finds the model they are for."""
        request = self.reads.read(body, self.context)
        detector = self.models.find(request.address.dataset, request.address.version)
        self.seen.dataset = request.address.dataset
        return detector, request.matrix(self.operation.columns(detector))

    def write(self, detector: Detector, rows: Matrix, results: Matrix) -> Response:
        """Writes what was found.

        Raises:
            ResultNotFinite: A row's result is not; the row is named.
        """
        return reply(self.writes, conclude(self.operation, detector, rows, results, self.seen))


class Reply(Response):
    """A response whose header is written already."""

    def __init__(self, content: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.body = content
        self.status_code = 200
        self.raw_headers = headers
        self.background = None


def reply(written: Format, answer: Answer) -> Reply:
    """Writes an answer in a format; what only JSON has room for goes into the header of others."""
    content = written.write(answer)
    headers = [(b"content-length", b"%d" % len(content)), (b"content-type", written.header)]
    if written is not JSON:
        for name in ("version", "threshold"):
            if name in answer.fields:
                headers.append((f"x-radogaga-{name}".encode(), str(answer.fields[name]).encode()))
    return Reply(content, headers)


async def check_connected(receive: Receive) -> None:
    """Checks that the client of a request, whose body was read, still waits.

    Raises:
        ClientDisconnect: It hung up.
    """
    if await Request({"type": "http"}, receive).is_disconnected():
        raise ClientDisconnect


def count_true(decisions: NDArray[np.bool_] | Sequence[bool]) -> int:
    """Counts what is true."""
    return sum(decisions) if isinstance(decisions, list) else int(np.count_nonzero(decisions))


def refuse_infinite(results: NDArray[np.floating], name: str) -> None:
    """Checks that results (N,) or (N, *) are finite.

    Raises:
        ResultNotFinite: A row's result is not; the row is named.
    """
    if results.ndim == 1 and len(results) <= FEW and all(map(math.isfinite, results.tolist())):
        return
    finite = np.isfinite(results)
    if np.count_nonzero(finite) != results.size:
        raise ResultNotFinite(name, int(np.argmin(finite.reshape(len(results), -1).all(axis=1))))
