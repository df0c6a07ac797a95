"""How fast and in how much memory tables are scored, beside a plain loop measured in the same run.

``python -m tests.load.offline_speed`` makes a table per model and scores it by `python -m service score` and by the
loop that is usually written: read the table, make a matrix of it, run the graph, write the scores. Both are processes
of their own and take turns; of each the fastest round counts, for it was disturbed least. A second table, four times as
long, shows whether memory grows with the rows; the loop's does, up to 5 GB.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from service.detector import Detector
from service.runtime import Runtime
from tests.load.processes import processor
from tests.server import ROOT

MODELS = {"thyroid/1": 1_000_000, "thyroid/2": 100_000, "kddcup99/2": 150_000, "arrhythmia/2": 75_000}
"""Models, and rows of the shorter table."""

LONGER = 4
ROW_GROUP = 50_000
ROUNDS = 5


@dataclass(frozen=True)
class Figures:
    """What one process took.

    Attributes:
        seconds: From its start to its end.
        cpu: CPU seconds of all its threads.
        megabytes: Its memory at the peak, in MB.
    """

    seconds: float
    cpu: float
    megabytes: float


def make_table(columns: tuple[str, ...], rows: int, path: Path) -> None:
    """Writes a table with an id and float64 values, uniform on [0, 1)."""
    draw = np.random.default_rng(0)
    schema = pa.schema([("id", pa.int64()), *((name, pa.float64()) for name in columns)])
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, rows, ROW_GROUP):
            count = min(ROW_GROUP, rows - first)
            values = [draw.random(count) for _ in columns]
            writer.write_table(pa.table([np.arange(first, first + count), *values], schema=schema))


def plain_loop(model: Path, source: Path, out: Path) -> None:
    """Scores a table as it is usually written."""
    detector = Detector.load(model, Runtime("cpu"))
    session = Runtime("cpu").session((model / "scorer.onnx").read_bytes())
    table = pq.read_table(source)
    rows = np.stack([table[name].to_numpy() for name in detector.columns], axis=1).astype(np.float32)
    scores = session.run(["score"], {"x": rows})[0]
    scored = pa.table({"id": table["id"], "score": scores, "anomaly": scores >= detector.threshold})
    pq.write_table(scored, out / source.name)


def measure(command: list[str]) -> Figures:
    """Runs a command, and returns what it took."""
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return Figures(time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6)


def commands(model: str, source: Path, out: Path) -> dict[str, list[str]]:
    """Returns what is measured, by its name."""
    dataset, version = model.split("/")
    score = [sys.executable, "-m", "service", "score", str(source), "--dataset", dataset, "--version", version]
    return {
        "score": [*score, "--out", str(out), "--quiet"],
        "one thread": [*score, "--out", str(out), "--quiet", "--threads", "1"],
        "loop": [sys.executable, "-m", "tests.load.offline_speed", "--loop", f"models/{model}", str(source), str(out)],
    }


def best(model: str, source: Path, folder: Path, rounds: int) -> dict[str, Figures]:
    """Returns the fastest round of each, and the scores of the last are compared."""
    found: dict[str, list[Figures]] = {}
    written: dict[str, Path] = {}
    for _ in range(rounds):
        for name in commands(model, source, folder):
            written[name] = out = folder / name
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            found.setdefault(name, []).append(measure(commands(model, source, out)[name]))
    scores = [pq.read_table(out / source.name, columns=["id", "score", "anomaly"]) for out in written.values()]
    if not all(table.equals(scores[0]) for table in scores):
        raise RuntimeError(f"the scores of {model} differ")
    return {name: min(figures, key=lambda one: one.seconds) for name, figures in found.items()}


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description="Measure the scoring of tables beside a plain loop.")
    parser.add_argument("--loop", nargs=3, type=Path, metavar=("model", "table", "out"), help="run the loop and stop")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"rounds of each ({ROUNDS})")
    options = parser.parse_args()
    if options.loop:
        plain_loop(*options.loop)
        return
    print(f"{processor()}, {os.cpu_count()} cores\n")
    header = ["model", "rows", "rows/s", "one thread", "loop", "CPU / loop's", "MB", "loop's MB"]
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for model, rows in MODELS.items():
        columns = Detector.load(ROOT / "models" / model, Runtime("cpu")).columns
        for count in (rows, rows * LONGER):
            with tempfile.TemporaryDirectory() as name:
                source = Path(name) / "table.parquet"
                make_table(columns, count, source)
                figures = best(model, source, Path(name), options.rounds)
            score, alone, loop = figures["score"], figures["one thread"], figures["loop"]
            speeds = [f"{count / one.seconds:,.0f}" for one in (score, alone, loop)]
            ratio = f"{score.cpu / loop.cpu:.2f}"
            memory = [f"{one.megabytes:.0f}" for one in (score, loop)]
            print(f"| {' | '.join([model, f'{count:,}', *speeds, ratio, *memory])} |")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
