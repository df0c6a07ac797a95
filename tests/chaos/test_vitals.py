"""What a service holds is counted, and growth is told from what comes and goes."""

import mmap
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chaos import pictures
from tests.chaos.vitals import Vitals, growth, judge, keep, look

FLAT = [Vitals(5.0 * n, 4, 300.0, 400.0, 80, 15) for n in range(200)]


def changed(change: Callable[[int], dict[str, float]]) -> list[Vitals]:
    return [replace(one, **change(n)) for n, one in enumerate(FLAT)]  # type: ignore[arg-type]


def test_what_is_flat_passes() -> None:
    assert judge(growth(FLAT)) == []


def test_what_comes_and_goes_passes() -> None:
    draw = random.Random(0)
    samples = changed(
        lambda _: {
            "rss": 400 + draw.choice((0, 0, 0, 0, 1, 70)),
            "descriptors": 80 + draw.choice((0, 0, 0, 3)),
            "threads": 15,
        }
    )
    assert judge(growth(samples)) == []


def test_growth_before_the_middle_passes() -> None:
    assert judge(growth(changed(lambda n: {"rss": min(400, 200 + 2.1 * n)}))) == []


BAD = {
    "a leak": (lambda n: {"rss": 400 + n * 0.06}, "memory drifted by 1."),
    "memory that is let go": (lambda n: {"rss": 400 - n * 0.06}, "memory drifted by -1."),
    "a step": (lambda n: {"rss": 400 + 8 * (n > 150)}, "memory of the last half spread over 1.99%"),
    "a leak below noise": (lambda n: {"rss": 400 + n * 0.06 + 70 * (n % 7 == 0)}, "memory drifted by 1."),
    "descriptors": (lambda n: {"descriptors": 80 + n // 20}, "5 file descriptors were added"),
    "a descriptor": (lambda n: {"descriptors": 80 + (n > 140)}, "1 file descriptors were added"),
    "a thread": (lambda n: {"threads": 15 + (n > 140)}, "1 threads were added"),
    "a worker that died": (lambda n: {"processes": 4 - (n == 77)}, r"the number of processes changed: \[3, 4\]"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_grows_is_told(kind: str) -> None:
    change, text = BAD[kind]
    failures = judge(growth(changed(change)))
    with pytest.raises(AssertionError, match=text):
        raise AssertionError("; ".join(failures))


def test_of_few_samples_nothing_is_said() -> None:
    with pytest.raises(ValueError, match="19 samples, at least 20 are needed"):
        growth(FLAT[:19])


def test_a_process_is_counted_with_its_children(tmp_path: Path) -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'], stdin=sys.stdin)"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, start_new_session=True) as parent:
        deadline = time.monotonic() + 20
        while (seen := look(parent.pid, 0)).processes < 2 or seen.rss < 10:
            assert time.monotonic() < deadline
        assert seen.pss < seen.rss
        assert seen.descriptors >= 6
        assert seen.threads == 2
        keep(tmp_path / "samples", seen)
        keep(tmp_path / "samples", seen)
        parent.communicate(b"\n")
    assert len((tmp_path / "samples").read_text().splitlines()) == 2
    gone = look(parent.pid, 0)
    assert (gone.processes, gone.rss, gone.descriptors, gone.threads) == (0, 0, 0, 0)


def test_descriptors_threads_and_memory_are_seen() -> None:
    before = look(os.getpid(), 0)
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    with mmap.mmap(-1, 50_000_000) as block, socket.socket():  # memory of its own, which the heap may have left over
        block.write(os.urandom(len(block)))
        after = look(os.getpid(), 0)
    ended.set()
    thread.join()
    assert after.descriptors == before.descriptors + 1
    assert after.threads == before.threads + 1
    assert after.rss > before.rss + 0.9 * 50


def test_a_soak_is_drawn(tmp_path: Path) -> None:
    seen = changed(lambda n: {"resting": n % 10 == 9})[:50]
    for one in seen:
        keep(tmp_path / "samples", one)
    samples = pictures.read(tmp_path / "samples")
    assert samples == seen
    pictures.draw(samples, tmp_path / "soak.png")
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")
