"""Results as JSON lines: one line per run, written when the run is done, so that a sweep can be resumed."""

import json
import subprocess
from pathlib import Path
from typing import TypedDict

from training.jobs import Job
from training.metrics import Metrics


class Record(TypedDict):
    """One run of an experiment."""

    experiment: str
    method: str
    h: str
    recipe: str
    dataset: str
    seed: int
    settings: dict[str, object]
    metrics: Metrics
    seconds: float
    commit: str


def read_records(path: Path) -> list[Record]:
    """Returns the records of a file, none if there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append_record(path: Path, record: Record) -> None:
    """Adds a record to a file, in one write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        stream.write(json.dumps(record) + "\n")


def is_done(records: list[Record], experiment: str, job: Job) -> bool:
    """Says whether a run with the very same settings is among the records."""
    key = (experiment, job.dataset, job.recipe, job.seed, job.settings.to_json())
    return any(key == (r["experiment"], r["dataset"], r["recipe"], r["seed"], r["settings"]) for r in records)


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
