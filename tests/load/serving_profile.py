"""Where the service's time goes, as a table: ``python -m tests.load.serving_profile``, which needs Linux's `perf`."""

import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.load.bodies import ROW, ROWS
from tests.load.measuring import Case, measure
from tests.load.servers import ServerError, running

CASES = (Case("service", ROW), Case("service", ROWS), Case("service, batching", ROW, connections=64))

SECONDS = 5.0

SAMPLES_PER_SECOND = "2000"

PARTS = {
    "python": "Python itself: uvicorn's protocol, the lane, checks, metrics and log",
    "onnxruntime": "onnxruntime",
    "kernel": "the kernel: the loopback's reads and writes",
    "libc": "libc, mostly copies and memory",
    "_multiarray": "numpy",
    "simdjson": "simdjson",
    "parser.": "httptools and uvloop",
    "loop.": "httptools and uvloop",
}
"""What is called what, by a part of the library's file name; the first that fits."""

OTHER = "the rest"


def part_of(library: str) -> str:
    """Returns what a library's time is called."""
    file = library.partition(".cpython")[0] + "."  # what every extension module's name has
    return next((name for part, name in PARTS.items() if part in file), OTHER)


def profile(case: Case) -> dict[str, float]:
    """Returns the shares of a server's CPU samples under some traffic, in percent.

    Raises:
        ServerError: `perf` is missing or may not look, or the server failed.
    """
    with tempfile.TemporaryDirectory() as folder, running(case.server, Path(folder), case.body) as server:
        data = str(Path(folder) / "perf.data")
        record = ["perf", "record", "-F", SAMPLES_PER_SECOND, "-o", data, "-p", str(server.pid), "--"]
        with ThreadPoolExecutor(1) as pool:
            measured = pool.submit(measure, server, case, SECONDS + 1)
            output_of([*record, "sleep", str(SECONDS)])
            measured.result()
        return shares(output_of(["perf", "report", "-i", data, "--sort", "dso", "--stdio", "-q"]))


def shares(report: str) -> dict[str, float]:
    """Adds up the lines of a report, each a percentage and a library."""
    found: Counter[str] = Counter()
    for line in report.splitlines():
        if line.strip():
            percent, library = line.split(maxsplit=1)
            found[part_of(library.strip())] += float(percent.rstrip("%"))  # type: ignore[assignment]
    return dict(found)


def output_of(command: list[str]) -> str:
    """Runs a command, and returns what it prints.

    Raises:
        ServerError: It is missing or failed.
    """
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        raise ServerError(f"{command[0]} is not installed; on Debian: apt install linux-perf") from None
    except subprocess.CalledProcessError as error:
        raise ServerError(f"{' '.join(command)}: {error.stderr.strip()}") from error


def main() -> int:
    """Prints the table."""
    try:
        columns = [profile(case) for case in CASES]
    except ServerError as error:
        print(error, file=sys.stderr)
        return 1
    print("|  | " + " | ".join(str(case) for case in CASES) + " |")
    print("| --- |" + " --- |" * len(CASES))
    for name in dict.fromkeys([*PARTS.values(), OTHER]):
        print(f"| {name} | " + " | ".join(f"{column.get(name, 0):.0f} %" for column in columns) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
