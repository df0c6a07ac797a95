"""The bar of killed workers finds what it is to find."""

from dataclasses import replace

import pytest

from tests.chaos.killing import BAR, Answer, Seen, judge

FINE = Answer(1.0, 1.1, "a")
LOST = Answer(9.9, 10.02, "", "ConnectionResetError()")
SEEN = Seen([(10.0, 10.01)], [FINE, LOST], [3.0])


def test_what_was_in_flight_on_the_killed_worker_may_fail() -> None:
    outcome = judge(SEEN)
    assert outcome.met, outcome.failures
    assert (outcome.figures["failed_in_flight"], outcome.figures["failed_otherwise"]) == (1, 0)


@pytest.mark.parametrize(
    ("sent", "ended"), [(10.02, 10.05), (9.0, 9.5)], ids=["sent when it was gone", "failed before it was killed"]
)
def test_nothing_else_may(sent: float, ended: float) -> None:
    failed = Answer(sent, ended, "", "ConnectionResetError()")
    (failure,) = judge(replace(SEEN, answers=[FINE, failed])).failures
    assert failure.startswith("1 requests failed that were not in flight")


def test_requests_on_connections_to_the_other_worker_may_not() -> None:
    failed, later = replace(LOST, worker="a"), Answer(11.0, 11.1, "a")
    assert judge(replace(SEEN, answers=[FINE, failed])).met
    (failure,) = judge(replace(SEEN, answers=[FINE, failed, later])).failures
    assert failure.startswith("1 requests failed that were not in flight")


def test_those_sent_after_the_kill_are_told() -> None:
    late = Answer(10.005, 10.008, "", "ConnectionResetError()")
    figures = judge(replace(SEEN, answers=[FINE, LOST, late])).figures
    assert (figures["failed_in_flight"], figures["of_these_sent_before_it_was_gone_but_after_the_kill"]) == (2, 1)


def test_a_worker_that_is_late_is_found() -> None:
    (failure,) = judge(replace(SEEN, whole_after=[5.1])).failures
    assert failure == "two workers answered again only after 5.1 s, at most 5 s"


def test_a_try_without_load_is_none() -> None:
    assert not judge(replace(SEEN, answers=[])).met
    assert not judge(replace(SEEN, kills=[])).met


@pytest.mark.slow
def test_a_small_share_of_the_bar() -> None:
    outcome = BAR.run(0.02)
    assert outcome.figures["requests"], outcome
    assert outcome.figures["failed_otherwise"] == 0, outcome
