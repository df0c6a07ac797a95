"""The bar of slow clients finds what it is to find."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos.slow_clients import BAR, Seen, allowed, judge, kinds, measure

CUT = {"slow_header": 10.3, "slow_body": 11.4, "never_reading": 10.4}
GOOD = Seen([1.1, 1.2, 2.5], 5.0, 4.0, CUT, 500, 30.0, 0)

BAD = [
    (replace(GOOD, ratios=[1.0, 2.1, 2.2]), "the p99 of others is 2.10 x that without slow clients, at most 2 x"),
    (replace(GOOD, connected=499), "only 499 slow clients were there at once, 500 are meant"),
    (replace(GOOD, memory=129.0), "memory grew by 129 MB"),
    (replace(GOOD, files=3), "3 more files are open than before"),
    *(
        (replace(GOOD, cut_after={**CUT, kind: float("inf")}), f"{kind}: the last was cut off after inf s")
        for kind in CUT
    ),
]


def test_what_is_promised_is_met() -> None:
    assert judge(GOOD, 500).met
    assert judge(GOOD, 500).figures["p99_ratio"] == 1.2


@pytest.mark.parametrize(("seen", "sentence"), BAD, ids=[sentence for _, sentence in BAD])
def test_what_is_not_held_is_said(seen: Seen, sentence: str) -> None:
    (failure,) = judge(seen, 500).failures
    assert failure.startswith(sentence)


def test_what_trickles_in_takes_longer_than_any_client_is_waited_for() -> None:
    for kind, (_, trickle) in kinds("http://127.0.0.1:8000").items():
        assert kind == "never_reading" or len(trickle) > allowed(kind) / 0.5


@pytest.mark.slow
def test_a_small_share_of_the_bar() -> None:
    outcome = BAR.run(0.06)
    assert outcome.figures["slow_clients"] == 30, outcome
    assert not [failure for failure in outcome.failures if "p99" not in failure], outcome


@pytest.mark.slow
def test_a_service_that_waits_for_ever_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.chaos.slow_clients.LIMIT_SECONDS", 60.0)
    monkeypatch.setattr("tests.chaos.slow_clients.GIVEN_UP_SECONDS", 3.0)
    assert min(measure(tmp_path, 30, 1, 0.3).cut_after.values()) == float("inf")
