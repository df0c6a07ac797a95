"""Every thread of a pool is there before anything is asked of it, so that load adds none."""

import asyncio
import threading
from collections.abc import Set
from pathlib import Path

from fastapi.testclient import TestClient

from service.app import THREADS_ASIDE, create_app
from service.aside import cores
from service.pools import started_pool
from service.settings import Settings
from tests.service.conftest import wait_until_ready


def started(but: Set[threading.Thread] = frozenset()) -> dict[str, int]:
    """Counts threads by the name of their pool, but for some that were there before."""
    names = [thread.name.rpartition("_")[0] for thread in threading.enumerate() if thread not in but]
    return {name: names.count(name) for name in names}


def test_its_threads_are_there_and_no_more_come() -> None:
    with started_pool(3, "of-the-test") as pool:
        assert started()["of-the-test"] == 3
        gate = threading.Event()
        waiting = [pool.submit(gate.wait, 20) for _ in range(10)]
        assert started()["of-the-test"] == 3
        gate.set()
        assert all(one.result(timeout=20) for one in waiting)
    assert "of-the-test" not in started()


def test_a_service_has_all_its_threads_when_it_is_ready(models: Path) -> None:
    before = set(threading.enumerate())
    with TestClient(create_app(Settings(models=models))) as client:
        wait_until_ready(client)
        expected = {"aside": THREADS_ASIDE, "long-bodies": max(2, cores())}
        assert expected.items() <= started(before).items()

        async def much() -> None:
            await asyncio.gather(*(asyncio.to_thread(threading.Event().wait, 0.01) for _ in range(50)))

        assert client.portal is not None
        client.portal.call(much)
        assert expected.items() <= started(before).items()
