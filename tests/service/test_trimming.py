"""Memory of long bodies is given back, once for several and not after the end."""

import asyncio
import ctypes
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from service import trimming
from service.app import create_app
from service.settings import Settings
from service.trimming import Trimmer, library_trim
from tests.load.processes import family
from tests.server import MODELS, serving
from tests.service.conftest import wait_until_ready

PAGE_BYTES = 4096

JSON = {"content-type": "application/json"}


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trimming, "SECONDS", 0.02)


def test_several_long_bodies_are_trimmed_after_once() -> None:
    times: list[float] = []

    async def ask() -> None:
        with ThreadPoolExecutor(1) as executor:
            trimmer = Trimmer(executor, lambda: times.append(time.monotonic()))
            for _ in range(5):
                trimmer.ask()
            await asyncio.sleep(0.1)
            assert len(times) == 1
            trimmer.ask()
            await asyncio.sleep(0.1)

    asyncio.run(ask())
    assert len(times) == 2


def test_it_is_done_regularly_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trimming, "SECONDS_BETWEEN", 0.05)
    times: list[float] = []

    async def ask() -> None:
        with ThreadPoolExecutor(1) as executor:
            trimmer = Trimmer(executor, lambda: times.append(time.monotonic()))
            task = asyncio.create_task(trimmer.ask_regularly())
            while len(times) < 3:
                await asyncio.sleep(0.01)
            task.cancel()
            trimmer.close()

    asyncio.run(asyncio.wait_for(ask(), 20))


def test_nothing_is_done_after_the_end() -> None:
    times: list[float] = []

    async def ask() -> None:
        executor = ThreadPoolExecutor(1)
        trimmer = Trimmer(executor, lambda: times.append(time.monotonic()))
        trimmer.close()
        trimmer.ask()
        trimmer.close()
        executor.shutdown()
        await asyncio.sleep(0.1)

    asyncio.run(ask())
    assert times == []


def resident() -> int:
    return int(Path(f"/proc/{os.getpid()}/statm").read_text().split()[1]) * PAGE_BYTES


def test_the_library_gives_back_what_lies_between_what_is_needed() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    blocks = [libc.malloc(60_000) for _ in range(2000)]
    for block in blocks:
        ctypes.memset(block, 1, 60_000)
    for block in blocks[:-1]:
        libc.free(block)
    before = resident()
    library_trim()()
    assert resident() < before - 100_000_000
    libc.free(blocks[-1])


def test_a_library_without_the_function_is_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert library_trim()() is None


def test_long_bodies_ask_for_it_and_others_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = create_app(Settings(models=MODELS))
    with TestClient(app) as client:
        ask_with_bodies(app, wait_until_ready(client), monkeypatch)


def ask_with_bodies(app: FastAPI, client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[float] = []
    monkeypatch.setattr(app.state.service.trimmer, "_trim", lambda: times.append(time.monotonic()))
    headers = {"content-type": "application/octet-stream"}
    for rows in (1, 900):
        body = np.zeros((rows, 6), np.float32).tobytes()
        assert client.post("/score?dataset=thyroid", content=body, headers=headers).status_code == 200
    time.sleep(0.1)
    client.get("/health/live")
    assert times == []
    long = b'{"dataset": "thyroid", "vectors": [[1, 2, 3, 4, 5, 6]]}' + b" " * 2**20
    answer = client.post("/score", content=long, headers={"content-type": "application/json"})
    assert answer.status_code == 200
    deadline = time.monotonic() + 20
    while not times:
        assert time.monotonic() < deadline
        client.get("/health/live")
    assert len(times) == 1


ARENAS = """
import ctypes, os, sys, threading
from service.trimming import share_one_arena

if sys.argv[1] == "shared":
    share_one_arena()
together = threading.Barrier(4)

def allocate():
    kept = bytearray(100_000)  # by the C library, for Python's own allocator has no place for it
    together.wait()

threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
library = ctypes.CDLL(None)
library.fdopen.restype = ctypes.c_void_p
stream = ctypes.c_void_p(library.fdopen(os.dup(1), b"w"))
library.malloc_info(0, stream)
library.fclose(stream)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="the C library has no arenas")
@pytest.mark.parametrize(("how", "arenas"), [("shared", {1}), ("own", {2, 3, 4, 5})])
def test_threads_share_one_arena(how: str, arenas: set[int]) -> None:
    found = subprocess.run([sys.executable, "-c", ARENAS, how], capture_output=True, text=True, check=True)
    assert found.stdout.count("<heap nr=") in arenas


def test_a_c_library_without_arenas_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    trimming.share_one_arena()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_service_s_processes_share_one(workers: int, tmp_path: Path) -> None:
    with serving(tmp_path / "log", workers=workers) as server:
        deadline = time.monotonic() + 60
        while sum(line["message"] == "ready" for line in server.lines()) < workers:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        long = b'{"dataset": "thyroid", "vectors": [[1, 2, 3, 4, 5, 6]]}' + b" " * 2**20
        for _ in range(4 * workers):
            assert httpx.post(f"{server.url()}/score", content=long, headers=JSON, timeout=30).status_code == 200
        for pid in family(server.process.pid):
            assert not arenas_of_threads(pid)


def arenas_of_threads(pid: int) -> list[str]:
    """Returns where a process has arenas beside the first: 64 MiB on such a boundary, the beginning in use."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    found = []
    for line, behind in pairwise(lines):
        (start, middle), (again, end) = (
            (int(place, 16) for place in text.split()[0].split("-")) for text in (line, behind)
        )
        if "rw-p" in line and "---p" in behind and middle == again and end - start == 2**26 and start % 2**26 == 0:
            found.append(line)
    return found
