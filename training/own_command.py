"""``python -m training fit`` for a user's table: read it, show what it is, fit a model and export it."""

import argparse
import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from training.export import check_place
from training.fitting import FitError, Observer, Progress
from training.own_export import export_own
from training.own_tables import DEFAULT_RATE, Rule, digest_of, fit_own
from training.progress import counted, watched
from training.tables.base import Observer as Reads
from training.tables.base import Table
from training.tables.inference import Overrides, infer_schema
from training.tables.reading import open_table
from training.tables.schema import Schema, show
from training.tables.schema_file import check_schema, read_schema, write_schema

OPTIONS = (
    "name",
    "label",
    "anomaly",
    "drop",
    "categorical",
    "numeric",
    "timestamp",
    "schema",
    "write_schema",
    "false_positive_rate",
    "contamination",
)
"""Options that say something of a table of one's own."""

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def add_arguments(fit: argparse.ArgumentParser) -> None:
    """Adds the options of tables to those of datasets."""
    group = fit.add_argument_group("a table of your own")
    group.add_argument("--name", help="what the model is served under; the file's name unless given")
    group.add_argument("--label", help="the column that says which rows are anomalies")
    group.add_argument("--anomaly", help="what anomalies have in it; found out unless given")
    for name, what in (
        ("drop", "not to fit on"),
        ("categorical", "that are categories"),
        ("numeric", "that are numbers"),
        ("timestamp", "that are moments"),
    ):
        group.add_argument(f"--{name}", type=names, default=(), metavar="A,B", help=f"columns {what}")
    group.add_argument("--schema", type=Path, help="what the columns are, as schema.toml in a model folder says it")
    group.add_argument("--write-schema", type=Path, metavar="FILE", help="write that file, to be edited, and stop")
    rule = group.add_mutually_exclusive_group()
    rule.add_argument(
        "--false-positive-rate",
        type=float,
        metavar="RATE",
        help=f"the rate of normal rows that may be called anomalies; default: {DEFAULT_RATE}",
    )
    rule.add_argument("--contamination", type=float, metavar="RATIO", help="the ratio of all rows that are anomalies")


def names(text: str) -> Sequence[str]:
    """Reads names that commas separate."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def fit_table_command(options: argparse.Namespace, console: Console) -> Path | None:
    """Fits a table and exports the model; returns its folder, if there was more to do than to write a schema.

    Raises:
        TableError: The table or the schema can't be used.
        FitError: A fit can't start or went wrong.
        ExportError: The model can't be written.
    """
    path = Path(options.dataset)
    name = options.name or name_of(path)
    if not NAME.fullmatch(name):
        raise FitError(f"--name is '{name}', expected small letters, digits, - and _, at most 64")
    with counted(f"{path.name}: reading", console) as reads:
        table = open_table(path, observe=reads)
    with counted(f"{path.name}: looking what the columns are", console) as reads:
        schema = schema_for(options, table, reads)
    show(schema, console)
    if options.write_schema is not None:
        write_schema(schema, options.write_schema)
        console.print(f"wrote {options.write_schema}", highlight=False)
        return None
    check_place(options.out, name)
    rule = Rule(options.false_positive_rate, options.contamination)
    with ExitStack() as stack:
        observers: dict[int, Observer] = {}

        def observe(number: int, count: int, progress: Progress) -> None:
            if number not in observers:
                stack.close()
                observers[number] = stack.enter_context(watched(f"{name} {number + 1}/{count}", console))
            observers[number](progress)

        reads = stack.enter_context(counted(f"{path.name}: encoding", console))
        model = fit_own(table, schema, name, rule, options.seed, digest_of(path), reads, observe)
    if options.false_positive_rate is None and (rate := model.rule.false_positive_rate or 0) > DEFAULT_RATE:
        rows = len(model.fit.parts.calibration)
        console.print(
            f"false-positive rate: {rate:.3g}, the smallest that {rows} calibration rows promise", highlight=False
        )
    folder = export_own(model, options.out)
    console.print(f"wrote {folder}", highlight=False)
    return folder


def schema_for(options: argparse.Namespace, table: Table, reads: Reads) -> Schema:
    """Reads the schema that is given, or finds out what a table's columns are."""
    asked = Overrides(
        drop=options.drop,
        categorical=options.categorical,
        numeric=options.numeric,
        timestamp=options.timestamp,
        label=options.label,
        anomaly=options.anomaly,
    )
    if options.schema is None:
        return infer_schema(table, asked, reads)
    if asked != Overrides():
        raise FitError(
            "--schema says what the columns are; change it there, and leave --drop, --categorical and the like away"
        )
    schema = read_schema(options.schema)
    check_schema(schema, table)
    return schema


def name_of(path: Path) -> str:
    """Makes a model's name of a file's: its first part, in small letters."""
    return re.sub(r"[^a-z0-9_-]+", "-", path.name.split(".")[0].lower()).strip("-_")[:64]
