"""The command line of `python -m service score`; it imports nothing that takes time."""

import argparse
import os
from pathlib import Path

BLOCK_ROWS = 1_000_000
"""Rows of the blocks that a table is divided into for Ray."""

DESCRIPTION = """Score tables in files, with the scores the service would give. Input is Parquet, CSV with names in
its first line, or Arrow IPC; output is Parquet, with the columns score, anomaly and, if the model has p-values,
p_value, in the order of the input's rows. A summary stands on standard output as JSON. The settings RADOGAGA_MODELS,
RADOGAGA_PROVIDER and RADOGAGA_THREADS count here as they do for the service. Exit status: 0 if all is scored, 1 if
not, 2 for a wrong command."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    parser.add_argument("inputs", nargs="+", help="files, patterns or folders")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--dataset", metavar="NAME", help="whose model scores, out of RADOGAGA_MODELS")
    model.add_argument("--model", type=Path, metavar="FOLDER", help="folder of a dataset's models, or of one version")
    parser.add_argument(
        "--version", type=at_least_one, metavar="N", help="version of the model; the newest unless given"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="PATH",
        help="folder that the scores go to, or, of one file, a file that ends in .parquet",
    )
    parser.add_argument(
        "--keep",
        default="rest",
        metavar="COLUMNS",
        help="columns that stand beside the scores: 'rest' (those that don't feed the model; the default), 'all',"
        " 'none', or names with commas between",
    )
    parser.add_argument(
        "--bad-rows",
        choices=("error", "null"),
        default="error",
        help="what becomes of a row with a value that is no finite number: an error, or null for its score",
    )
    parser.add_argument("--resume", action="store_true", help="leave out what an earlier run has finished")
    parser.add_argument(
        "--batch-rows", type=at_least_one, metavar="N", help="rows read at once; by their width unless given"
    )
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="what does the work")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    local = parser.add_argument_group("--engine local")
    local.add_argument("--threads", type=at_least_one, metavar="N", help="batches scored side by side; one per core")
    ray = parser.add_argument_group("--engine ray")
    ray.add_argument(
        "--ray-address",
        default=os.environ.get("RAY_ADDRESS") or None,
        metavar="ADDRESS",
        help="the cluster's address; RAY_ADDRESS, or a cluster on this machine for as long as this runs",
    )
    ray.add_argument("--actors", type=at_least_one, metavar="N", help="detectors; one per core, or per GPU")
    ray.add_argument(
        "--gpus-per-actor",
        type=not_negative,
        metavar="N",
        help="GPUs each takes, 0.5 for half of one; 1 if RADOGAGA_PROVIDER demands a GPU, or else 0",
    )
    ray.add_argument(
        "--block-rows",
        type=at_least_one,
        default=BLOCK_ROWS,
        metavar="N",
        help=f"rows of a block, at least, in whole row groups or record batches ({BLOCK_ROWS:,})",
    )


def at_least_one(text: str) -> int:
    """Reads a whole number.

    Raises:
        ValueError: It is none, or below 1.
    """
    if (number := int(text)) < 1:
        raise ValueError(text)
    return number


def not_negative(text: str) -> float:
    """Reads a number.

    Raises:
        ValueError: It is none, or is negative or not finite.
    """
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError(text)
    return number
