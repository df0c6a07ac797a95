"""``python -m training``: fit, evaluate, list and reproduce. The command line only; what is done stands elsewhere."""

import argparse
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from training.datasets import DATASETS, IMAGES
from training.datasets.files import DatasetFileError
from training.evaluation import EvaluationError, describe_scores, evaluate_folder
from training.experiments import EXPERIMENTS
from training.experiments.base import Request
from training.experiments.face_fits import RECIPES as FACE_RECIPES
from training.experiments.results import ResultsError, check_section, write_section
from training.export import ExportError, check_place, export, seal
from training.fitting import FitError, FitInterrupted
from training.jobs import METHODS, FittedImages, FittedModel, ImageJob, Job, run, run_images
from training.memory import keep_freed_memory
from training.own_command import OPTIONS, add_arguments, fit_table_command
from training.progress import standard_output, watched
from training.settings import BATCHES, DEFAULT_H, IMAGE_SETTINGS, LAMBDAS, NETWORKS, RECIPES, named
from training.tables.errors import TableError

EXIT_INTERRUPTED = 130

DATASET_OPTIONS = ("method", "h", "recipe", "size", "epochs", "batch_size", "learning_rate", "resume", "restart")
"""Options of `fit` that are for datasets only; those for tables only are in own_command.py."""

TABLE_OPTIONS = ("method", "h", "recipe", "size")
"""Options of `fit` that are for the paper's tables only."""

LARGEST_SEED = 10**9
"""The seeds of an epoch's batches are computed from it, and have to fit 64 bits."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns the process's exit status: 0, 1 for an error that is told, 130 if interrupted."""
    options = parser().parse_args(arguments)
    console = standard_output()
    keep_freed_memory()
    torch.set_num_threads(1)  # the networks are too small for more, and results don't depend on the machine's cores
    try:
        options.command(options, console)
    except (DatasetFileError, TableError, FitError, ExportError, EvaluationError, ResultsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except FitInterrupted as interruption:
        print(f"interrupted: {interruption}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


def parser() -> argparse.ArgumentParser:
    """Builds the command line's parser."""
    top = argparse.ArgumentParser(prog="python -m training", description="Fit RaDOGAGA and export it for the service.")
    commands = top.add_subparsers(required=True, metavar="command")

    fit = commands.add_parser("fit", help="fit a dataset and export it as the next version of its model")
    fit.add_argument(
        "dataset", metavar="table", help=f"a file of your own, or one of {', '.join([*DATASETS, *IMAGES])}"
    )
    fit.add_argument("--method", choices=METHODS, default="RaDOGAGA", help="default: %(default)s")
    fit.add_argument("--h", choices=("identity", "log"), help="h(d) = d or log d; the paper's better one unless given")
    fit.add_argument("--recipe", choices=RECIPES, default="robust", help="default: %(default)s")
    fit.add_argument(
        "--size",
        choices=NETWORKS,
        default="table2",
        help="the paper's table of sizes and lambdas; default: %(default)s",
    )
    fit.add_argument(
        "--seed", type=natural, default=0, help="of split, weights, batches and noise; default: %(default)s"
    )
    fit.add_argument("--epochs", type=positive, help="the recipe's unless given")
    fit.add_argument("--batch-size", type=positive, help="the recipe's unless given")
    fit.add_argument("--learning-rate", type=positive_float, help="the recipe's unless given")
    fit.add_argument("--out", type=Path, default=Path("models"), help="folder of all models; default: %(default)s")
    again = fit.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on from the checkpoint of an interrupted fit")
    again.add_argument("--restart", action="store_true", help="drop the checkpoint of an interrupted fit")
    add_arguments(fit)
    fit.set_defaults(command=partial(fit_command, fit))

    evaluate = commands.add_parser("evaluate", help="measure a model folder on the test half it never saw")
    evaluate.add_argument("folder", type=Path, help="such as models/thyroid/1")
    evaluate.set_defaults(command=evaluate_command)

    describe = commands.add_parser(
        "describe-scores", help="write into older manifests how training scores are distributed"
    )
    describe.add_argument("folders", type=Path, nargs="+", metavar="folder", help="such as models/thyroid/1")
    describe.set_defaults(command=describe_scores_command)

    sealing = commands.add_parser("seal", help="write into older manifests their own sha256")
    sealing.add_argument("folders", type=Path, nargs="+", metavar="folder", help="such as models/thyroid/1")
    sealing.set_defaults(command=seal_command)

    listing = commands.add_parser("list", help="show datasets, methods and settings")
    listing.set_defaults(command=list_command)

    reproduce = commands.add_parser("reproduce", help="run experiments of the paper, resuming where they were left")
    reproduce.add_argument(
        "experiments", nargs="*", metavar="experiment", help="see --list; all but figure4 and figure5 unless given"
    )
    reproduce.add_argument("--list", action="store_true", help="show the experiments and how much of each is done")
    reproduce.add_argument("--render", action="store_true", help="run nothing, and write the page from what is done")
    reproduce.add_argument(
        "--datasets", nargs="+", choices=DATASETS, default=list(DATASETS), help="toy and appendix_d have their own"
    )
    reproduce.add_argument(
        "--recipes",
        nargs="+",
        choices=[*RECIPES, *FACE_RECIPES],
        help="of the tables, toy and the figures of faces; all unless given",
    )
    reproduce.add_argument("--seeds", type=seed_range, default=range(20), help="such as 0-4; default: 0-19")
    reproduce.add_argument("--workers", type=positive, default=os.cpu_count() or 1, help="default: a process per core")
    reproduce.add_argument(
        "--minutes",
        type=positive_float,
        default=math.inf,
        help="how long fits of faces go on in this call, shared among them; to their end unless given",
    )
    reproduce.add_argument("--docs", type=Path, default=Path("docs"), help="where results land; default: %(default)s")
    reproduce.set_defaults(command=reproduce_command)
    return top


def positive(text: str) -> int:
    """Reads an integer of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"is {text}, expected an integer of at least 1")
    return number


def natural(text: str) -> int:
    """Reads a seed."""
    number = int(text)
    if not 0 <= number <= LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"is {text}, expected an integer from 0 to {LARGEST_SEED}")
    return number


def positive_float(text: str) -> float:
    """Reads a finite number above 0."""
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"is {text}, expected a finite number above 0")
    return number


def seed_range(text: str) -> range:
    """Reads 3 as seed 3 and 0-4 as seeds 0 to 4."""
    first, _, last = text.partition("-")
    seeds = range(natural(first), natural(last or first) + 1)
    if not seeds:
        raise argparse.ArgumentTypeError(f"is {text}, expected the smaller seed first")
    return seeds


def fit_command(parser: argparse.ArgumentParser, options: argparse.Namespace, console: Console) -> None:
    """Fits a dataset or a table and exports the model."""
    images = options.dataset in IMAGES
    known = images or options.dataset in DATASETS
    for name in (*OPTIONS, *(TABLE_OPTIONS if images else ())) if known else DATASET_OPTIONS:
        if (given := getattr(options, name)) != parser.get_default(name):
            where = (
                f"{options.dataset} is a dataset with settings by name" if known else "a table's settings are found out"
            )
            raise FitError(f"--{name.replace('_', '-')} is {given}, but {where}: leave it away")
    if images:
        fit_images_command(options, console)
    elif known:
        fit_dataset_command(options, console)
    elif not Path(options.dataset).exists():
        names = ", ".join([*DATASETS, *IMAGES])
        raise FitError(f"table is '{options.dataset}', expected a file that is there, or one of {names}")
    else:
        fit_table_command(options, console)


def fit_dataset_command(options: argparse.Namespace, console: Console) -> None:
    """Fits a dataset and exports the model."""
    job = Job(
        dataset=options.dataset,
        method=options.method,
        h=options.h or ("identity" if options.method == "DAGMM" else DEFAULT_H[options.dataset]),
        recipe=options.recipe,
        seed=options.seed,
        size=options.size,
        overrides=overrides_of(options),
    )
    if (job.method, job.h) == ("DAGMM", "log"):
        raise FitError("h is log, but DAGMM has no h: leave --h away or choose identity")
    name = f".fit-{job.method}-{job.h}-{job.recipe}-{job.size}-seed{job.seed}.pt"
    label = f"{job.dataset} {job.method} {job.h} {job.recipe}"
    fit_and_export(options, partial(run, job), options.out / job.dataset / name, label, console)


def fit_images_command(options: argparse.Namespace, console: Console) -> None:
    """Fits images and exports the model."""
    job = ImageJob(dataset=options.dataset, seed=options.seed, overrides=overrides_of(options))
    name = f".fit-{job.method}-{job.recipe}-seed{job.seed}.pt"
    label = f"{job.dataset} {job.method} factorized"
    fit_and_export(options, partial(run_images, job), options.out / job.dataset / name, label, console)


def overrides_of(options: argparse.Namespace) -> dict[str, float]:
    """Returns the settings that the command line gives."""
    given = {"epochs": options.epochs, "batch_size": options.batch_size, "learning_rate": options.learning_rate}
    return {name: value for name, value in given.items() if value is not None}


def fit_and_export(
    options: argparse.Namespace,
    fit: Callable[..., FittedModel | FittedImages],
    checkpoint: Path,
    label: str,
    console: Console,
) -> None:
    """Fits, or goes on with it, and exports the model; the checkpoint is kept until that is done."""
    if options.restart:
        checkpoint.unlink(missing_ok=True)
    elif checkpoint.exists() and not options.resume:
        raise FitError(f"an interrupted fit left {checkpoint}; go on with --resume or drop it with --restart")
    check_place(options.out, options.dataset)
    with watched(label, console) as observer:
        try:
            model = fit(observer=observer, checkpoint=checkpoint, resume=options.resume)
        except FitInterrupted as interruption:
            raise FitInterrupted(f"{interruption}; go on with the same command and --resume") from None
    try:
        folder = export(model, options.out)
    except (ExportError, KeyboardInterrupt):
        print(f"the fit is kept in {checkpoint}; the same command with --resume exports it", file=sys.stderr)
        raise
    checkpoint.unlink(missing_ok=True)
    console.print(f"wrote {folder}", highlight=False)
    show_evaluation(folder, console)


def evaluate_command(options: argparse.Namespace, console: Console) -> None:
    """Measures a model folder."""
    show_evaluation(options.folder, console)


def describe_scores_command(options: argparse.Namespace, console: Console) -> None:
    """Writes the bins of the training half's scores into manifests."""
    for folder in options.folders:
        written = describe_scores(folder)
        console.print(f"{'wrote' if written else 'nothing to do:'} {folder / 'manifest.json'}", highlight=False)


def seal_command(options: argparse.Namespace, console: Console) -> None:
    """Writes their own digests into manifests."""
    for folder in options.folders:
        written = seal(folder / "manifest.json")
        console.print(f"{'wrote' if written else 'nothing to do:'} {folder / 'manifest.json'}", highlight=False)


def show_evaluation(folder: Path, console: Console) -> None:
    """Prints what a model folder is worth on its test half."""
    evaluation = evaluate_folder(folder)
    title = f"{folder}: test half, {evaluation.rows} rows, {evaluation.anomalies} anomalies"
    shipped, percentile = evaluation.shipped_threshold, evaluation.test_percentile
    table = Table("", "shipped threshold", "test percentile", title=title)
    for key, ours in shipped.items():
        theirs = percentile[key]  # type: ignore[literal-required]
        table.add_row(key.replace("_", " "), f"{ours:.4g}", f"{theirs:.4g}")
    console.print(table)


def list_command(_: argparse.Namespace, console: Console) -> None:
    """Prints datasets, methods and settings."""
    console.print(f"methods: {', '.join(METHODS)}", highlight=False)
    console.print(f"recipes: {', '.join(RECIPES)}", highlight=False)
    for size in NETWORKS:
        table = Table("dataset", "encoder", "K", "lambda (d)", "lambda (log d)", title=f"size {size}")
        for name in DATASETS:
            network = NETWORKS[size][name]
            layers = ", ".join(map(str, (*network["hidden"], network["latent"])))
            lambdas = [f"{first:g}, {second:g}" for first, second in LAMBDAS[size][name].values()]
            table.add_row(name, layers, str(network["components"]), *lambdas)
        console.print(table)
    table = Table("dataset", "recipe", "h", "batch", "epochs", "learning rate", "scaling", "floor", title="recipes")
    for name in BATCHES:
        for recipe in RECIPES:
            s = named(name, "RaDOGAGA", DEFAULT_H[name], recipe)
            rate = f"{s.learning_rate:g} {s.schedule}"
            table.add_row(name, recipe, s.h, str(s.batch_size), str(s.epochs), rate, s.scaling, f"{s.variance_floor:g}")
    console.print(table)
    table = Table("dataset", "kernels", "channels", "hidden", "latent", "D", "batch", "epochs", title="images")
    for name, i in IMAGE_SETTINGS.items():
        kernels = ", ".join(map(str, i.kernels))
        sizes = map(str, (i.channels, i.hidden, i.latent))
        table.add_row(name, kernels, *sizes, i.distance.replace("_", " "), str(i.batch_size), str(i.epochs))
    console.print(table)


def reproduce_command(options: argparse.Namespace, console: Console) -> None:
    """Runs what is missing of experiments and writes their parts of the page, or lists them."""
    unknown = [name for name in options.experiments if name not in EXPERIMENTS]
    if unknown:
        raise ResultsError(f"experiment is '{unknown[0]}', expected one of {', '.join(EXPERIMENTS)}")
    deadline = time.monotonic() + 60 * options.minutes
    request = Request(options.datasets, options.recipes, list(options.seeds), options.workers, options.docs, deadline)
    if options.list:
        table = Table("experiment", "what it regenerates", "done")
        for name, experiment in EXPERIMENTS.items():
            table.add_row(name, experiment.summary, experiment.state(request))
        console.print(table)
        return
    names = options.experiments or [
        name for name, experiment in EXPERIMENTS.items() if options.render or not experiment.only_by_name
    ]
    for name in names:
        check_section(options.docs, name)
    for name in names:
        if not options.render:
            EXPERIMENTS[name].reproduce(request, console)
        write_section(options.docs, name, EXPERIMENTS[name].render(options.docs))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # to be ended is to be interrupted
    sys.exit(main())
