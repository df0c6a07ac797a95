"""Bar 1, for a moment, and its judge."""

from collections import Counter

import pytest

from tests.chaos.swaps import BAR, Seen, folder_of_versions, judge


def test_a_moment_of_it() -> None:
    outcome = BAR.run(0.03)
    assert outcome.failures == []
    assert int(outcome.figures["versions"]) >= 5


def test_every_part_of_an_answer_tells_its_version() -> None:
    with folder_of_versions() as (_, versions):
        versions.publish()
        one = {"version": 1, "threshold": 1.0, "scores": versions._scores[1]}
        one["anomalies"] = [score >= 1.0 for score in versions._scores[1]]
        two = {"version": 2, "threshold": 2.0, "scores": versions._scores[0]}
        two["anomalies"] = [score >= 2.0 for score in versions._scores[0]]
        assert versions.problem(one) is None
        assert versions.problem(two) is None
        assert one["anomalies"] != two["anomalies"]
        for part in ("threshold", "scores", "anomalies"):
            assert str(versions.problem(one | {part: two[part]})).startswith("version 1 with the ")
        assert versions.problem(one | {"version": 3}) == "there is no version 3"


@pytest.mark.parametrize(
    ("seen", "late", "failure"),
    [
        (Seen(Counter({1: 5}), ["503 x"]), 0.1, "1 of 6 requests failed, the first with 503 x"),
        (Seen(Counter({1: 5}), [], ["y"]), 0.1, "1 of 5 answers are none of one version: y"),
        (Seen(Counter({1: 5})), 1.1, "the newest version answered after 1.10 seconds, expected 1"),
        (Seen(), 0.1, "only 0 of 1 versions ever answered"),
    ],
)
def test_what_is_not_held_is_said(seen: Seen, late: float, failure: str) -> None:
    assert judge(seen, 1, late).failures == [failure]


def test_what_is_held() -> None:
    assert judge(Seen(Counter({1: 5, 2: 5})), 2, 0.1).met
