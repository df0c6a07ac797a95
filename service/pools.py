"""Pools of threads that are all there from the beginning."""

import threading
from concurrent.futures import ThreadPoolExecutor


def started_pool(threads: int, name: str) -> ThreadPoolExecutor:
    """Creates a pool and starts its threads.

    Left to itself a pool starts a thread whenever all others are busy, which may first be so hours later; and each
    thread has some MB of its own by then.

    Arguments:
        threads: How many, at least 1.
        name: What they are called.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    together = threading.Barrier(threads)
    for _ in range(threads):  # each waits for the others, so that none is free to take the place of another
        pool.submit(together.wait)
    return pool
