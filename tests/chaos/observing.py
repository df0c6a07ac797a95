"""What bars see of a service from outside: its memory and files, its health, how it answers a closed loop."""

import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.load.client import Report, percentile
from tests.server import SECONDS

JSON = "content-type: application/json"

PROBED = ("/health/ready", "/metrics")


def closed_loop(url: str, body: Path, connections: int, seconds: float) -> Report:
    """Runs `tests.load.client` for so many seconds."""
    command = [sys.executable, "-m", "tests.load.client", url, str(body), "--header", JSON]
    command += ["--connections", str(connections), "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + seconds)
    if done.returncode:
        raise AssertionError(done.stderr)
    return Report(**json.loads(done.stdout))


def resident_mb(pid: int) -> float:
    """Returns a process's memory in RAM."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"process {pid} has no VmRSS")


def open_files(pid: int) -> int:
    """Returns how many files and connections a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def cpu_wait(pid: int) -> float:
    """Returns the seconds that a process's first thread waited for a core; 0 where Linux doesn't count them."""
    file = Path(f"/proc/{pid}/task/{pid}/schedstat")
    return int(file.read_text().split()[1]) / 1e9 if file.exists() else 0.0


class Watch:
    """What was seen while a service was watched.

    Attributes:
        seconds: How long each health check and scrape took, with a connection of its own.
        wrong: Those that were not answered 200.
        memory: The process's memory in MB, as it went.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {path: [] for path in PROBED}
        self.wrong: list[str] = []
        self.memory: list[float] = []

    def p99_ms(self, path: str) -> float:
        """Returns the 99th percentile of what a path took."""
        return 1e3 * percentile(sorted(self.seconds[path]), 0.99)

    def probe(self, url: str) -> None:
        """Asks for each path once."""
        parts = urlsplit(url)
        for path in PROBED:
            started = time.perf_counter()
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=SECONDS)
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                answer.read()
                if answer.status != http.client.OK:
                    self.wrong.append(f"{path}: {answer.status}")
            except (OSError, http.client.HTTPException) as error:
                self.wrong.append(f"{path}: {error!r}")
            finally:
                connection.close()
            self.seconds[path].append(time.perf_counter() - started)


@contextmanager
def watching(url: str, pid: int, pause: float = 0.05) -> Iterator[Watch]:
    """Asks a service how it is, again and again, and looks at its memory."""
    watch, over = Watch(), threading.Event()

    def look() -> None:
        while not over.wait(pause):
            watch.probe(url)
            watch.memory.append(resident_mb(pid))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()


def median(values: Sequence[float]) -> float:
    """Returns the upper median."""
    return sorted(values)[len(values) // 2]
