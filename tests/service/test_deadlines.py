"""Work whose client waits no longer is not begun, wherever it waits."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service import inference
from service.aside import Aside, Threads
from service.batching import Batcher
from service.deadlines import check_deadline, set_deadline
from service.detector import Detector
from service.errors import DeadlineExceeded, InvalidHeader
from service.exchange import Exchange
from service.graphs import Matrix
from service.ledger import Observation
from tests.server import serving
from tests.service.requests import ROW
from tests.service.test_lane import connect, read, request

X = np.zeros((1, 2), np.float32)


def seen(started: float = 0.0) -> Observation:
    return Observation("id", "POST", "/score", None, started or time.perf_counter())


def test_no_header_no_deadline() -> None:
    observed = seen()
    set_deadline(observed, {})
    check_deadline(observed)
    assert observed.deadline is None


@pytest.mark.parametrize("name", [b"x-request-timeout-ms", b"x-envoy-expected-rq-timeout-ms"])
def test_a_deadline_counts_from_the_header(name: bytes) -> None:
    late, early = seen(time.perf_counter() - 0.06), seen()
    for observed in (late, early):
        set_deadline(observed, {name: b"50.5"})
    check_deadline(early)
    with pytest.raises(DeadlineExceeded, match=r"did not begin within the 50\.5 milliseconds"):
        check_deadline(late)


def test_the_clients_own_word_goes_first() -> None:
    observed = seen(1.0)
    set_deadline(observed, {b"x-envoy-expected-rq-timeout-ms": b"1", b"x-request-timeout-ms": b"2000"})
    assert observed.deadline == 3.0


@pytest.mark.parametrize("value", ["", "0", "-1", "1e3", "inf", "nan", "abc", "1.2.3", "\xb2", "5 ms", "9" * 400])
def test_values_that_are_none(value: str) -> None:
    with pytest.raises(InvalidHeader, match=r"x-request-timeout-ms is '.*', expected a number of milliseconds above 0"):
        set_deadline(seen(), {b"x-request-timeout-ms": value.encode("latin-1")})


def over() -> None:
    raise DeadlineExceeded(5)


def test_micro_batches_are_made_without_those_that_wait_no_longer() -> None:
    ran: list[int] = []

    def graph(rows: Matrix) -> Matrix:
        ran.append(len(rows))
        return rows[:, 0]

    async def main() -> list[Any]:
        batcher = Batcher(graph, 8, 0.0)
        waiting = [batcher(X), batcher(X, check=over), batcher(X)]
        return await asyncio.gather(*waiting, return_exceptions=True)

    first, late, last = asyncio.run(main())
    assert ran == [2]
    assert (len(first), len(last)) == (1, 1)
    assert isinstance(late, DeadlineExceeded)


def test_a_batch_that_nobody_waits_for_does_not_run() -> None:
    async def main() -> Any:  # noqa: ANN401
        batcher = Batcher(lambda _: pytest.fail("it ran"), 8, 0.0)
        return await asyncio.gather(batcher(X, check=over), return_exceptions=True)

    (late,) = asyncio.run(main())
    assert isinstance(late, DeadlineExceeded)


def test_a_graph_that_waited_for_a_thread_too_long_does_not_run() -> None:
    async def main() -> Any:  # noqa: ANN401
        threads = Threads(1, 8)
        aside = Aside(threads, lambda _: pytest.fail("it ran"))
        found = await asyncio.gather(aside(X, check=over), return_exceptions=True)
        threads.close()
        return found

    (late,) = asyncio.run(main())
    assert isinstance(late, DeadlineExceeded)


BODY = {"dataset": "thyroid", "vectors": [ROW] * 400}


def test_a_long_body_waits_for_those_before_it_only_as_long_as_it_says(
    app: FastAPI, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "INLINE_BYTES", 10_000)
    ran: list[int] = []
    read_at_once = Exchange.read

    def slowly(exchange: Exchange, body: bytes) -> tuple[Detector, Matrix]:
        ran.append(len(body))
        time.sleep(0.3)
        return read_at_once(exchange, body)

    monkeypatch.setattr(Exchange, "read", slowly)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(client.post, "/score", json=BODY)
        while not ran:
            time.sleep(0.01)
        late = client.post("/score", json=BODY, headers={"x-request-timeout-ms": "100"})
        assert first.result().status_code == 200
    assert (late.status_code, late.json()["kind"]) == (504, "deadline_exceeded")
    assert len(ran) == 1, "its body was read although nobody waited"
    assert app.state.service.gate.long == 0


def test_both_ways_refuse_what_is_no_time(tmp_path: Path) -> None:
    with serving(tmp_path / "log") as server, server.client() as client:
        with connect(server) as connection:
            for value, status, kind in (("x", 400, "invalid_header"), ("0.0001", 504, "deadline_exceeded")):
                connection.sendall(request(b'{"dataset": "thyroid", "vectors": []}', f"x-request-timeout-ms: {value}"))
                found, _, problem, _ = read(connection)
                assert (found, problem["kind"]) == (status, kind)
        url = "/v2/models/thyroid/infer"
        assert client.post(url, content=b"{}", headers={"x-request-timeout-ms": "x"}).status_code == 400
        assert client.post(url, content=b"{}", headers={"x-request-timeout-ms": "0.0001"}).status_code == 504
        assert 'radogaga_errors_total{kind="deadline_exceeded"} 2.0' in client.get("/metrics").text


def test_what_is_told_of_rows_that_are_not_wanted_comes_once() -> None:
    told: list[tuple[Matrix | Exception, float]] = []

    def done(results: Matrix | Exception, seconds: float) -> None:
        told.append((results, seconds))

    async def main() -> None:
        batcher = Batcher(lambda rows: rows, 2, 0.0)
        batcher.add(X, done, over)
        batcher.flush()
        batcher.flush()

    asyncio.run(main())
    ((error, seconds),) = told
    assert isinstance(error, DeadlineExceeded)
    assert seconds == 0.0
