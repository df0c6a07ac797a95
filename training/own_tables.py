"""From a user's table to a model folder: which rows are for what, the fit, and what its scores mean."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.datasets.base import Labels, Rows
from training.fitting import FitError
from training.table_fits import Observe, Parts, TableFit, divide, fit_table
from training.tables.base import Observer, Table
from training.tables.encoding import Encoder, fit_encoder
from training.tables.schema import Schema
from training.thresholds import contamination_threshold, false_positive_rate_threshold, smallest_rate

DEFAULT_RATE = 0.01
"""Of false positives."""

MOST_ANOMALIES = 10_000
"""Labelled anomalies that a model is judged by, at most."""


@dataclass(frozen=True)
class Rule:
    """How the threshold follows from calibration scores. If nothing is given, it is the rate `DEFAULT_RATE`.

    Attributes:
        false_positive_rate: The rate of normal rows that may be called anomalies.
        contamination: The ratio of all rows that are to be.
    """

    false_positive_rate: float | None = None
    contamination: float | None = None

    def checked(self, rows: int) -> "Rule":
        """Returns what is promised with so many calibration rows.

        Without a rate that was asked for, that is the default or the smallest there can be.

        Raises:
            FitError: What was asked for is no ratio, or can't be promised.
        """
        least = smallest_rate(rows)
        for name, ratio in (("contamination", self.contamination), ("false-positive rate", self.false_positive_rate)):
            if ratio is not None and not 0 < ratio < 1:
                raise FitError(f"the {name} is {ratio}, expected a ratio between 0 and 1")
        if self.contamination is not None:
            return self
        if self.false_positive_rate is None:
            return Rule(DEFAULT_RATE).possible(rows)
        if self.false_positive_rate < least:
            raise FitError(
                f"the false-positive rate is {self.false_positive_rate}, but {rows} calibration rows promise no less "
                f"than {least:.3g}"
            )
        return self

    def possible(self, rows: int) -> "Rule":
        """Returns the rule itself, or that with the smallest rate that so many calibration rows can promise."""
        if self.false_positive_rate is None:
            return self
        return Rule(max(self.false_positive_rate, smallest_rate(rows)))

    def threshold(self, scores: NDArray[np.floating]) -> float:
        """Returns the threshold that calibration scores (N,) give.

        Raises:
            ValueError: There are no scores, one of them is not finite, or so few can't promise the rate.
        """
        if self.contamination is not None:
            return contamination_threshold(scores, self.contamination)
        rate = DEFAULT_RATE if self.false_positive_rate is None else self.false_positive_rate
        return false_positive_rate_threshold(scores, rate)


@dataclass(frozen=True)
class OwnModel:
    """A model fitted to a user's table, with what its folder tells about it.

    Attributes:
        name: The name it is to be served under.
        schema: What the table's columns are; None if they were not found out.
        encoder: Makes rows of the table's values.
        x: Rows (N, M) by the indices of `fit.parts`.
        anomalies: Rows (A, M) that are labelled anomalies, which the fit has not seen.
        fit: The model.
        rule: How the threshold is chosen.
        seed: The seed of everything.
        sha256: The digest of the table's file.
        deciding: Rows (R, M) that the threshold comes from, if these are not the calibration rows.
    """

    name: str
    schema: Schema | None
    encoder: Encoder
    x: Rows
    anomalies: Rows
    fit: TableFit
    rule: Rule
    seed: int
    sha256: str
    deciding: Rows | None = None


def fit_own(
    table: Table,
    schema: Schema,
    name: str,
    rule: Rule,
    seed: int = 0,
    sha256: str = "0" * 64,
    reads: Observer | None = None,
    observe: Observe | None = None,
) -> OwnModel:
    """Fits a model to a table.

    Of labelled rows the normal ones are fitted; without labels all are, which a few percent of anomalies among them
    don't spoil.

    Arguments:
        table: The table.
        schema: What its columns are.
        name: The name the model is to be served under.
        rule: How the threshold is chosen.
        seed: The seed of everything.
        sha256: The digest of the table's file.
        reads: Is told how many rows are read.
        observe: Is told how the fit goes on.

    Raises:
        TableError: A value can't be used.
        FitError: There are too few rows, or a fit went wrong.
    """
    normal = np.arange(table.rows) if schema.label is None else np.flatnonzero(~labels_of(table, schema))
    if not len(normal):
        raise FitError(f"{table.source}: no row is normal, expected some to fit a model to")
    drawn = divide(len(normal), seed, sum(column.width for column in schema.used))
    rule = rule.checked(len(drawn.calibration))
    chosen = np.zeros(table.rows, dtype=np.bool_)
    chosen[normal[drawn.fitted]] = True
    encoder = fit_encoder(schema, table, chosen, reads)
    x, parts, anomalies = collect(encoder, table, normal, drawn, reads)
    fitted = fit_table(x, parts, seed, observe)
    return OwnModel(name, schema, encoder, x, anomalies, fitted, rule, seed, sha256)


def labels_of(table: Table, schema: Schema) -> Labels:
    """Reads the labels (N,) of a table."""
    reader = Encoder(table.source, (), schema.label)
    return np.concatenate([y for _, y in reader.batches(table) if y is not None])


def collect(
    encoder: Encoder, table: Table, normal: NDArray[np.intp], drawn: Parts, reads: Observer | None = None
) -> tuple[Rows, Parts, Rows]:
    """Encodes a table and keeps the rows that are for something.

    Arguments:
        encoder: Encodes it.
        table: The table.
        normal: Indices of the rows that may be fitted.
        drawn: Which of `normal` are for what.
        reads: Is told how many rows are read.

    Returns:
        The rows (N, M) that were drawn, which of them are for what, and labelled anomalies (A, M).
    """
    wanted = {name: np.sort(normal[getattr(drawn, name)]) for name in ("fitted", "held_out", "calibration")}
    kept: dict[str, list[Rows]] = {name: [] for name in wanted}
    anomalies: list[Rows] = []
    found = first = 0
    for x, y in encoder.batches(table, reads):
        for name, indices in wanted.items():
            low, high = np.searchsorted(indices, [first, first + len(x)])
            kept[name].append(x[indices[low:high] - first])
        if y is not None and found < MOST_ANOMALIES:
            anomalies.append(x[y][: MOST_ANOMALIES - found])
            found += len(anomalies[-1])
        first += len(x)
    rows = {name: np.concatenate(parts) for name, parts in kept.items()}
    ends = np.cumsum([len(part) for part in rows.values()])
    fitted, held_out, calibration = np.split(np.arange(ends[-1]), ends[:-1])
    none = np.empty((0, len(encoder.columns)), dtype=np.float32)
    return np.concatenate(list(rows.values())), Parts(fitted, held_out, calibration), np.concatenate([none, *anomalies])


def digest_of(path: Path) -> str:
    """Returns the sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
