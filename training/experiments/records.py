"""Results as JSON lines: one line per run, written when the run is done, so that a sweep can be resumed."""

import json
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypedDict

from rich.console import Console

from training.experiments.results import ResultsError
from training.fitting import Observer
from training.jobs import Job
from training.progress import watched

Measure = Callable[[Job, Observer], Mapping[str, Any]]


class Record(TypedDict):
    """One run of an experiment."""

    experiment: str
    method: str
    h: str
    recipe: str
    dataset: str
    seed: int
    settings: dict[str, Any]
    metrics: Mapping[str, Any]
    seconds: float
    commit: str


def read_records(path: Path) -> list[Record]:
    """Returns the records of a file, none if there is no file.

    Raises:
        ResultsError: A line is not JSON, perhaps because writing it was cut off.
    """
    records: list[Record] = []
    for number, line in enumerate(path.read_text().splitlines() if path.exists() else [], 1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ResultsError(f"{path}, line {number} is not JSON ({error.msg}); remove it and run again") from error
    return records


def append_record(path: Path, record: Record) -> None:
    """Adds a record to a file, in one write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        stream.write(json.dumps(record) + "\n")


def is_done(records: list[Record], experiment: str, job: Job) -> bool:
    """Says whether a run with the very same settings is among the records."""
    key = (experiment, job.dataset, job.recipe, job.seed, job.settings.to_json())
    return any(key == (r["experiment"], r["dataset"], r["recipe"], r["seed"], r["settings"]) for r in records)


def sweep(experiment: str, wanted: list[Job], measure: Measure, path: Path, console: Console) -> None:
    """Runs what is not in the file yet, adding a line after each run; an interrupted run starts anew.

    Arguments:
        experiment: The name of the experiment.
        wanted: The runs.
        measure: Does a run and returns its metrics as JSON values.
        path: The file of JSON lines.
        console: Where to show how it goes on.
    """
    for number, job in enumerate(wanted, 1):
        if is_done(read_records(path), experiment, job):
            continue
        label = f"[{number}/{len(wanted)}] {job.dataset} {job.h} {job.recipe} seed {job.seed}"
        started = time.process_time()
        with watched(label, console) as observer:
            metrics = measure(job, observer)
        record = Record(
            experiment=experiment,
            method="RaDOGAGA",
            h=job.h,
            recipe=job.recipe,
            dataset=job.dataset,
            seed=job.seed,
            settings=job.settings.to_json(),
            metrics=metrics,
            seconds=round(time.process_time() - started, 1),
            commit=current_commit(),
        )
        append_record(path, record)
        console.print(f"{label}: {json.dumps(metrics)}", highlight=False, markup=False, soft_wrap=True)


def current_commit() -> str:
    """Returns the short name of the checkout's commit, with a plus if files differ from it, or nothing."""
    try:
        name, changes = _git("rev-parse", "--short", "HEAD"), _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return ""
    return name + ("+" if changes else "")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parents[2]), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603 - constants
