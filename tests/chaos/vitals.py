"""What a service's processes hold, as Linux counts it, and whether it grew."""

import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tests.load.processes import family, pss_megabytes

PAGE_BYTES = 4096

MOST_DRIFT = 0.01
"""How much of its mean the memory of the last half may change by."""

WINDOWS = 3
"""Windows of the last half whose medians are compared; in an hour they are ten minutes long."""

FEWEST = 20
"""Samples of which anything can be said."""


@dataclass(frozen=True)
class Vitals:
    """All processes of a service at one moment.

    Attributes:
        at: Seconds since the beginning.
        processes: How many there are.
        pss: Their memory in MB, shared pages divided among those who share them.
        rss: The sum of their resident memory in MB.
        descriptors: Open files and connections.
        threads: Threads.
        resting: Whether nothing was sent for some time.
    """

    at: float
    processes: int
    pss: float
    rss: float
    descriptors: int
    threads: int
    resting: bool = False


def look(root: int, began: float, resting: bool = False) -> Vitals:
    """Counts what a process and its children hold; `began` is by `time.monotonic`."""
    pids = sorted(family(root))
    return Vitals(
        at=round(time.monotonic() - began, 2),
        processes=len(pids),
        pss=round(pss_megabytes(root), 3),
        rss=round(sum(_resident(pid) for pid in pids), 3),
        descriptors=sum(_entries(pid, "fd") for pid in pids),
        threads=sum(_entries(pid, "task") for pid in pids),
        resting=resting,
    )


def keep(file: Path, vitals: Vitals) -> None:
    """Adds a line of JSON to a file."""
    with file.open("a") as stream:
        stream.write(json.dumps(asdict(vitals)) + "\n")


@dataclass(frozen=True)
class Growth:
    """How the last half of a time compares with itself, and with what was before.

    Attributes:
        memory: The mean of the medians of `WINDOWS` windows of the last half, in MB.
        drift: What the regression line through these medians rises by in all of it, over their mean.
        spread: Their range, over their mean.
        descriptors: Open files more in the last quarter than in the second, by their medians.
        threads: Threads more, the same way.
        processes: The numbers of processes that were seen.
    """

    memory: float
    drift: float
    spread: float
    descriptors: float
    threads: float
    processes: set[int]


def growth(samples: Sequence[Vitals]) -> Growth:
    """Compares samples that are evenly spread over some time; of fewer than `FEWEST` nothing is said.

    Raises:
        ValueError: There are fewer than that.
    """
    if len(samples) < FEWEST:
        raise ValueError(f"{len(samples)} samples, at least {FEWEST} are needed")
    last = samples[len(samples) // 2 :]
    medians = [float(np.median(window)) for window in np.array_split([one.rss for one in last], WINDOWS)]
    memory, slope = statistics.mean(medians), float(np.polyfit(range(WINDOWS), medians, 1)[0])
    quarter = len(samples) // 4
    second, fourth = samples[quarter : 2 * quarter], samples[-quarter:]
    return Growth(
        memory=memory,
        drift=slope * WINDOWS / memory,
        spread=(max(medians) - min(medians)) / memory,
        descriptors=statistics.median(s.descriptors for s in fourth) - statistics.median(s.descriptors for s in second),
        threads=statistics.median(s.threads for s in fourth) - statistics.median(s.threads for s in second),
        processes={one.processes for one in samples},
    )


def judge(found: Growth) -> list[str]:
    """Says what grew that should not."""
    failures = []
    if abs(found.drift) > MOST_DRIFT:
        failures.append(f"memory drifted by {found.drift:.2%} in the last half, at most {MOST_DRIFT:.0%} is allowed")
    if found.spread > MOST_DRIFT:
        failures.append(f"memory of the last half spread over {found.spread:.2%}, at most {MOST_DRIFT:.0%} is allowed")
    if found.descriptors > 0:
        failures.append(f"{found.descriptors:g} file descriptors were added")
    if found.threads > 0:
        failures.append(f"{found.threads:g} threads were added")
    if len(found.processes) != 1:
        failures.append(f"the number of processes changed: {sorted(found.processes)}")
    return failures


def _resident(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES / 1e6
    except (FileNotFoundError, ProcessLookupError):
        return 0.0


def _entries(pid: int, name: str) -> int:
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/{name}").iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return 0
