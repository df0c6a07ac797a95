"""Bounds on what a test's work may take."""

import math
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

MB = 2**20


@contextmanager
def within(*, megabytes: float, seconds: float = math.inf) -> Iterator[None]:
    """Checks that what happens here takes no more memory of Python's at once, nor more CPU time."""
    tracemalloc.start()
    began = time.process_time()
    try:
        yield
        used, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < seconds
    assert peak < megabytes * MB
