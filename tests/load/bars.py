"""What the service has to reach, as ratios of figures from one run.

A ratio is the median of those of each round: what is compared stands close together in a round, and the machine has
phases of some seconds in which everything takes half as long again.
"""

import operator
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.load.bodies import FLOATS, MANY_FLOATS, ROW, ROWS
from tests.load.measuring import Case, Figures

Found = Mapping[str, Sequence[Figures]]
"""The figures of every case, by its text: those of every time it was measured."""

FILLED = "service: filled"
"""What `fill` found."""


def alone(server: str) -> str:
    """Returns what `live` found of a server."""
    return f"{server}: alone"


@dataclass(frozen=True)
class Term:
    """One figure of one case."""

    case: Case | str
    figure: str

    def of(self, found: Found) -> list[float]:
        """Returns its values, one for every time it was measured.

        Raises:
            NotMeasured: The case was not measured.
        """
        if str(self.case) not in found:
            raise NotMeasured(str(self.case))
        return [figures[self.figure] for figures in found[str(self.case)]]


class NotMeasured(Exception):
    """A case that a bar needs has no figures."""


Comparison = Callable[[float, float], bool]

SIGNS: dict[Comparison, str] = {operator.le: "≤", operator.lt: "<", operator.ge: "≥", operator.gt: ">"}


@dataclass(frozen=True)
class Bar:
    """A figure over another, or a figure by itself, and what it has to be.

    Attributes:
        text: What is compared, for readers.
        of: The figure.
        over: What it is divided by, if anything.
        holds: How it compares with the limit; None if it is only stated.
        limit: The limit.
    """

    text: str
    of: Term
    over: Term | None = None
    holds: Comparison | None = None
    limit: float = float("nan")

    def wanted(self) -> str:
        """Writes what it has to be."""
        return "-" if self.holds is None else f"{SIGNS[self.holds]} {self.limit:g}"


@dataclass(frozen=True)
class Verdict:
    """A bar with what was measured.

    Attributes:
        bar: The bar.
        value: The ratio or figure; None if it was not measured.
        outcome: In words: met, not met, stated, or why there is no value.
    """

    bar: Bar
    value: float | None
    outcome: str


def ratio(values: Sequence[float], others: Sequence[float]) -> float:
    """Returns the median of the ratios of each round; what was measured several times a round counts by its mean."""
    rounds = min(len(values), len(others))
    return statistics.median(
        statistics.mean(mine) / statistics.mean(theirs)
        for mine, theirs in zip(by_round(values, rounds), by_round(others, rounds), strict=True)
    )


def by_round(values: Sequence[float], rounds: int) -> list[Sequence[float]]:
    """Returns the values of each round."""
    ends = [len(values) * number // rounds for number in range(rounds + 1)]
    return [values[start:end] for start, end in pairwise(ends)]


def judge(bar: Bar, found: Found) -> Verdict:
    """Compares a bar with the figures of a run."""
    try:
        values = bar.of.of(found)
        value = ratio(values, bar.over.of(found)) if bar.over else statistics.median(values)
    except NotMeasured as missing:
        return Verdict(bar, None, f"not measured: {missing}")
    if bar.holds is None:
        return Verdict(bar, value, "stated")
    return Verdict(bar, value, "met" if bar.holds(value, bar.limit) else "not met")


SERVICE = "service"
TWO = "service, two workers"
SHARED = "service, shared metrics"
BATCHING = "service, batching"
ORJSON = "raw ASGI, orjson"
RAW = "raw ASGI, float32"
USUAL = "FastAPI, the usual way"


def row(server: str, figure: str, connections: int = 16, disturbed: bool = False) -> Term:
    """Returns a figure of single rows."""
    return Term(Case(server, ROW, connections, disturbed), figure)


BARS: dict[str, list[Bar]] = {
    "1. Single rows": [
        Bar("CPU, over raw ASGI with orjson", row(SERVICE, "cpu"), row(ORJSON, "cpu"), operator.le, 1.25),
        Bar("CPU, over mosec", row(SERVICE, "cpu"), row("mosec, orjson", "cpu"), operator.lt, 1),
    ],
    "2. 256 rows as JSON": [
        Bar(
            f"rows/s, over {text}",
            Term(Case(SERVICE, ROWS), "rows"),
            Term(Case(name, ROWS), "rows"),
            operator.ge,
            limit,
        )
        for text, name, limit in (("raw ASGI with orjson", ORJSON, 2), ("MLServer", "MLServer", 3), (USUAL, USUAL, 8))
    ],
    "3. 256 rows as float32": [
        Bar(f"CPU, over {text}", Term(Case(SERVICE, FLOATS), "cpu"), Term(Case(name, FLOATS), "cpu"), holds, limit)
        for text, name, holds, limit in (
            ("raw ASGI", RAW, operator.le, 1.15),
            ("mosec", "mosec, float32", operator.lt, 1),
        )
    ],
    "4. 4096 rows as float32": [
        Bar(
            "rows/s, over raw ASGI",
            Term(Case(SERVICE, MANY_FLOATS), "rows"),
            Term(Case(RAW, MANY_FLOATS), "rows"),
            operator.ge,
            0.9,
        ),
    ],
    "5. Two workers on two cores": [
        Bar(
            f"requests/s over one worker, {body}",
            Term(Case(TWO, body), "requests"),
            Term(Case(SERVICE, body), "requests"),
            operator.ge,
            1.5,
        )
        for body in (FLOATS, ROW)
    ]
    + [
        Bar(f"p99 over p50, {body}", Term(Case(TWO, body), "p99"), Term(Case(TWO, body), "p50"), operator.le, 3)
        for body in (FLOATS, ROW)
    ]
    + [Bar("CPU with metrics that workers share, over that without", row(SHARED, "cpu"), row(SERVICE, "cpu"))],
    "6. Start and memory": [
        Bar(
            "seconds from the start to the first score, five models",
            Term(alone(SERVICE), "start"),
            None,
            operator.le,
            1.5,
        ),
        Bar("MB after 200,000 single rows (PSS)", Term(FILLED, "memory"), None, operator.le, 120),
        Bar("MB of two workers together (PSS)", Term(alone(TWO), "memory"), None, operator.le, 2 * 120),
        Bar("MB by which they made it grow", Term(FILLED, "growth")),
    ],
    "7. Micro-batching, single rows": [
        Bar(
            "CPU at 64 connections, over raw ASGI with orjson",
            row(BATCHING, "cpu", 64),
            row(ORJSON, "cpu", 64),
            operator.le,
            0.8,
        ),
        Bar("p99 over p50, 64 connections", row(BATCHING, "p99", 64), row(BATCHING, "p50", 64), operator.le, 2),
        Bar("requests/s at 64 connections", row(BATCHING, "requests", 64)),
        Bar("requests/s of mosec, batching", row("mosec, batching", "requests", 64)),
        Bar(
            "p50 over that without batching, 1 connection",
            row(BATCHING, "p50", 1),
            row(SERVICE, "p50", 1),
            operator.le,
            1.05,
        ),
    ],
    "8. Single rows beside one client with 4096 rows of JSON": [
        Bar("p99 over p99 alone", row(SERVICE, "p99", disturbed=True), row(SERVICE, "p99"), operator.le, 10),
        Bar(f"the same, {USUAL}", row(USUAL, "p99", disturbed=True), row(USUAL, "p99")),
    ],
}
"""What is asked for, by heading."""
