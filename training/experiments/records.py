"""Results as JSON lines: one line per run, written when the run is done, so that a sweep can be resumed."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypedDict, cast

from training.experiments.results import ResultsError
from training.jobs import Job

Metrics = Mapping[str, Any]
"""What a run found, as JSON values; `failed` and a text if it found nothing."""


class Record(TypedDict):
    """One run of an experiment."""

    experiment: str
    method: str
    h: str
    recipe: str
    dataset: str
    seed: int
    settings: dict[str, Any]
    metrics: Metrics
    seconds: float
    commit: str


class Done(Protocol):
    """What a line needs to know of a run: a `Job` has it, and a `Run`."""

    @property
    def method(self) -> str:
        """The name of the method."""

    @property
    def h(self) -> str:
        """The scale function of the distortion."""

    @property
    def recipe(self) -> str:
        """The name of the recipe."""

    @property
    def dataset(self) -> str:
        """The name of the data."""

    @property
    def seed(self) -> int:
        """The seed."""


def record_of(experiment: str, run: Done, settings: dict[str, Any], metrics: Metrics, seconds: float) -> Record:
    """Makes the line of a run, with its settings as JSON values, that took so many seconds of CPU time."""
    return Record(
        experiment=experiment,
        method=run.method,
        h=run.h,
        recipe=run.recipe,
        dataset=run.dataset,
        seed=run.seed,
        settings=settings,
        metrics=metrics,
        seconds=round(seconds, 1),
        commit=current_commit(),
    )


def read_records(path: Path) -> list[Record]:
    """Returns the records of a file, none if there is no file.

    Raises:
        ResultsError: A line is not JSON, perhaps because writing it was cut off, or no run.
    """
    records: list[Record] = []
    try:
        lines = path.read_text().splitlines() if path.exists() else []
    except UnicodeDecodeError as error:
        raise ResultsError(f"{path} is not UTF-8 ({error.reason} at byte {error.start})") from error
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ResultsError(f"{path}, line {number} is not JSON ({error.msg}); remove it and run again") from error
        if not isinstance(record, dict) or not record.keys() >= Record.__required_keys__:
            raise ResultsError(f"{path}, line {number} is no run: {line[:80]}; remove it and run again")
        records.append(cast("Record", record))
    return records


def append_record(path: Path, record: Record) -> None:
    """Adds a record to a file, in one write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        stream.write(json.dumps(record) + "\n")


def missing(experiment: str, wanted: Sequence[Job], records: Sequence[Record]) -> list[Job]:
    """Returns the runs that are not among the records with the very same settings, each of them once."""

    def key(*parts: object) -> str:
        return json.dumps(parts, sort_keys=True)

    done = {key(r["experiment"], r["method"], r["dataset"], r["recipe"], r["seed"], r["settings"]) for r in records}
    left = {
        key(experiment, job.method, job.dataset, job.recipe, job.seed, job.settings.to_json()): job for job in wanted
    }
    return [job for name, job in left.items() if name not in done]


def of_setting(records: Sequence[Record], job: Job) -> list[Record]:
    """Returns the records of a run's setting, whatever their seed, by seed."""
    settings = job.settings.to_json()
    key = (job.method, job.dataset, job.recipe, settings)
    found = [r for r in records if (r["method"], r["dataset"], r["recipe"], r["settings"]) == key]
    return sorted(found, key=lambda record: record["seed"])


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
