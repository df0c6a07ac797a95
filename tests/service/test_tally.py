"""What is kept and handed over later is what Prometheus's own calls would have made of it."""

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from service.tally import Counted, Observed

BOUNDS = (0.1, 0.5, 1.0)

VALUES = [0.0, 0.1, 0.10001, 0.5, 0.7, 1.0, 1.5, 99.0]


def histogram(labels: list[str]) -> tuple[CollectorRegistry, Histogram]:
    registry = CollectorRegistry()
    return registry, Histogram("seconds", "Seconds.", labels, buckets=BOUNDS, registry=registry)


def lines(registry: CollectorRegistry) -> list[str]:
    return [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]


def test_a_histogram_ends_up_as_if_it_had_observed_each_value() -> None:
    (one, expected), (other, later) = histogram(["kind"]), histogram(["kind"])
    observed = Observed(later, BOUNDS)
    for round_ in range(3):
        for value in VALUES:
            for kind in ("a", "b")[: round_ + 1]:
                expected.labels(kind).observe(value)
                observed.values[kind,].append(value)
        if round_ == 1:
            observed.settle()
    assert lines(other) != lines(one)
    observed.publish()
    assert lines(other) == lines(one)
    observed.publish()
    assert lines(other) == lines(one)


def test_a_histogram_without_labels() -> None:
    (one, expected), (other, later) = histogram([]), histogram([])
    observed = Observed(later, BOUNDS)
    for value in VALUES:
        expected.observe(value)
    observed.values[()] += np.asarray(VALUES).tolist()
    observed.publish()
    assert lines(other) == lines(one)


def test_a_counter_is_raised_once_for_all() -> None:
    registry = CollectorRegistry()
    counted = Counted(Counter("rows", "Rows.", ["dataset"], registry=registry))
    for amount in (1, 2, 39):
        counted.add(("a",), amount)
    counted.add(("b",), 0)
    assert not [line for line in lines(registry) if line.startswith("rows_total")]
    for _ in range(2):
        counted.publish()
        assert [line for line in lines(registry) if line.startswith("rows_total")] == [
            'rows_total{dataset="a"} 42.0',
            'rows_total{dataset="b"} 0.0',
        ]
