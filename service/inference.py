"""Where and when requests with rows are answered: at once, in a thread, or with others."""

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

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
from service.errors import NotReady, ShuttingDown
from service.exchange import Exchange, Operation, Work
from service.formats import Body, Context, format_of, wanted_format
from service.graphs import Matrix
from service.ledger import Ledger, Observation
from service.metrics import Load, ServiceMetrics
from service.observation import Observer
from service.pools import started_pool
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
        self._long_bodies = started_pool(max(2, cores()), "long-bodies")
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

    async def carry_out(self, work: Work, headers: Mapping[bytes, bytes], receive: Receive) -> Response:
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

    async def _answer_short(self, work: Work, body: Body, receive: Receive) -> Response:
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

    async def _answer_long(self, work: Work, body: Body, receive: Receive) -> Response:
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
    ) -> Exchange:
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


async def check_connected(receive: Receive) -> None:
    """Checks that the client of a request, whose body was read, still waits.

    Raises:
        ClientDisconnect: It hung up.
    """
    if await Request({"type": "http"}, receive).is_disconnected():
        raise ClientDisconnect
