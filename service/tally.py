"""Counts that are kept in this process until Prometheus's metrics are brought up to date.

Adding to a metric of prometheus_client takes a lock for each number that changes and, with several workers, a write
into a file. A request changes some twenty numbers. So what is to be added is kept here and handed over together: when
Prometheus asks, and every second where there are several workers, for then Prometheus may ask another one.
"""

from collections import Counter as Counts
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Histogram

Labels = tuple[Hashable, ...]


class Counted:
    """What a counter is to be raised by, for each of its labels.

    Arguments:
        counter: The counter.
    """

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._children: dict[Labels, Counter] = {}
        self._kept: Counts[Labels] = Counts()

    def add(self, labels: Labels, amount: int) -> None:
        """Adds to what the counter of these labels is to be raised by; it then exists, even if that is 0."""
        self._kept[labels] += amount

    def publish(self) -> None:
        """Raises the counter."""
        kept, self._kept = self._kept, Counts()
        for labels, amount in kept.items():
            child = self._children.get(labels)
            if child is None:
                child = self._children[labels] = self._counter.labels(*labels)
            child.inc(amount)

    def forget(self, is_gone: Callable[[Labels], bool]) -> None:
        """Forgets the counters of labels of which there will be no more."""
        for labels in [labels for labels in self._children if is_gone(labels)]:
            del self._children[labels]
            self._counter.remove(*labels)


class Observed:
    """What a histogram is still to observe, for each of its labels.

    Arguments:
        histogram: The histogram.
        bounds: The upper bounds of its buckets, rising, without infinity.

    Attributes:
        values: Values that were not looked at yet; whoever appends to them calls `settle` before they are too many.
    """

    def __init__(self, histogram: Histogram, bounds: Sequence[float]) -> None:
        self.values: dict[Labels, list[float]] = defaultdict(list)
        self._child: Callable[..., Histogram] = cache(
            lambda *labels: histogram.labels(*labels) if labels else histogram
        )
        self._bounds = bounds
        self._sums: dict[Labels, float] = defaultdict(float)
        self._counts: dict[Labels, NDArray[np.int64]] = {}

    def settle(self) -> None:
        """Sorts the values into the buckets: one belongs to the first whose bound is not below it."""
        for labels, values in self.values.items():
            counts = np.bincount(np.searchsorted(self._bounds, values), minlength=len(self._bounds) + 1)
            self._counts[labels] = self._counts.get(labels, 0) + counts
            self._sums[labels] += sum(values)
        self.values.clear()

    def publish(self) -> None:
        """Hands everything to the histogram, as so many calls of its `observe` would."""
        self.settle()
        for labels, counts in self._counts.items():
            child = self._child(*labels)
            child._sum.inc(self._sums[labels])
            for bucket, count in zip(child._buckets, counts.tolist(), strict=True):
                if count:
                    bucket.inc(count)
        self._counts.clear()
        self._sums.clear()
