"""The bar of guesses is met, and is not by a service that leaks, lets in, or forgets to refuse."""

import hmac
import random
import sys

import pytest

from tests.chaos.guessing import (
    BAR,
    MOST_APART,
    Counts,
    attempt,
    guesses,
    judge,
    least,
    random_guess,
    time_check,
)

DRAW = random.Random(8)
KEYS = [random_guess(DRAW) for _ in range(3)]


def test_guesses_are_no_keys_and_go_over_the_wire() -> None:
    made = list(guesses(KEYS, 600, DRAW))
    assert len(made) == 600
    assert not set(made) & set(KEYS)
    assert not any(set(guess) & {0, 10, 13} or guess != guess.strip() for guess in made)
    assert sum(guess[:-1] == key[:-1] for guess in made for key in KEYS) > 0


def compare_in_constant_time(guess: bytes) -> bool:
    return any(hmac.compare_digest(guess, key) for key in KEYS)


def compare_letter_by_letter(guess: bytes) -> bool:
    return any(
        len(guess) == len(key) and all(one == other for one, other in zip(guess, key, strict=True)) for key in KEYS
    )


def test_the_judge_of_times_finds_a_leak_and_nothing_else() -> None:
    assert abs(least(lambda: time_check(compare_in_constant_time, KEYS[0], 100, DRAW))) < MOST_APART
    assert least(lambda: time_check(compare_letter_by_letter, KEYS[0], 50, DRAW)) > 3 * MOST_APART


@pytest.mark.parametrize(
    ("told", "failure"),
    [
        ({"in_process": 0.06}, "The check of a near miss takes 6.0 % longer than that of a random guess."),
        ({"by_http": -0.06}, "The refusal of a near miss takes -6.0 % longer than that of a random guess."),
        ({"seconds": 1.2}, "A revoked key was taken for another 1.20 s, at most 1 are promised."),
        ({"leaked": ["ci"]}, "The key 'ci' stands in the log."),
        ({"counts": Counts({200: 1}, ["guess b'x' was answered 200, expected 401"])}, "guess b'x' was answered 200"),
    ],
)
def test_what_was_not_promised_is_told(told: dict[str, object], failure: str) -> None:
    good: dict[str, object] = {"in_process": 0.01, "by_http": 0.01, "latency": 0.2, "seconds": 0.5, "leaked": []}
    good["counts"] = Counts({401: 10, 403: 2})
    assert judge(**good).met  # type: ignore[arg-type]
    (found,) = judge(**good | told).failures  # type: ignore[arg-type]
    assert found.startswith(failure)


@pytest.mark.slow
def test_a_share_of_the_bar_is_met() -> None:
    outcome = BAR.run(0.02)
    assert outcome.met, outcome


BY_PREFIX = """
from service import access, __main__ as program
from service.access import Access
def find(self, sent):
    return next((key for key in self._keys.values() if sent[:40] == sent), None) or real(self, sent)
real, Access.find = Access.find, find
program.main()
"""

SLOW_IF_NEAR = """
import time
from service import access, __main__ as program
from service.access import Access
def find(self, sent):
    found = real(self, sent)
    if found:
        good.append(sent)
    elif any(sent[:8] == key[:8] for key in good):
        time.sleep(0.0001)
    return found
good, real, Access.find = [], Access.find, find
program.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "failure"),
    [(BY_PREFIX, "was answered"), (SLOW_IF_NEAR, "The refusal of a near miss takes")],
    ids=["lets in", "leaks"],
)
def test_a_service_that_breaks_the_promise_is_found(program: str, failure: str) -> None:
    outcome = attempt(0.02, [sys.executable, "-c", program], workers=1)
    assert any(failure in told for told in outcome.failures), outcome
