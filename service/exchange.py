"""What is done with rows: read them, run a graph on them, write what it says."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from starlette.responses import Response

from service.deadlines import check_deadline
from service.detector import Detector, GraphName
from service.errors import InvalidField, ResultNotFinite
from service.formats import JSON, Answer, Body, Context, Format, RecordsRequest
from service.graphs import Matrix
from service.ledger import Observation
from service.repository import ModelRepository

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
    """Answers scores (N,), the decisions that follow from them and, if the model has them, p-values."""
    fields = name_of(detector)
    fields["threshold"] = detector.threshold
    p_values = detector.p_values
    arrays: dict[str, NDArray[Any] | list[Any]]
    if len(scores) <= FEW:
        few, anomalies = detector.decide_few(scores)
        arrays = {"scores": few, "anomalies": anomalies}
        if p_values is not None:
            arrays["p_values"] = p_values.of_few(few)
    else:
        decided = detector.decide(scores)
        arrays = {"scores": decided.scores, "anomalies": decided.anomalies}
        if p_values is not None:
            arrays["p_values"] = p_values.of(decided.scores)
    return Answer(fields, arrays)


def answer_latents(detector: Detector, latents: Matrix) -> Answer:
    """Answers latents (N, L)."""
    return Answer(name_of(detector), {"latents": latents}, detector.latent_columns)


def answer_vectors(detector: Detector, vectors: Matrix) -> Answer:
    """Answers rows (N, M)."""
    return Answer(name_of(detector), {"vectors": vectors}, detector.columns)


def answer_records(detector: Detector, vectors: Matrix) -> Answer:
    """Answers rows (N, M) as records."""
    return Answer(name_of(detector), {"records": detector.encoder.records(vectors)})


def name_of(detector: Detector) -> dict[str, object]:
    """Returns the fields that every answer begins with."""
    return {"dataset": detector.manifest.dataset, "version": detector.manifest.version}


SCORE = Operation("vectors", "scorer", lambda detector: detector.columns, answer_scores)
ENCODE = Operation("vectors", "encoder", lambda detector: detector.columns, answer_latents)
DECODE = Operation("latents", "decoder", lambda detector: detector.latent_columns, answer_vectors)
DECODE_TO_RECORDS = replace(DECODE, answer=answer_records)


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


def conclude(
    operation: Operation, detector: Detector, rows: Matrix, results: Matrix, seen: Observation, field: str
) -> Answer:
    """Makes an answer of what a graph made of rows, which are called `field`, and notes what there was to answer.

    Raises:
        ResultNotFinite: A row's result is not; the row is named.
    """
    refuse_infinite(results, field)
    answer = operation.answer(detector, results)
    seen.rows = len(rows)
    seen.detector = detector
    if operation is SCORE:
        seen.anomalies = count_true(answer.arrays["anomalies"])
        if isinstance(answer.arrays["scores"], list):
            seen.scores = answer.arrays["scores"]
        else:
            seen.sorted_scores = detector.reference.sort(answer.arrays["scores"])
    if operation.graph != "decoder":
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
        address = request.address
        detector = self.models.find(address.dataset, address.version)
        self.seen.dataset = address.dataset
        if isinstance(request, RecordsRequest):
            self.context.field = request.field
            return detector, request.encoded(detector.encoder)
        if address.answers_records:
            if self.writes is not JSON:
                raise InvalidField("answer", 'is "records"', f'"vectors" in {self.writes.media_type}')
            self.operation = DECODE_TO_RECORDS
        return detector, request.matrix(self.operation.columns(detector))

    def write(self, detector: Detector, rows: Matrix, results: Matrix) -> Response:
        """Writes what was found.

        Raises:
            ResultNotFinite: A row's result is not; the row is named.
        """
        answer = conclude(self.operation, detector, rows, results, self.seen, self.context.field)
        return reply(self.writes, answer)


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
