"""How long a large table of one's own takes to fit and to score, and in how much memory.

``python -m tests.load.own_tables`` makes tables of 20 columns (numbers, of which some are missing, categories, a
boolean, moments, an identifier), fits each by `python -m training fit`, scores it by `python -m service score`, and
reads it once with pyarrow and polars' statistics for comparison: all are processes of their own. Of the longer one the
memory says whether it grows with the rows.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.load.offline_speed import Figures, measure
from tests.load.processes import processor

ROWS = (1_000_000, 10_000_000)
ROW_GROUP = 100_000

NUMBERS, CATEGORIES = 13, 4
KINDS = np.array(["card", "cash", "transfer", "voucher", "debit"])

READ = """
import sys
import polars as pl
table = pl.scan_parquet(sys.argv[1])
print(table.select(pl.col("^n.*$").std()).collect(engine="streaming"))
print(table.select(pl.all().null_count()).collect(engine="streaming"))
"""
"""The reference: nulls and standard deviations, in one pass."""


def batch(draw: np.random.Generator, first: int, rows: int) -> pa.Table:
    """Makes rows whose numbers lie near a plane that belongs to a category."""
    kind = draw.integers(0, len(KINDS), rows)
    plane = np.random.default_rng(0).normal(size=(len(KINDS), 4, NUMBERS))
    latent = draw.normal(size=(rows, 4))
    values = np.einsum("nl,nlm->nm", latent, plane[kind]) + kind[:, None] + 0.2 * draw.normal(size=(rows, NUMBERS))
    columns: dict[str, pa.Array] = {"id": pa.array(np.arange(first, first + rows))}
    for i, column in enumerate(values.T):
        columns[f"n{i}"] = pa.array(column, mask=draw.random(rows) < (0.05 if i % 4 == 0 else 0))
    columns["k0"] = pa.array(KINDS[kind])
    for i in range(1, CATEGORIES):
        columns[f"k{i}"] = pa.array(KINDS[(kind + draw.integers(0, 2, rows)) % len(KINDS)])
    columns["online"] = pa.array(draw.random(rows) < 0.2 + 0.1 * kind)
    minutes = draw.integers(0, 365 * 24 * 60, rows).astype("timedelta64[m]")
    columns["at"] = pa.array((np.datetime64("2025-01-01T00:00") + minutes).astype("datetime64[ms]"))
    return pa.table(columns)


def make_table(path: Path, rows: int) -> None:
    """Writes a table, a row group at a time."""
    draw = np.random.default_rng(1)
    writer: pq.ParquetWriter | None = None
    for first in range(0, rows, ROW_GROUP):
        part = batch(draw, first, min(ROW_GROUP, rows - first))
        writer = writer or pq.ParquetWriter(path, part.schema)
        writer.write_table(part)
    if writer:
        writer.close()


def run(rows: int, folder: Path) -> dict[str, Figures]:
    """Makes a table, and measures what is done with it."""
    source, models = folder / "table.parquet", folder / "models"
    make_table(source, rows)
    score = ["score", str(source), "--model", str(models / "table" / "1"), "--out", str(folder / "scored.parquet")]
    return {
        "read": measure([sys.executable, "-c", READ, str(source)]),
        "fit": measure([sys.executable, "-m", "training", "fit", str(source), "--out", str(models)]),
        "score": measure([sys.executable, "-m", "service", *score, "--quiet"]),
    }


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description="Measure fits of large tables, and their scoring.")
    parser.add_argument("--rows", nargs="+", type=int, default=ROWS, metavar="N", help="lengths of the tables")
    options = parser.parse_args()
    print(f"{processor()}, {os.cpu_count()} cores\n")
    header = ["rows", "what", "seconds", "CPU s", "CPU / reading's", "MB at the peak"]
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as name:
            found = run(rows, Path(name))
        for what, one in found.items():
            ratio = f"{one.cpu / found['read'].cpu:.1f}"
            cells = [f"{rows:,}", what, f"{one.seconds:.0f}", f"{one.cpu:.0f}", ratio, f"{one.megabytes:,.0f}"]
            print(f"| {' | '.join(cells)} |")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
