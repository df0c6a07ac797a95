"""What is taken at once, in which order, and how soon there is room again."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import pairwise

import pytest

from service import admission
from service.admission import Gate
from service.errors import Overloaded


def fill(gate: Gate, number: int, done: list[int]) -> None:
    for i in range(number):
        gate.put(lambda i=i: done.append(i))  # type: ignore[misc]


def run(test: Callable[[Gate], Awaitable[None]], most: int = 32) -> None:
    async def main() -> None:
        await test(Gate(most))

    asyncio.run(main())


def test_what_waits_is_done_in_its_order_and_the_next_is_refused() -> None:
    async def test(gate: Gate) -> None:
        done: list[int] = []
        fill(gate, 32, done)
        assert (gate.under_way, gate.busy, done) == (32, True, [])
        with pytest.raises(Overloaded, match="32 requests are under way, more are not taken at once"):
            gate.put(lambda: done.append(-1))
        await asyncio.sleep(0.05)
        assert (gate.under_way, done) == (0, list(range(32)))

    run(test)


def test_while_requests_are_refused_a_sixteenth_waits_and_all_again_when_it_is_calm() -> None:
    async def test(gate: Gate) -> None:
        done: list[int] = []
        fill(gate, 32, done)
        with pytest.raises(Overloaded):
            gate.check()
        await asyncio.sleep(0.05)
        assert (gate.limit, gate.busy) == (2, True)
        fill(gate, 2, done)
        with pytest.raises(Overloaded, match="2 requests"):
            gate.check()
        await asyncio.sleep(admission.CALM_SECONDS + 0.1)
        assert (gate.limit, gate.busy) == (32, False)

    run(test)


def test_bursts_that_the_whole_queue_has_room_for_are_not_refused_forever_behind_a_larger_one() -> None:
    async def test(gate: Gate) -> None:
        done: list[int] = []
        fill(gate, 32, done)
        with pytest.raises(Overloaded):
            gate.check()
        ends, refused = time.perf_counter() + 2 * admission.CALM_SECONDS, 0
        while time.perf_counter() < ends:
            await asyncio.sleep(0.05)
            refused = 0
            for _ in range(8):
                try:
                    fill(gate, 1, done)
                except Overloaded:
                    refused += 1
        assert refused == 0

    run(test)


def test_a_queue_that_is_never_empty_stays_short_while_requests_are_refused() -> None:
    async def test(gate: Gate) -> None:
        done: list[int] = []
        fill(gate, 32, done)
        ends = time.perf_counter() + 2.5 * admission.CALM_SECONDS
        while time.perf_counter() < ends:
            with suppress(Overloaded):
                while True:
                    gate.put(lambda: time.sleep(0.002))
            await asyncio.sleep(0)
        assert gate.limit == 2

    run(test)


def test_even_one_at_once_is_taken_while_others_are_refused() -> None:
    async def test(gate: Gate) -> None:
        gate.refusal()
        gate.check()

    run(test, most=1)


def test_long_bodies_have_a_quarter_and_leave_the_rest_to_short_ones() -> None:
    async def test(gate: Gate) -> None:
        for _ in range(8):
            gate.enter(long=True)
        with pytest.raises(Overloaded, match="8 requests with long bodies are under way"):
            gate.enter(long=True)
        assert gate.limit == 24, "a long body that is refused is no reason to refuse short ones"
        for _ in range(24):
            gate.enter(long=False)
        with pytest.raises(Overloaded):
            gate.enter(long=False)
        for _ in range(24):
            gate.leave(long=False)
        gate.leave(long=True)
        gate.enter(long=True)

    run(test)


def test_work_that_fails_does_not_keep_the_rest_waiting() -> None:
    async def test(gate: Gate) -> None:
        done: list[int] = []
        asyncio.get_running_loop().set_exception_handler(lambda *_: done.append(-1))
        gate.put(lambda: done[0])  # type: ignore[arg-type]
        fill(gate, 3, done)
        await asyncio.sleep(0.05)
        assert (done, gate.under_way, gate.busy) == ([-1, 0, 1, 2], 0, False)

    run(test)


def test_the_sockets_are_looked_at_between_two_spells_of_work() -> None:
    async def test(gate: Gate) -> None:
        done: list[float] = []

        def work() -> None:
            time.sleep(admission.SPELL_SECONDS / 2)
            done.append(time.perf_counter())

        for _ in range(20):
            gate.put(work)
        turns = []
        while len(done) < 20:
            await asyncio.sleep(0)
            turns.append(len(done))
        assert max(b - a for a, b in pairwise(turns)) <= 3

    run(test)


def test_newcomers_are_welcomed_before_more_work_is_done_but_not_for_ever() -> None:
    async def test(gate: Gate) -> None:
        done: list[int] = []
        gate.welcome()
        fill(gate, 1, done)
        for _ in range(5):
            await asyncio.sleep(0)
            assert done == []
            gate.welcome()
        started = time.perf_counter()
        while not done:
            gate.welcome()
            await asyncio.sleep(0)
            assert time.perf_counter() < started + 1
        await asyncio.sleep(0.02)
        assert not gate.busy

    run(test)


def test_a_task_waits_for_its_turn_behind_what_came_before() -> None:
    async def test(gate: Gate) -> None:
        order: list[int] = []

        async def take_turn(number: int) -> None:
            await gate.turn()
            order.append(number)

        fill(gate, 2, order)
        tasks = [asyncio.create_task(take_turn(number)) for number in (2, 3, 4)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == [0, 1, 2, 4]

    run(test)
