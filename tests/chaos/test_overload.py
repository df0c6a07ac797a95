"""The bar of overload finds what it is to find."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.chaos.overload import BAR, Seen, judge
from tests.load.offered import Course, Phase, times

BEFORE = Phase(100.0, 5.0, due=500, accepted=500, answered_within=500, p50=1.5, p99=3.0, sent_p99=2.5)
OVER = Phase(
    *(3000.0, 30.0), due=90_000, accepted=28_500, refused=61_500, answered_within=28_500, p50=5.0, p99=9.0, settled=30.0
)
GOOD = Seen(1000.0, 950.0, [BEFORE, OVER, BEFORE], 5.0, 20.0, 30.0, [], 15.0, 3.0)

BAD: list[tuple[Callable[[Seen], Seen], str]] = [
    (lambda seen: replace(seen, goodput=890.0), "goodput is 0.89 of capacity, at least 0.9 is promised"),
    (lambda seen: replace(seen, phases=[BEFORE, replace(OVER, p99=12.6), BEFORE]), "is 5.0 x the unloaded one"),
    (lambda seen: replace(seen, phases=[BEFORE, replace(OVER, refused=0), BEFORE]), "nothing was refused"),
    (lambda seen: replace(seen, phases=[BEFORE, replace(OVER, failure="status 500"), BEFORE]), "status 500"),
    (lambda seen: replace(seen, phases=[BEFORE, OVER, replace(BEFORE, settled=1.2)]), "still refused 1.20 s after"),
    (lambda seen: replace(seen, phases=[BEFORE, OVER, replace(BEFORE, accepted=0)]), "still refused"),
    (lambda seen: replace(seen, grown=65.0), "memory grew by 65 MB, at most 64"),
    (lambda seen: replace(seen, health_ms=251.0), "the p99 of health checks is 251 ms"),
    (lambda seen: replace(seen, scrape_ms=260.0), "the p99 of scrapes is 260 ms"),
    (lambda seen: replace(seen, wrong=["/metrics: 503"]), "not answered 200: /metrics: 503"),
    (lambda seen: replace(seen, single_ms=300.0), "single rows beside long bodies is 300 ms"),
]


def test_what_is_promised_is_met() -> None:
    outcome = judge(GOOD)
    assert outcome.met, outcome.failures
    assert outcome.figures["goodput_over_capacity"] == 0.95
    assert outcome.figures["accepted_p99_over_unloaded"] == 3.6


@pytest.mark.parametrize(("spoil", "sentence"), BAD, ids=[sentence for _, sentence in BAD])
def test_what_is_not_held_is_said(spoil: Callable[[Seen], Seen], sentence: str) -> None:
    (failure,) = judge(spoil(GOOD)).failures
    assert sentence in failure


def test_requests_are_due_as_often_as_is_said() -> None:
    due = list(times(1000.0, 10.0, 1))
    assert due == sorted(due)
    assert 9_600 < len(due) < 10_400  # four standard deviations
    assert due != list(times(1000.0, 10.0, 2))


def test_latencies_begin_when_a_request_is_due() -> None:
    course = Course(Phase(10.0, 1.0), 0.0)
    course.accept(0.1, 0.2, 0.4)
    course.accept(0.8, 0.8, 1.1)
    course.refuse(0.5, 0.6)
    phase = course.result()
    assert (phase.accepted, phase.refused, phase.answered_within) == (2, 1, 1)
    assert (phase.p50, phase.p99, phase.sent_p99) == pytest.approx((300.0, 300.0, 300.0))
    assert (phase.refused_p99, phase.settled) == pytest.approx((100.0, 0.6))


@pytest.mark.slow
def test_a_small_share_of_the_bar() -> None:
    outcome = BAR.run(0.02)
    assert outcome.figures["refused"], outcome
    assert outcome.figures["failed"] == 0, outcome
    assert not [failure for failure in outcome.failures if "health" in failure or "memory" in failure], outcome
