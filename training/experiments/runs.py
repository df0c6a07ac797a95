"""Experiments whose runs are not fits of the anomaly sets by name: they have lines all the same, and are resumed."""

import json
import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from training.experiments.base import Experiment, Request
from training.experiments.records import Metrics, Record, append_record, read_records, record_of
from training.experiments.results import lines_file


@dataclass(frozen=True)
class Run:
    """One run by everything that decides its result.

    Attributes:
        method: The name of the method.
        h: The scale function of the distortion.
        recipe: The name of what the settings are.
        dataset: The name of the data.
        seed: The seed.
        settings: All settings, as JSON values.
    """

    method: str
    h: str
    recipe: str
    dataset: str
    seed: int
    settings: dict[str, Any]

    @property
    def setting(self) -> str:
        """What the run has in common with those that differ from it by the seed alone."""
        return json.dumps([self.method, self.h, self.recipe, self.dataset, self.settings], sort_keys=True)

    @property
    def label(self) -> str:
        """Names the run for people, but for its seed."""
        return f"{self.dataset} {self.method} {self.h} {self.recipe}"


def run_of(record: Record) -> Run:
    """Returns the run that a line is of."""
    return Run(record["method"], record["h"], record["recipe"], record["dataset"], record["seed"], record["settings"])


def key(run: Run) -> tuple[str, int]:
    """Returns what no two runs share."""
    return run.setting, run.seed


def metrics_by_seed(records: Sequence[Record], run: Run) -> dict[int, Metrics]:
    """Returns what the runs of a setting found, by seed."""
    found = {record["seed"]: record["metrics"] for record in records if run_of(record).setting == run.setting}
    return dict(sorted(found.items()))


class Listed(Experiment):
    """An experiment that lists its runs; those of one setting are done together, in this process."""

    @abstractmethod
    def runs(self, request: Request) -> list[Run]:
        """Lists the runs that are asked for."""

    @abstractmethod
    def do(self, runs: Sequence[Run], docs: Path, console: Console) -> list[Metrics]:
        """Does runs of one setting and returns what each found."""

    def missing(self, request: Request) -> list[Run]:
        """Lists the runs that are asked for and have no line yet."""
        done = {key(run_of(record)) for record in read_records(lines_file(request.docs, self.name))}
        return [run for run in self.runs(request) if key(run) not in done]

    def state(self, request: Request) -> str:
        wanted = len(self.runs(request))
        return f"{wanted - len(self.missing(request))}/{wanted}"

    def reproduce(self, request: Request, console: Console) -> None:
        groups: dict[str, list[Run]] = {}
        for run in self.missing(request):
            groups.setdefault(run.setting, []).append(run)
        for group in groups.values():
            started = time.process_time()
            found = self.do(group, request.docs, console)
            seconds = (time.process_time() - started) / len(group)
            for run, metrics in zip(group, found, strict=True):
                append_record(
                    lines_file(request.docs, self.name), record_of(self.name, run, run.settings, metrics, seconds)
                )
            console.print(f"{group[0].label}: {seconds:.0f} s each", highlight=False, markup=False, soft_wrap=True)
