"""What a server's processes use, as Linux counts it: CPU time and memory of all of them, children included."""

import os
from collections.abc import Iterator
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

PARENT, SESSION = 1, 3
CPU_TIMES = slice(11, 15)
"""Where /proc/<pid>/stat has them, behind the command's name; the last are utime, stime, cutime and cstime."""


def stat(pid: int) -> list[str] | None:
    """Returns the fields of /proc/<pid>/stat from the state on, or None if the process has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text.rpartition(") ")[2].split()


def all_stats() -> Iterator[tuple[int, list[str]]]:
    """Yields every process with its fields."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (fields := stat(int(entry.name))):
            yield int(entry.name), fields


def family(root: int) -> dict[int, list[str]]:
    """Returns the fields of a process, of all in its session, and of all their children, by process id."""
    stats = dict(all_stats())
    found = {root} & stats.keys()
    grown = True
    while grown:
        more = {pid for pid, fields in stats.items() if int(fields[PARENT]) in found or int(fields[SESSION]) == root}
        grown = not more <= found
        found |= more
    return {pid: stats[pid] for pid in found}


def cpu_seconds(root: int) -> float:
    """Returns the CPU time that a process and its children have used, those that have ended included."""
    ticks = sum(int(ticks) for fields in family(root).values() for ticks in fields[CPU_TIMES])
    return ticks / TICKS_PER_SECOND


def pss_megabytes(root: int) -> float:
    """Returns the memory of a process and its children in MB, shared pages divided among those who share them."""
    return sum(_pss(pid) for pid in family(root)) * 1024 / 1e6


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def processor() -> str:
    """Names the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown")
