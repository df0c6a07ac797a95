"""Rows of several requests go through the graph together, and nobody notices."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from service.app import create_app
from service.batching import Batcher
from service.graphs import Matrix
from service.settings import Settings
from tests.server import MODELS
from tests.service.conftest import wait_until_ready


class Doubling:
    """A graph that doubles its rows, and notes how many it gets."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, rows: Matrix) -> Matrix:
        self.batches.append(len(rows))
        return 2 * rows[:, 0]


def rows(*values: float) -> Matrix:
    return np.array([[value] for value in values], dtype=np.float32)


def together(*requests: Coroutine[Any, Any, Matrix]) -> list[Any]:
    async def gather() -> list[Any]:
        return list(await asyncio.gather(*requests, return_exceptions=True))

    return asyncio.run(gather())


def test_requests_of_one_turn_go_together() -> None:
    graph = Doubling()
    batcher = Batcher(graph, 32, 0.0)
    results = together(*(batcher(rows(i, i + 0.5)) for i in range(5)))
    assert graph.batches == [10]
    assert [result.tolist() for result in results] == [[2 * i, 2 * i + 1] for i in range(5)]


def test_batches_are_no_larger_than_the_limit() -> None:
    graph = Doubling()
    batcher = Batcher(graph, 4, 0.0)
    results = together(*(batcher(rows(*range(n))) for n in (3, 2, 2, 1, 1)))
    assert graph.batches == [3, 4, 2]
    assert [len(result) for result in results] == [3, 2, 2, 1, 1]


def test_a_row_alone_does_not_wait() -> None:
    started = time.monotonic()
    (result,) = together(Batcher(Doubling(), 32, 60.0)(rows(1)))
    assert result.tolist() == [2]
    assert time.monotonic() - started < 30


def test_several_wait_for_more() -> None:
    graph = Doubling()
    batcher = Batcher(graph, 3, 60.0)

    async def later() -> Matrix:
        await asyncio.sleep(0.01)
        return await batcher(rows(3))

    together(batcher(rows(1)), batcher(rows(2)), later())
    assert graph.batches == [3]
    graph.batches.clear()
    together(*(Batcher(graph, 32, 0.01)(rows(i)) for i in range(2)))
    assert graph.batches == [1, 1]
    graph.batches.clear()
    patient = Batcher(graph, 32, 0.01)
    together(patient(rows(1)), patient(rows(2)))
    assert graph.batches == [2]


def test_every_request_of_a_batch_that_fails_is_told() -> None:
    def broken(_: Matrix) -> Matrix:
        raise RuntimeError("broken")

    batcher = Batcher(broken, 32, 0.0)
    results = together(batcher(rows(1)), batcher(rows(2)))
    assert [str(result) for result in results] == ["broken", "broken"]


def test_a_request_that_is_given_up_does_not_disturb_the_others() -> None:
    batcher = Batcher(Doubling(), 32, 0.0)

    async def give_up() -> Matrix:
        first = asyncio.ensure_future(batcher(rows(1)))
        second = asyncio.ensure_future(batcher(rows(2)))
        await asyncio.sleep(0)
        first.cancel()
        return await second

    assert asyncio.run(give_up()).tolist() == [4]


@pytest.mark.parametrize("wait", [0, 500])
def test_scores_are_the_same_to_the_last_bit_whatever_the_batch(client: TestClient, wait: int) -> None:
    draw = np.random.default_rng(0)
    x = draw.random((40, 121), dtype=np.float32)
    alone = client.post("/score", json={"dataset": "kddcup99", "vectors": x.tolist()}).json()["scores"]
    app = create_app(Settings(models=MODELS, max_batch_rows=16, max_wait_us=wait))
    sizes = [1, 2, 1, 5, 1, 1, 8, 1, 3, 1, 15, 1]
    with TestClient(app) as batching:
        wait_until_ready(batching)

        async def post_all() -> list[float]:
            service = app.state.service
            detector = service.models().find("kddcup99")
            starts = np.cumsum([0, *sizes])
            parts = [x[start : start + size] for start, size in zip(starts, sizes, strict=False)]
            scored = await asyncio.gather(*(service.elsewhere(detector, "scorer", part, 0)(part) for part in parts))
            return [float(score) for score in np.concatenate(scored)]

        assert asyncio.run(post_all()) == alone
