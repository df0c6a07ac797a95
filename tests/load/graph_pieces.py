"""What pieces spare: many rows through a graph at once, and piece by piece, in turns.

``python -m tests.load.graph_pieces`` runs 16,384 rows, as many as a request may have, through the scorer of every
shipped model in both ways. Of the CPU time the fastest of some rounds counts, which was disturbed least; of the memory,
what the process holds at most beyond what it held before. The scores are compared bit by bit.
"""

import ctypes
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from service.graphs import PIECE, Graph, Matrix
from service.runtime import Runtime
from tests.load.processes import processor
from tests.server import MODELS

ROWS = 16_384
ROUNDS = 5

STATUS, PEAK = Path("/proc/self/status"), "VmHWM:"


def measure(run: Callable[[], Matrix]) -> tuple[float, float]:
    """Returns the CPU seconds of some work, and the MB that it took at most."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    held = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    began = time.thread_time()
    run()
    seconds = time.thread_time() - began
    (peak,) = (int(line.split()[1]) * 1024 for line in STATUS.read_text().splitlines() if line.startswith(PEAK))
    return seconds, (peak - held) / 1e6


def report(folder: Path) -> str:
    """Measures a model, and returns a row of a Markdown table.

    Raises:
        RuntimeError: The two ways don't give the same scores.
    """
    session = Runtime("cpu").session((folder / "scorer.onnx").read_bytes())
    (given,), (made,) = session.get_inputs(), session.get_outputs()
    graph = Graph(session, given.name, made.name)
    rows = np.random.default_rng(0).random((ROWS, int(given.shape[1])), dtype=np.float32)
    ways: dict[str, Callable[[], Matrix]] = {
        "at once": lambda: session.run([made.name], {given.name: rows})[0],
        "in pieces": lambda: graph.run(rows),
    }
    if ways["at once"]().tobytes() != ways["in pieces"]().tobytes():
        raise RuntimeError(f"{folder}: pieces have other scores than the whole")
    rounds = [{name: measure(run) for name, run in ways.items()} for _ in range(ROUNDS)]
    cpu = {name: 1000 * min(one[name][0] for one in rounds) for name in ways}
    memory = {name: max(one[name][1] for one in rounds) for name in ways}
    name = "/".join(folder.parts[-2:])
    return (
        f"| {name} | {cpu['at once']:.1f} | {cpu['in pieces']:.1f} | {cpu['in pieces'] / cpu['at once']:.2f} "
        f"| {memory['at once']:.0f} | {memory['in pieces']:.0f} |"
    )


if __name__ == "__main__":
    print(f"{ROWS} rows, pieces of {PIECE}; {processor()}\n")
    print("| model | CPU ms, at once | CPU ms, in pieces | ratio | MB, at once | MB, in pieces |")
    print("|---|---|---|---|---|---|")
    for version in sorted(MODELS.glob("*/[0-9]*")):
        print(report(version), flush=True)
