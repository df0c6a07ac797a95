"""What records cost beside the vectors of the same rows: ``python -m tests.load.records_cost``.

Rows are the examples of KDDCup99, and go to a server of its own in closed loops, as vectors and as records in turns.
Prints the CPU time of the server per request, its median over the rounds, and the median of the rounds' ratios.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.load.client import Report
from tests.load.processes import cpu_seconds, processor
from tests.server import MODELS, ROOT, serving
from tests.service.offline.tables import examples, raw

DATASET = "kddcup99"

COUNTS = (1, 256)

CONNECTIONS, ROUNDS, SECONDS = 16, 9, 2.0


def bodies(count: int) -> dict[str, dict[str, Any]]:
    """Returns the same rows as vectors and as records."""
    x = examples(DATASET)
    rows = x[[i % len(x) for i in range(count)]]
    return {
        "vectors": {"dataset": DATASET, "vectors": rows.tolist()},
        "records": {"dataset": DATASET, "records": raw(rows, DATASET).to_pylist()},
    }


def milliseconds(url: str, pid: int, body: Path) -> float:
    """Posts a body again and again, and returns the server's CPU milliseconds per request."""
    words = ["--header", "content-type: application/json", "--connections", str(CONNECTIONS), "--seconds", str(SECONDS)]
    before = cpu_seconds(pid)
    done = subprocess.run(
        [sys.executable, "-m", "tests.load.client", url, body, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return 1e3 * (cpu_seconds(pid) - before) / (Report(**json.loads(done.stdout)).requests + CONNECTIONS)


def main() -> None:
    """Prints a table."""
    print(processor())
    print("\n| rows | vectors, ms | records, ms | ratio |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder) / "log", models=MODELS) as server:
        with server.client() as client:  # it is ready
            url = f"{client.base_url}/score"
        for count in COUNTS:
            found: dict[str, list[float]] = {}
            for turn in range(ROUNDS + 1):
                for name, document in bodies(count).items():
                    body = Path(folder) / name
                    body.write_text(json.dumps(document))
                    took = milliseconds(url, server.process.pid, body)
                    if turn:  # the first round warms up
                        found.setdefault(name, []).append(took)
            vectors, records = found["vectors"], found["records"]
            ratio = statistics.median(r / v for r, v in zip(records, vectors, strict=True))
            print(f"| {count} | {statistics.median(vectors):.3f} | {statistics.median(records):.3f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
