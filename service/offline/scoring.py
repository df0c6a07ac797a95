"""From a part of a table to the file of its scores; every engine does this, wherever its parts come from."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from service.detector import Detector
from service.graphs import Matrix
from service.manifest import Manifest
from service.offline.columns import Layout, layout_of
from service.offline.errors import OfflineError, ScoreNotFinite
from service.offline.outputs import ANOMALY, FILE, P_VALUE, ROW, SCORE, Counts, output_schema, writing
from service.offline.tables import Batch, Part, Schema, format_of, read, schema_of
from service.quotes import describe, shorten
from service.thresholds import Change, threshold_in_force

MOST_BATCH_ROWS, BATCH_VALUES = 65_536, 2**20
"""Rows that are read at once: so many, or fewer if they have many values."""

RUN_ROWS = 1024
"""Rows that go through the graph together; what it makes of them in between stays in the processor's cache."""

Keep = Literal["rest", "all", "none"] | tuple[str, ...]
"""Which columns of a table stand beside the scores: those that don't feed the model, all, none, or those named."""

BadRows = Literal["error", "null"]

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Options:
    """How tables are scored.

    Attributes:
        keep: The columns that are kept.
        bad_rows: Whether a row with a value that is no finite number is an error, or has null for its score.
        batch_rows: Rows that are read at once, or None for what suits their width.
        origin: Whether the columns `file` and `row` say where each row comes from.
        change: The change that is in force of the manifest's threshold, if there is one.
    """

    keep: Keep = "rest"
    bad_rows: BadRows = "error"
    batch_rows: int | None = None
    origin: bool = False
    change: Change | None = None


@dataclass(frozen=True)
class Task:
    """A part of a table and the file for its scores."""

    part: Part
    out: str


def metadata_of(task: Task, manifest: Manifest, options: Options) -> dict[str, str]:
    """Returns what a scored file says of the model, of its rows and of the options.

    Raises:
        OfflineError: The table can't be read.
    """
    source = Path(task.part.file)
    try:
        found = source.stat()
    except OSError as error:
        raise OfflineError(f"{source}: can't be read ({error.strerror})") from error
    return {
        "dataset": manifest.dataset,
        "version": str(manifest.version),
        "threshold": repr(threshold_in_force(manifest, options.change)),
        "scorer_sha256": manifest.graphs.scorer.sha256,
        "source": source.name,
        "source_bytes": str(found.st_size),
        "source_modified_ns": str(found.st_mtime_ns),
        "source_first_row": str(task.part.first_row),
        "source_rows": "all" if task.part.rows is None else str(task.part.rows),
        "keep": options.keep if isinstance(options.keep, str) else ",".join(options.keep),
        "bad_rows": options.bad_rows,
    }


class PartScorer:
    """Scores one part of a table.

    Arguments:
        detector: The model.
        task: The part.
        options: How it is scored.

    Raises:
        OfflineError: The table can't be read, or has not the columns that are needed.
    """

    def __init__(self, detector: Detector, task: Task, options: Options) -> None:
        self._detector, self._task, self._options = detector.changed(options.change), task, options
        file = task.part.file
        schema = schema_of(file)
        self._layout = layout_of(schema, detector.manifest, file, format_of(file).text)
        self._kept = kept_columns(schema, self._layout, options, file, detector.p_values is not None)
        self._schema = output_schema(
            [*_origin_fields(options), *(schema.field(name).remove_metadata() for name in self._kept)],
            metadata_of(task, detector.manifest, options),
            detector.p_values is not None,
        )
        self._batch_rows = options.batch_rows or min(MOST_BATCH_ROWS, max(1, BATCH_VALUES // self._layout.width))

    def run(self, threads: int = 1, report: Callable[[int], None] = lambda _: None) -> Counts:
        """Writes the scores.

        Arguments:
            threads: Threads that score batches side by side.
            report: Called with the number of rows that were scored since.

        Raises:
            OfflineError: The table can't be read, a row is bad, or the file can't be written.
        """
        columns = list(dict.fromkeys([*self._layout.columns, *self._kept]))
        batches = _numbered(read(self._task.part, columns, self._batch_rows), self._task.part.first_row)
        counts = Counts()
        with writing(Path(self._task.out), self._schema) as writer:
            for batch, found in in_order(threads, self._score, batches):
                writer.write(batch)
                counts += found
                report(found.rows)
            writer.close(counts)
        return counts

    def _score(self, numbered: tuple[int, Batch]) -> tuple[Batch, Counts]:
        first_row, batch = numbered
        rows = self._layout.matrix(batch)
        bad = ~np.isfinite(rows).all(axis=1)
        if bad.any():
            if self._options.bad_rows == "error":
                self._layout.refuse(batch, rows, self._task.part.file, first_row)
            rows[bad] = 0
        decided = self._detector.decide(self._run(rows))
        far = ~np.isfinite(decided.scores)
        if far.any():
            if self._options.bad_rows == "error":
                raise ScoreNotFinite(self._task.part.file, first_row + int(np.argmax(far)))
            bad |= far
        counts = self._count(rows[~bad] if bad.any() else rows, decided.anomalies & ~bad, len(rows))
        arrays = [
            *self._origin(first_row, len(rows)),
            *(batch.column(name) for name in self._kept),
            pa.array(decided.scores, mask=bad),
            pa.array(decided.anomalies, mask=bad),
        ]
        if self._detector.p_values is not None:
            arrays.append(pa.array(self._detector.p_values.of(decided.scores), mask=bad))
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema), counts

    def _count(self, scored: Matrix, anomalies: NDArray[np.bool_], rows: int) -> Counts:
        return Counts(
            rows=rows,
            anomalies=int(np.count_nonzero(anomalies)),
            bad_rows=rows - len(scored),
            values_outside_training_range=self._detector.reference.count_outside(scored),
            unseen_categories=self._detector.reference.count_unseen(scored),
        )

    def _run(self, rows: Matrix) -> Matrix:
        parts = [
            self._detector.run("scorer", rows[start : start + RUN_ROWS]) for start in range(0, len(rows), RUN_ROWS)
        ]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _origin(self, first_row: int, rows: int) -> list[Any]:
        if not self._options.origin:
            return []
        file = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), [self._task.part.file])
        return [file, pa.array(np.arange(first_row, first_row + rows))]


def kept_columns(schema: Schema, layout: Layout, options: Options, file: str, p_values: bool = False) -> list[str]:
    """Returns the columns that stand beside the scores, in the order of the table or as they are named.

    Raises:
        OfflineError: One is missing, there twice, or called as a column of the scores.
    """
    names: list[str] = list(schema.names)
    feeding = set(layout.columns)
    match options.keep:
        case "rest":
            kept = [name for name in names if name not in feeding]
        case "all":
            kept = names
        case "none":
            kept = []
        case named:
            kept = list(named)
    counts, added = Counter(names), {SCORE, ANOMALY} | ({FILE, ROW} if options.origin else set())
    if p_values:
        added.add(P_VALUE)
    for name in kept:
        if not counts[name]:
            have = shorten(", ".join(names), 200)
            raise OfflineError(f"{file}: there is no column {describe(name)} to keep, the table has {have}")
        if counts[name] > 1:
            raise OfflineError(f"{file}: column {describe(name)} is there {counts[name]} times, expected once")
        if name in added:
            raise OfflineError(
                f"{file}: column {describe(name)} has a name that is needed for the result;"
                " rename it, or name those to keep by --keep"
            )
    return kept


def in_order(threads: int, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yields what a function makes of items, in their order; several threads work on a few of them at a time."""
    if threads == 1:
        yield from map(function, items)
        return
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def _numbered(batches: Iterator[Batch], first_row: int) -> Iterator[tuple[int, Batch]]:
    for batch in batches:
        yield first_row, batch
        first_row += batch.num_rows


def _origin_fields(options: Options) -> Sequence[Any]:
    return [pa.field(FILE, pa.dictionary(pa.int32(), pa.string())), pa.field(ROW, pa.int64())] if options.origin else []
