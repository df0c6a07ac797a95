"""Summaries of columns in one pass and in bounded memory."""

from typing import Any

import numpy as np
import polars
import pyarrow as pa
from numpy.typing import NDArray

from training.tables.values import Array

Hashes = NDArray[np.uint64]


class Distinct:
    r"""Counts different values: exactly up to a limit, and beyond it by the k smallest hashes.

    .. math:: \hat n = (k - 1) / h_{(k)}

    with hashes that are uniform on (0, 1). The standard error is n over the square root of k.

    References:
        Counting Distinct Elements in a Data Stream (Bar-Yossef et al., 2002)

    Arguments:
        limit: The number of hashes k that are kept.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._smallest: Hashes = np.zeros(0, dtype=np.uint64)

    def add(self, hashes: Hashes) -> None:
        """Takes the hashes (N,) of some values."""
        if len(self._smallest) == self._limit:
            hashes = hashes[hashes < self._smallest[-1]]
            if not len(hashes):
                return
        self._smallest = np.union1d(self._smallest, hashes)[: self._limit]

    @property
    def exact(self) -> bool:
        """Whether the count is not an estimate."""
        return len(self._smallest) < self._limit

    @property
    def count(self) -> int:
        """The number of different values."""
        if self.exact:
            return len(self._smallest)
        return round((self._limit - 1) / (int(self._smallest[-1]) + 1) * 2**64)


class Counts:
    """Counts how often each text occurs, for at most so many texts.

    Where there are more, those that occurred least are forgotten. A text is counted too low by at most `missed`, which
    is little beside the count of any text that is frequent.

    Arguments:
        limit: The number of texts that are remembered.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._table = pa.table({"text": pa.array([], pa.string()), "rows": pa.array([], pa.int64())})
        self.missed = 0

    def add(self, texts: Array, rows: Array) -> None:
        """Takes different texts (N,) and how often each occurred."""
        new = pa.table({"text": texts, "rows": rows})
        joined = pa.concat_tables([self._table, new]).group_by("text").aggregate([("rows", "sum")])
        self._table = pa.table({"text": joined["text"], "rows": joined["rows_sum"]}).combine_chunks()
        if len(self._table) > 2 * self._limit:
            self._forget()

    def _forget(self) -> None:
        rows = self._table["rows"].to_numpy()
        order = np.argsort(-rows, kind="stable")
        self.missed += int(rows[order[self._limit]])
        self._table = self._table.take(pa.array(np.sort(order[: self._limit])))

    def __len__(self) -> int:
        return len(self._table)

    def most_frequent(self) -> list[tuple[str, int]]:
        """Returns texts with their counts, the most frequent first, and by the alphabet where they are the same."""
        pairs = zip(self._table["text"].to_pylist(), self._table["rows"].to_pylist(), strict=True)
        return sorted(pairs, key=lambda pair: (-pair[1], pair[0]))


class Moments:
    r"""Count, range, mean and variance of numbers, put together from those of batches.

    References:
        Updating Formulae and a Pairwise Algorithm for Computing Sample Variances (Chan et al., 1979)
    """

    def __init__(self) -> None:
        self.count = 0
        self.minimum, self.maximum = np.inf, -np.inf
        self.mean = 0.0
        self._squares = 0.0  # the sum of squared distances to the mean

    def add(self, values: NDArray[Any]) -> None:
        """Takes finite values (N,)."""
        if not len(values):
            return
        values = values.astype(np.float64, copy=False)
        mean = float(values.mean())
        squares = float(((values - mean) ** 2).sum())
        total = self.count + len(values)
        delta = mean - self.mean
        self._squares += squares + delta * delta * self.count * len(values) / total
        self.mean += delta * len(values) / total
        self.count = total
        self.minimum = min(self.minimum, float(values.min()))
        self.maximum = max(self.maximum, float(values.max()))

    @property
    def std(self) -> float:
        """The standard deviation of all values, with their number below the sum."""
        return float(np.sqrt(self._squares / self.count)) if self.count else 0.0


class Sample:
    """Keeps values for a median: all of them up to a limit, and beyond it a random sample of that size.

    Arguments:
        limit: The number of values that are kept.
        seed: The seed of the sample.
    """

    def __init__(self, limit: int, seed: int = 0) -> None:
        self._limit = limit
        self._generator = np.random.default_rng(seed)
        self._kept: list[tuple[NDArray[np.float32], Hashes]] = []
        self._held = 0

    def add(self, values: NDArray[np.float32]) -> None:
        """Takes values (N,)."""
        marks = self._generator.integers(2**64, size=len(values), dtype=np.uint64)
        self._kept.append((values, marks))
        self._held += len(values)
        if self._held > 2 * self._limit:
            self._settle()

    def _settle(self) -> None:
        values = np.concatenate([kept for kept, _ in self._kept])
        marks = np.concatenate([kept for _, kept in self._kept])
        if len(values) > self._limit:
            chosen = np.argpartition(marks, self._limit - 1)[: self._limit]
            values, marks = values[chosen], marks[chosen]
        self._kept, self._held = [(values, marks)], len(values)

    def median(self) -> float | None:
        """Returns the median as a float32, or None without values."""
        if not self._held:
            return None
        self._settle()
        return float(np.float32(np.median(self._kept[0][0].astype(np.float64))))


def hash_numbers(values: NDArray[Any]) -> Hashes:
    """Returns a hash for each of the numbers (N,): SplitMix64's of their bits, 0 and -0 being the same."""
    if values.dtype.kind == "f":
        bits = (values.astype(np.float64, copy=False) + 0.0).view(np.uint64)
    else:
        bits = values.astype(np.uint64)
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Hashes = bits ^ (bits >> np.uint64(31))
    return mixed


def hash_texts(texts: Array) -> Hashes:
    """Returns a hash for each of the texts (N,)."""
    hashes: Hashes = polars.Series(polars.from_arrow(texts)).hash(seed=0).to_numpy()
    return hashes
